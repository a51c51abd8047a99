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
  mutating func embedImage() throws(GraphError) -> Stream {
    let patches = try embedPatches(
      side: configuration.imageSize, channels: configuration.channels, patchSize: configuration.patchSize,
      width: configuration.width)
    let token = try constant("vision.class_token", reshaped: [configuration.width])
    let tokens = try graph.add(.prependToken(token), patches, name: "vision.tokens", modality: .vision)
    return Stream(modality: .vision, tokens: try addPositions(tokens, .vision, name: "vision.embedding"))
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
  mutating func encode(_ streams: [Stream], padding: ValueID?) throws(GraphError) -> [Stream] {
    var streams = streams
    for layer in 0..<configuration.depth { streams = try encode(streams, padding: padding, layer: layer) }
    return streams
  }

  private mutating func encode(
    _ streams: [Stream], padding: ValueID?, layer: Int
  ) throws(GraphError) -> [Stream] {
    var inputs: [ValueID] = []
    for stream in streams { inputs += try queryKeyValue(stream, layer) }
    if let padding { inputs.append(padding) }
    let attended = try graph.add(
      .attention(Attention(heads: configuration.heads, isPadded: padding != nil)), inputs,
      names: streams.map { "layers.\(layer).\($0.modality.rawValue).attention" },
      modality: streams.count == 1 ? streams[0].modality : .shared)
    var results: [Stream] = []
    for (stream, value) in zip(streams, attended) {
      results.append(try finish(stream, attention: value, layer))
    }
    return results
  }

  private mutating func queryKeyValue(_ stream: Stream, _ layer: Int) throws(GraphError) -> [ValueID] {
    let (name, modality) = ("layers.\(layer).\(stream.modality.rawValue).", stream.modality)
    let normed = try norm(stream.tokens, name + "attention_norm", .attentionNorm, modality)
    let query = try linear(normed, name + "query", .attentionQuery, modality)
    let factor = 1 / Float(configuration.headSize).squareRoot()
    let scaled = try graph.add(.scale(by: factor), query, name: name + "query_scaled", modality: modality)
    let key = try linear(normed, name + "key", .attentionKey, modality)
    let value = try linear(normed, name + "value", .attentionValue, modality)
    return [scaled, key, value]
  }

  private mutating func finish(_ stream: Stream, attention: ValueID, _ layer: Int) throws(GraphError) -> Stream {
    let (name, modality) = ("layers.\(layer).\(stream.modality.rawValue).", stream.modality)
    let inner = try norm(attention, name + "attention_inner_norm", .attentionInnerNorm, modality)
    let out = try linear(inner, name + "attention_out", .attentionOut, modality)
    let middle = try graph.add(.add, stream.tokens, out, name: name + "attention_residual", modality: modality)
    let normed = try norm(middle, name + "feed_forward_norm", .feedForwardNorm, modality)
    let hidden = try linear(normed, name + "feed_forward_in", .feedForwardIn, modality)
    let activated = try graph.add(.gelu, hidden, name: name + "feed_forward_activation", modality: modality)
    let innerNormed = try norm(activated, name + "feed_forward_inner_norm", .feedForwardInnerNorm, modality)
    let projected = try linear(innerNormed, name + "feed_forward_out", .feedForwardOut, modality)
    let result = try graph.add(.add, middle, projected, name: name + "output", modality: modality)
    return Stream(modality: modality, tokens: result)
  }

  /// The norm at the encoder's end, where the checkpoint has one.
  mutating func finalNorm(_ stream: Stream) throws(GraphError) -> ValueID {
    let name = "\(stream.modality.rawValue).final_norm"
    guard parameters[name + ".weight"] != nil else { return stream.tokens }
    return try norm(stream.tokens, name, .finalNorm, stream.modality)
  }
}
