import MultiwayCore
import MultiwayGraph

/// The tokens that enter the encoder. Every one carries the embedding of its type, which is the same for a whole stream: it is added
/// once, into the constants that make the tokens.
extension VLMoGraphBuilder {
  /// image [N, C, H, W] → class token and patches, with the embedding of a type and, where the model has them, positions.
  /// - Parameter type: the row of the token types: 1, and 2 for the second image of NLVR2.
  mutating func embedImage(input: String = "image", type: Int = 1, prefix: String = "") throws(GraphError) -> Stream {
    let (width, size) = (configuration.width, configuration.patchSize)
    let side = Dimension.fixed(configuration.imageSize)
    let image = graph.addInput(input, ValueType(.f32, [.symbol("batch"), .fixed(configuration.channels), side, side]))
    let cut = try graph.add(.patchify(size: size), image, name: prefix + "vision.pixels", modality: .vision)
    let weight = try constant("vision.patches.weight", reshaped: [width, size * size * configuration.channels])
    let bias = try constant(typed: "vision.patches.bias", .patchEmbedding, type, prefix: prefix)
    let patches = try graph.add(
      .linear(weight: weight, bias: bias), cut, name: prefix + "vision.patches", role: .patchEmbedding,
      modality: .vision)
    let token = try constant(typed: "vision.class_token", .classToken, type, prefix: prefix)
    let isLast = !configuration.hasPositions
    var tokens = try graph.add(
      .prependToken(token), patches, name: prefix + (isLast ? "vision.embedding" : "vision.tokens"), modality: .vision)
    if configuration.hasPositions {
      let op = Op.addPositions(table: try constant("vision.positions"), firstRow: 0)
      tokens = try graph.add(op, tokens, name: prefix + "vision.embedding", role: .positions, modality: .vision)
    }
    return Stream(modality: .vision, tokens: tokens)
  }

  /// text [N, T] → BERT's embeddings: word, type and, where the model has absolute positions, position, then a LayerNorm; behind it
  /// VLMo's own type. Models with relative positions never read their text positions. Returns the stream and its padding mask.
  mutating func embedText(batch: String = "batch") throws(GraphError) -> (Stream, padding: ValueID) {
    let dimensions: [Dimension] = [.symbol(batch), .symbol("text_tokens")]
    let ids = graph.addInput("text", ValueType(.i64, dimensions))
    let padding = graph.addInput(Graph.paddingMaskName, ValueType(.u8, dimensions))
    let tokens = try graph.add(
      .embedding(table: try constant("text.embedding.weight")), ids, name: "text.tokens", role: .tokenEmbedding,
      modality: .text)
    // BERT's type comes with the table of positions, and alone as a table whose rows are all the same.
    let types = try row(0, of: "text.token_types.weight", repeated: configuration.textTokens)
    let positions = configuration.hasPositions ? parameters["text.positions.weight"]?.data : nil
    let table = constant(
      "text.placement", .positions, .text, positions.map { .sum($0, types) } ?? floating(types))
    let placed = try graph.add(
      .addPositions(table: table, firstRow: 0), tokens, name: "text.placed", role: .positions, modality: .text)
    let op = Op.layerNorm(
      weight: try constant("text.embedding_norm.weight"),
      bias: try constant(typed: "text.embedding_norm.bias", .embeddingNorm, 0, prefix: ""),
      epsilon: VLMoConfiguration.bertEpsilon)
    let embedded = try graph.add(op, placed, name: "text.embedding", role: .embeddingNorm, modality: .text)
    return (Stream(modality: .text, tokens: embedded), padding)
  }

  /// A vector [width] with the embedding of a token type added.
  private mutating func constant(
    typed name: String, _ role: Role, _ type: Int, prefix: String
  ) throws(GraphError) -> ConstantID {
    guard let parameter = parameters[name] else {
      throw GraphError(.invalidReference, "the checkpoint has no parameter for this", tensor: name)
    }
    let shape: Shape = [configuration.width]
    let type = TensorExpression.reshaped(try row(type, of: "token_types.weight", repeated: 1), shape)
    return constant(
      prefix + name + ".typed", role, parameter.declaration.modality, .sum(.reshaped(parameter.data, shape), type))
  }

  /// A row of a table, over and over: a view whose rows all lie at the same place.
  private func row(_ row: Int, of name: String, repeated count: Int) throws(GraphError) -> TensorExpression {
    guard case .stored(var tensor) = parameters[name]?.data, tensor.shape.rank == 2, row < tensor.shape[0] else {
      throw GraphError(.invalidReference, "the checkpoint has no row \(row) of this", tensor: name)
    }
    let (offset, overflow) = row.multipliedReportingOverflow(by: tensor.strides[0])
    let (start, overflow2) = tensor.elementOffset.addingReportingOverflow(offset)
    guard !overflow, !overflow2 else { throw GraphError(.invalidReference, "a row out of reach", tensor: name) }
    tensor.elementOffset = start
    tensor.shape = [count, tensor.shape[1]]
    tensor.strides = [0, tensor.strides[1]]
    return .stored(tensor)
  }
}
