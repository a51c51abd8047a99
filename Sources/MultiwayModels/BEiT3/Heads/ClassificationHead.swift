import MultiwayCore
import MultiwayGraph

/// ImageNet classification: logits of the normed mean over the patches, the class token left out. No text ever enters, and the
/// encoder has no final norm.
struct ClassificationHead: BEiT3Head {
  var classes: Int

  let task = "classification"
  var title: String { "image classification (\(classes) classes)" }
  let needsText = false
  let finalNorm = FinalNorm.absent

  static func recognize(_ keys: BEiT3HeadKeys) -> ClassificationHead? {
    guard keys.has("fc_norm.weight"), let classes = keys.outputs("head.weight") else { return nil }
    return ClassificationHead(classes: classes)
  }

  func declarations(_ configuration: BEiT3Configuration) -> [ParameterDeclaration] {
    ParameterDeclaration.norm("fc_norm", configuration.width, .headNorm, .shared)
      + ParameterDeclaration.linear("head", classes, configuration.width, .head)
  }

  var hyperparameters: [(name: String, value: HyperparameterValue)] { [("class_count", .integer(classes))] }

  func build(_ builder: inout BEiT3GraphBuilder) throws(GraphError) {
    let image = try builder.embedImage()
    let encoded = try builder.encode([image], padding: nil)[0]
    let pooled = try builder.graph.add(.meanTokens(first: 1), encoded.tokens, name: "pooled", modality: .shared)
    let normed = try builder.norm(pooled, "fc_norm", .headNorm, .shared, as: "pooled_norm")
    builder.output("logits", try builder.linear(normed, "head", .head, .shared, as: "logits"))
  }

  func preprocessing(size: Int) -> ImagePreprocessing {
    ImagePreprocessing(
      size: size, mean: ImagePreprocessing.imageNetMean,
      standardDeviation: ImagePreprocessing.imageNetStandardDeviation, cropsCentre: true)
  }
}
