import MultiwayCore
import MultiwayGraph

/// A pretrained model: the encoder's tokens as features, logits of visual tokens for the patches, and of words for the text. A file
/// without text experts has no words.
struct PretrainingHead: BEiT3Head {
  var vocabulary: Int?
  var codebook: Int

  let task = "pretraining"
  let title = "pretraining"
  let needsText = false
  let finalNorm = FinalNorm.optional

  static func recognize(_ keys: BEiT3HeadKeys) -> PretrainingHead? {
    guard let codebook = keys.outputs("mim_head.weight") else { return nil }
    return PretrainingHead(vocabulary: keys.outputs("mlm_head.weight"), codebook: codebook)
  }

  func declarations(_ configuration: BEiT3Configuration) -> [ParameterDeclaration] {
    (vocabulary.map { ParameterDeclaration.linear("mlm_head", $0, configuration.width, .head) } ?? [])
      + ParameterDeclaration.linear("mim_head", codebook, configuration.width, .head)
  }

  var hyperparameters: [(name: String, value: HyperparameterValue)] { [("codebook_size", .integer(codebook))] }

  func build(_ builder: inout BEiT3GraphBuilder) throws(GraphError) {
    let (vision, text) = try builder.addFeatures()
    let patches = try builder.graph.add(.dropTokens(first: 1), vision, name: "vision.final_patches", modality: .vision)
    builder.output("mim_logits", try builder.linear(patches, "mim_head", .head, .shared, as: "mim_logits"))
    guard let text, vocabulary != nil else { return }
    builder.output("mlm_logits", try builder.linear(text, "mlm_head", .head, .shared, as: "mlm_logits"))
  }
}
