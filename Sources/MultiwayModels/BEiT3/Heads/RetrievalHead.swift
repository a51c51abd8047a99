import MultiwayCore
import MultiwayGraph

/// Retrieval: image and text go through the encoder apart, and the first token of each becomes an embedding of length 1. Images and
/// texts may differ in number. Similarity is the dot product; the logit scale serves training only.
struct RetrievalHead: BEiT3Head {
  var embedding: Int

  let task = "retrieval"
  let title = "retrieval"
  let needsText = true
  let finalNorm = FinalNorm.required

  static func recognize(_ keys: BEiT3HeadKeys) -> RetrievalHead? {
    guard keys.has("language_head.weight"), let embedding = keys.outputs("vision_head.weight") else { return nil }
    return RetrievalHead(embedding: embedding)
  }

  func declarations(_ configuration: BEiT3Configuration) -> [ParameterDeclaration] {
    [
      ParameterDeclaration("language_head.weight", [embedding, configuration.width], .head, .text),
      ParameterDeclaration("vision_head.weight", [embedding, configuration.width], .head, .vision),
      ParameterDeclaration("logit_scale", [], .trainingScalar, .shared, .optional),
    ]
  }

  var hyperparameters: [(name: String, value: HyperparameterValue)] { [("embedding_length_out", .integer(embedding))] }

  func build(_ builder: inout BEiT3GraphBuilder) throws(GraphError) {
    let image = try builder.embedImage()
    try embed(image, padding: nil, head: "vision_head", output: "image_embedding", &builder)
    let (text, padding) = try builder.embedText(batch: "texts")
    try embed(text, padding: padding, head: "language_head", output: "text_embedding", &builder)
  }

  private func embed(
    _ stream: BEiT3GraphBuilder.Stream, padding: ValueID?, head: String, output: String,
    _ builder: inout BEiT3GraphBuilder
  ) throws(GraphError) {
    let encoded = try builder.encode([stream], padding: padding)[0]
    let normed = try builder.finalNorm(encoded)
    let modality = stream.modality
    let token = try builder.graph.add(.selectToken(0), normed, name: "\(modality.rawValue).pooled", modality: modality)
    let projected = try builder.linear(token, head, .head, modality)
    builder.output(output, try builder.graph.add(.normalizeL2, projected, name: output, modality: modality))
  }
}
