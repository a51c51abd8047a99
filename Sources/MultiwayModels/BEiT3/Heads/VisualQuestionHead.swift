import MultiwayCore
import MultiwayGraph

/// VQAv2: logits of the answers from the class token after image and question went through the encoder together.
struct VisualQuestionHead: BEiT3Head {
  var answers: Int

  let task = "vqa"
  var title: String { "visual question answering (\(answers) answers)" }
  let needsText = true
  let finalNorm = FinalNorm.absent

  static func recognize(_ keys: BEiT3HeadKeys) -> VisualQuestionHead? {
    guard keys.has("pooler.dense.weight"), let answers = keys.outputs("head.3.weight") else { return nil }
    return VisualQuestionHead(answers: answers)
  }

  func declarations(_ configuration: BEiT3Configuration) -> [ParameterDeclaration] {
    let width = configuration.width
    return ParameterDeclaration.norm("pooler.norm", width, .headNorm, .shared)
      + ParameterDeclaration.linear("pooler.dense", width, width, .headHidden)
      + ParameterDeclaration.linear("head.0", 2 * width, width, .headHidden)
      + ParameterDeclaration.norm("head.1", 2 * width, .headNorm, .shared)
      + ParameterDeclaration.linear("head.3", answers, 2 * width, .head)
  }

  var hyperparameters: [(name: String, value: HyperparameterValue)] { [("class_count", .integer(answers))] }

  func build(_ builder: inout BEiT3GraphBuilder) throws(GraphError) {
    let image = try builder.embedImage()
    let (text, padding) = try builder.embedText(batch: "batch")
    let encoded = try builder.encode([image, text], padding: padding)[0]
    let token = try builder.graph.add(.selectToken(0), encoded.tokens, name: "pooled", modality: .shared)
    let normed = try builder.norm(token, "pooler.norm", .headNorm, .shared)
    let dense = try builder.linear(normed, "pooler.dense", .headHidden, .shared)
    let pooled = try builder.graph.add(.tanh, dense, name: "pooler", modality: .shared)
    let hidden = try builder.linear(pooled, "head.0", .headHidden, .shared)
    let hiddenNormed = try builder.norm(hidden, "head.1", .headNorm, .shared)
    let activated = try builder.graph.add(.gelu, hiddenNormed, name: "head.2", modality: .shared)
    builder.output("logits", try builder.linear(activated, "head.3", .head, .shared, as: "logits"))
  }
}
