import MultiwayCore
import MultiwayGraph

/// Builds the graph of a BEiT-3: embeddings and encoder here, the end in a head.
struct BEiT3GraphBuilder: ModelGraphBuilding {
  let configuration: BEiT3Configuration
  let parameters: BoundParameters
  var graph = Graph()
  var constants: [String: ConstantID] = [:]

  /// A stream of tokens on its way through the encoder.
  struct Stream {
    var modality: Modality
    var tokens: ValueID
    /// What the names of values begin with, where the encoder runs more than once.
    var prefix = ""

    /// Where the constants of a layer are.
    func layer(_ number: Int) -> String { "layers.\(number).\(modality.rawValue)." }
  }

  init(_ configuration: BEiT3Configuration, _ parameters: BoundParameters) {
    self.configuration = configuration
    self.parameters = parameters
  }

  var epsilon: Float { configuration.epsilon }

  /// True where the checkpoint brings the experts of a modality.
  func has(_ modality: Modality) -> Bool {
    parameters["layers.0.\(modality.rawValue).query.weight"] != nil
  }

  /// image [N, C, H, W] → patches, class token first, plus positions.
  mutating func embedImage(input: String = "image", prefix: String = "") throws(GraphError) -> Stream {
    let patches = try embedPatches(
      side: configuration.imageSize, channels: configuration.channels, patchSize: configuration.patchSize,
      width: configuration.width, input: input, prefix: prefix)
    let token = try constant("vision.class_token", reshaped: [configuration.width])
    let tokens = try graph.add(.prependToken(token), patches, name: prefix + "vision.tokens", modality: .vision)
    let placed = try addPositions(tokens, .vision, name: prefix + "vision.embedding")
    return Stream(modality: .vision, tokens: placed, prefix: prefix)
  }

  /// text [N, T] → embeddings plus positions, padded tokens zero. Returns the stream and its padding mask.
  mutating func embedText(batch: String) throws(GraphError) -> (Stream, padding: ValueID) {
    let dimensions: [Dimension] = [.symbol(batch), .symbol("text_tokens")]
    let ids = graph.addInput("text", ValueType(.i64, dimensions))
    let padding = graph.addInput("padding_mask", ValueType(.u8, dimensions))
    let table = try constant("text.embedding.weight")
    let tokens = try graph.add(
      .embedding(table: table), ids, name: "text.tokens", role: .tokenEmbedding, modality: .text)
    let placed = try addPositions(tokens, .text, name: "text.placed")
    let embedded = try graph.add(.zeroPadding, placed, padding, name: "text.embedding", modality: .text)
    return (Stream(modality: .text, tokens: embedded), padding)
  }

  private mutating func addPositions(
    _ tokens: ValueID, _ modality: Modality, name: String
  ) throws(GraphError) -> ValueID {
    let table = try constant("\(modality.rawValue).positions")
    let op = Op.addPositions(table: table, firstRow: 0)
    return try graph.add(op, tokens, name: name, role: .positions, modality: modality)
  }

  /// All layers. The padding mask belongs to the last stream.
  mutating func encode(
    _ streams: [Stream], padding: ValueID?, mask: AttentionMask = .none
  ) throws(GraphError) -> [Stream] {
    var streams = streams
    let attention = Attention(heads: configuration.heads, isPadded: padding != nil, mask: mask)
    for layer in 0..<configuration.depth { streams = try encode(streams, attention, padding: padding, layer: layer) }
    return streams
  }

  private mutating func encode(
    _ streams: [Stream], _ attention: Attention, padding: ValueID?, layer: Int
  ) throws(GraphError) -> [Stream] {
    var inputs: [ValueID] = []
    for stream in streams { inputs += try queryKeyValue(stream, layer) }
    if let padding { inputs.append(padding) }
    let attended = try graph.add(
      .attention(attention), inputs, names: streams.map { $0.prefix + $0.layer(layer) + "attention" },
      modality: streams.count == 1 ? streams[0].modality : .shared)
    var results: [Stream] = []
    for (stream, value) in zip(streams, attended) {
      results.append(try finish(stream, attention: value, layer))
    }
    return results
  }

  private mutating func queryKeyValue(_ stream: Stream, _ layer: Int) throws(GraphError) -> [ValueID] {
    let normed = try norm(stream.tokens, "attention_norm", .attentionNorm, stream, layer)
    let query = try linear(normed, "query", .attentionQuery, stream, layer)
    let factor = 1 / Float(configuration.headSize).squareRoot()
    let scaled = try graph.add(
      .scale(by: factor), query, name: stream.prefix + stream.layer(layer) + "query_scaled", modality: stream.modality)
    let key = try linear(normed, "key", .attentionKey, stream, layer)
    let value = try linear(normed, "value", .attentionValue, stream, layer)
    return [scaled, key, value]
  }

  private mutating func finish(_ stream: Stream, attention: ValueID, _ layer: Int) throws(GraphError) -> Stream {
    let (name, modality) = (stream.prefix + stream.layer(layer), stream.modality)
    let inner = try norm(attention, "attention_inner_norm", .attentionInnerNorm, stream, layer)
    let out = try linear(inner, "attention_out", .attentionOut, stream, layer)
    let middle = try graph.add(.add, stream.tokens, out, name: name + "attention_residual", modality: modality)
    let normed = try norm(middle, "feed_forward_norm", .feedForwardNorm, stream, layer)
    let hidden = try linear(normed, "feed_forward_in", .feedForwardIn, stream, layer)
    let activated = try graph.add(.gelu, hidden, name: name + "feed_forward_activation", modality: modality)
    let innerNormed = try norm(activated, "feed_forward_inner_norm", .feedForwardInnerNorm, stream, layer)
    let projected = try linear(innerNormed, "feed_forward_out", .feedForwardOut, stream, layer)
    var result = stream
    result.tokens = try graph.add(.add, middle, projected, name: name + "output", modality: modality)
    return result
  }

  private mutating func linear(
    _ input: ValueID, _ name: String, _ role: Role, _ stream: Stream, _ layer: Int
  ) throws(GraphError) -> ValueID {
    let name = stream.layer(layer) + name
    return try linear(input, name, role, stream.modality, as: stream.prefix + name)
  }

  private mutating func norm(
    _ input: ValueID, _ name: String, _ role: Role, _ stream: Stream, _ layer: Int
  ) throws(GraphError) -> ValueID {
    let name = stream.layer(layer) + name
    return try norm(input, name, role, stream.modality, as: stream.prefix + name)
  }

  /// The norm at the encoder's end, where the checkpoint has one.
  mutating func finalNorm(_ stream: Stream) throws(GraphError) -> ValueID {
    let name = "\(stream.modality.rawValue).final_norm"
    guard parameters[name + ".weight"] != nil else { return stream.tokens }
    return try norm(stream.tokens, name, .finalNorm, stream.modality, as: stream.prefix + name)
  }
}
