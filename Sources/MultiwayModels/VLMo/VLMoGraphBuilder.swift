import MultiwayCore
import MultiwayGraph

/// Builds the graph of a VLMo: embeddings and encoder here, the end in a head.
///
/// Both streams read the same attention, norms and layer scales; only feed-forward networks differ, and in the upper layers of a joint
/// pass not even these. Vision comes first here and text last, the other way round than in the original (`VLMoPositions`).
///
/// The original always pads texts to `textTokens` and masks the rest. A masked key adds exactly nothing, so a shorter text gives the
/// same results for its own tokens, and any length up to `textTokens` is accepted.
struct VLMoGraphBuilder: ModelGraphBuilding {
  let configuration: VLMoConfiguration
  let parameters: BoundParameters
  var graph = Graph()
  var constants: [String: ConstantID] = [:]

  /// A stream of tokens on its way through the encoder.
  struct Stream {
    var modality: Modality
    var tokens: ValueID
  }

  /// A way through the encoder.
  struct Route {
    /// What stands before the names of its values: one graph may go through the encoder more than once.
    var prefix = ""
    /// True where the upper layers use the networks of both modalities together; false where each keeps to its own.
    var isJoint: Bool
  }

  init(_ configuration: VLMoConfiguration, _ parameters: BoundParameters) {
    self.configuration = configuration
    self.parameters = parameters
  }

  var epsilon: Float { configuration.epsilon }

  /// True where the checkpoint brings what serves text.
  var hasText: Bool { parameters["text.embedding.weight"] != nil }

  /// All layers of `layers`.
  /// - Parameter padding: the padding mask of the text, which is the last stream.
  mutating func encode(
    _ streams: [Stream], padding: ValueID?, _ route: Route, layers: Range<Int>? = nil
  ) throws(GraphError) -> [Stream] {
    var streams = streams
    for layer in layers ?? 0..<configuration.depth {
      streams = try encode(streams, padding: padding, route, layer: layer)
    }
    return streams
  }

  private mutating func encode(
    _ streams: [Stream], padding: ValueID?, _ route: Route, layer: Int
  ) throws(GraphError) -> [Stream] {
    var inputs: [ValueID] = []
    for stream in streams { inputs += try queryKeyValue(stream, route, layer) }
    if let padding { inputs.append(padding) }
    let attention = Attention(
      heads: configuration.heads, isPadded: padding != nil, bias: try relativeBias(layer, streams.map(\.modality)))
    let attended = try graph.add(
      .attention(attention), inputs,
      names: streams.map { "\(route.prefix)layers.\(layer).\($0.modality.rawValue).attention" },
      modality: streams.count == 1 ? streams[0].modality : .shared)
    var results: [Stream] = []
    for (stream, value) in zip(streams, attended) {
      results.append(try finish(stream, attention: value, route, layer))
    }
    return results
  }

  private mutating func queryKeyValue(_ stream: Stream, _ route: Route, _ layer: Int) throws(GraphError) -> [ValueID] {
    let (shared, modality) = ("layers.\(layer).", stream.modality)
    let name = "\(route.prefix)\(shared)\(modality.rawValue)."
    let normed = try norm(
      stream.tokens, shared + "attention_norm", .attentionNorm, modality, as: name + "attention_norm")
    let query = try linear(normed, shared + "query", .attentionQuery, modality, as: name + "query")
    let factor = 1 / Float(configuration.headSize).squareRoot()
    let scaled = try graph.add(.scale(by: factor), query, name: name + "query_scaled", modality: modality)
    let key = try linear(normed, shared + "key", .attentionKey, modality, as: name + "key")
    let value = try linear(normed, shared + "value", .attentionValue, modality, as: name + "value")
    return [scaled, key, value]
  }

  private mutating func finish(
    _ stream: Stream, attention: ValueID, _ route: Route, _ layer: Int
  ) throws(GraphError) -> Stream {
    let (shared, modality) = ("layers.\(layer).", stream.modality)
    let name = "\(route.prefix)\(shared)\(modality.rawValue)."
    let isJoint = route.isJoint && layer >= configuration.jointStart
    let expert = shared + (isJoint ? "joint" : modality.rawValue) + "."
    let out = try linear(attention, shared + "attention_out", .attentionOut, modality, as: name + "attention_out")
    let middle = try add(out, scaledBy: shared + "attention_scale", to: stream, name, "attention")
    let normed = try norm(
      middle.tokens, expert + "feed_forward_norm", .feedForwardNorm, modality, as: name + "feed_forward_norm")
    let hidden = try linear(
      normed, expert + "feed_forward_in", .feedForwardIn, modality, as: name + "feed_forward_in")
    let activated = try graph.add(.gelu, hidden, name: name + "feed_forward_activation", modality: modality)
    let projected = try linear(
      activated, expert + "feed_forward_out", .feedForwardOut, modality, as: name + "feed_forward_out")
    return try add(projected, scaledBy: shared + "feed_forward_scale", to: middle, name, "feed_forward")
  }

  /// The sum with the residual stream, behind the layer scale where the model has one.
  private mutating func add(
    _ value: ValueID, scaledBy scale: String, to stream: Stream, _ name: String, _ part: String
  ) throws(GraphError) -> Stream {
    let modality = stream.modality
    var value = value
    if configuration.hasLayerScale {
      let op = Op.scaleChannels(try constant(scale))
      value = try graph.add(op, value, name: name + part + "_scale", role: .layerScale, modality: modality)
    }
    let sum = part == "attention" ? "attention_residual" : "output"
    return Stream(
      modality: modality, tokens: try graph.add(.add, stream.tokens, value, name: name + sum, modality: modality))
  }

  /// The bias of a layer's attention: its heads' columns of the one table, and the index over the streams at hand.
  private mutating func relativeBias(_ layer: Int, _ modalities: [Modality]) throws(GraphError) -> RelativeBias? {
    guard configuration.hasRelativeBias else { return nil }
    guard let table = parameters["relative_bias.table"] else {
      throw GraphError(.invalidReference, "the checkpoint has no parameter for this", tensor: "relative_bias.table")
    }
    let (heads, positions) = (configuration.heads, configuration.positions)
    let columns = constant(
      "layers.\(layer).relative_bias.table", .relativePositionBias, .shared,
      columns(of: floating(table.data), layer * heads..<(layer + 1) * heads))
    let (modality, range): (Modality, Range<Int>) =
      switch modalities {
      case [.vision]: (.vision, 0..<positions.visionTokens)
      case [.text]: (.text, positions.visionTokens..<positions.tokens)
      default: (.shared, 0..<positions.tokens)
      }
    let name = "relative_bias.\(modality.rawValue)_index"
    let index = constant(
      name, .relativePositionIndex, modality, .stored(positions.index(name: name, over: range)))
    return RelativeBias(table: columns, index: index)
  }

  /// A range of columns, taken before a change of size, which is done column by column.
  private func columns(of data: TensorExpression, _ range: Range<Int>) -> TensorExpression {
    switch data {
    case .cast(let source, let dtype): .cast(columns(of: source, range), dtype)
    case .resampled(let source, let resampling): .resampled(columns(of: source, range), resampling)
    default: .columns(data, range)
    }
  }

  /// Types that the ops do not take become fp32.
  func floating(_ data: TensorExpression) -> TensorExpression {
    [.f32, .f16, .bf16].contains(data.dtype) ? data : .cast(data, .f32)
  }
}

/// The ends that heads share.
extension VLMoGraphBuilder {
  /// The norm at the encoder's end.
  mutating func finalNorm(_ stream: Stream, _ route: Route) throws(GraphError) -> ValueID {
    let name = "\(route.prefix)\(stream.modality.rawValue).final_norm"
    return try norm(stream.tokens, "final_norm", .finalNorm, stream.modality, as: name)
  }

  /// The first token behind the final norm: [N, T, width] → [N, width].
  mutating func firstToken(_ stream: Stream, _ route: Route) throws(GraphError) -> ValueID {
    let name = "\(route.prefix)\(stream.modality.rawValue).first"
    let token = try graph.add(.selectToken(0), stream.tokens, name: name, modality: stream.modality)
    return try norm(token, "final_norm", .finalNorm, stream.modality, as: name + "_norm")
  }

  /// tanh of a linear layer on the text's first token.
  mutating func pool(_ text: Stream, _ route: Route) throws(GraphError) -> ValueID {
    let token = try firstToken(text, route)
    let dense = try linear(token, "pooler.dense", .headHidden, .shared, as: route.prefix + "pooler.dense")
    return try graph.add(.tanh, dense, name: route.prefix + "pooled", modality: .shared)
  }

  /// A LayerNorm of a head, whose ε is not the encoder's.
  mutating func headNorm(_ value: ValueID, _ name: String, epsilon: Float) throws(GraphError) -> ValueID {
    let op = Op.layerNorm(
      weight: try constant(name + ".weight"), bias: try constant(name + ".bias"), epsilon: epsilon)
    return try graph.add(op, value, name: name, role: .headNorm, modality: .shared)
  }
}
