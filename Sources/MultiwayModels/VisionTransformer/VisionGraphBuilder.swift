import MultiwayCore
import MultiwayGraph

/// Builds the graph of a vision transformer: embeddings and encoder here, the end in a head.
struct VisionGraphBuilder: ModelGraphBuilding {
  let configuration: VisionConfiguration
  let parameters: BoundParameters
  var graph = Graph()
  var constants: [String: ConstantID] = [:]

  init(_ configuration: VisionConfiguration, _ parameters: BoundParameters) {
    self.configuration = configuration
    self.parameters = parameters
  }

  var epsilon: Float { configuration.epsilon }

  /// image [N, C, H, W] → class token and patches, with absolute positions where the model has them.
  mutating func embedImage() throws(GraphError) -> ValueID {
    let width = configuration.width
    var patches = try embedPatches(
      side: configuration.imageSize, channels: configuration.channels, patchSize: configuration.patchSize, width: width)
    if configuration.hasPositions, configuration.positionsSkipClass {
      patches = try addPositions(patches, name: "vision.placed")
    }
    let token = try constant("vision.class_token", reshaped: [width])
    let isLast = !configuration.hasPositions || configuration.positionsSkipClass
    let tokens = try graph.add(
      .prependToken(token), patches, name: isLast ? "vision.embedding" : "vision.tokens", modality: .vision)
    return isLast ? tokens : try addPositions(tokens, name: "vision.embedding")
  }

  private mutating func addPositions(_ tokens: ValueID, name: String) throws(GraphError) -> ValueID {
    let op = Op.addPositions(table: try constant("vision.positions"), firstRow: 0)
    return try graph.add(op, tokens, name: name, role: .positions, modality: .vision)
  }

  /// All layers.
  /// - Returns: the tokens after each layer.
  mutating func encode(_ tokens: ValueID) throws(GraphError) -> [ValueID] {
    var outputs: [ValueID] = []
    for layer in 0..<configuration.depth { outputs.append(try encode(outputs.last ?? tokens, layer: layer)) }
    return outputs
  }

  private mutating func encode(_ tokens: ValueID, layer: Int) throws(GraphError) -> ValueID {
    let name = "layers.\(layer).vision."
    let normed = try norm(tokens, name + "attention_norm", .attentionNorm, .vision)
    let query = try linear(normed, name + "query", .attentionQuery, .vision)
    let factor = 1 / Float(configuration.headSize).squareRoot()
    let scaled = try graph.add(.scale(by: factor), query, name: name + "query_scaled", modality: .vision)
    let key = try linear(normed, name + "key", .attentionKey, .vision)
    let value = try linear(normed, name + "value", .attentionValue, .vision)
    let attention = Attention(heads: configuration.heads, bias: relativeBias(layer))
    let attended = try graph.add(
      .attention(attention), [scaled, key, value], names: [name + "attention"], modality: .vision)[0]
    let out = try linear(attended, name + "attention_out", .attentionOut, .vision)
    let middle = try addScaled(out, name + "attention_scale", to: tokens, as: name + "attention_residual")
    let hiddenNormed = try norm(middle, name + "feed_forward_norm", .feedForwardNorm, .vision)
    let hidden = try linear(hiddenNormed, name + "feed_forward_in", .feedForwardIn, .vision)
    let activated = try graph.add(.gelu, hidden, name: name + "feed_forward_activation", modality: .vision)
    let projected = try linear(activated, name + "feed_forward_out", .feedForwardOut, .vision)
    return try addScaled(projected, name + "feed_forward_scale", to: middle, as: name + "output")
  }

  /// The sum with the residual stream, behind the layer scale where the model has one.
  private mutating func addScaled(
    _ value: ValueID, _ scale: String, to tokens: ValueID, as name: String
  ) throws(GraphError) -> ValueID {
    var value = value
    if configuration.hasLayerScale {
      value = try graph.add(
        .scaleChannels(try constant(scale)), value, name: scale, role: .layerScale, modality: .vision)
    }
    return try graph.add(.add, tokens, value, name: name, modality: .vision)
  }

  /// The bias of a layer's attention: its own table, the one that all layers share, or the sum of both.
  private mutating func relativeBias(_ layer: Int) -> RelativeBias? {
    let tables = ["vision.relative_bias.table", "layers.\(layer).vision.relative_bias.table"]
      .compactMap { name in parameters[name].map { (name, $0.data) } }
    guard let (name, data) = tables.last else { return nil }
    let positions = RelativePositions(grid: configuration.targetGridSize)
    let index = constant(
      "vision.relative_bias.index", .relativePositionIndex, .vision,
      .stored(positions.tensor(name: "vision.relative_bias.index", dtype: .i16)))
    let sum: TensorExpression = tables.count == 2 ? .sum(tables[0].1, data) : data
    let table = constant(name, .relativePositionBias, .vision, sum)
    return RelativeBias(table: table, index: index)
  }

  /// The norm at the encoder's end, where the model has one.
  mutating func finalNorm(_ tokens: ValueID) throws(GraphError) -> ValueID {
    guard configuration.hasFinalNorm else { return tokens }
    return try norm(tokens, "vision.final_norm", .finalNorm, .vision)
  }
}
