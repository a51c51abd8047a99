import MultiwayCore
import MultiwayGraph

/// Captioning: logits over the vocabulary for every text token, each of which attends to the image and to the text up to itself. The
/// image attends to itself alone, so its keys and values are the same whatever the text.
struct CaptioningHead: BEiT3Head {
  var vocabulary: Int

  let task = "captioning"
  let title = "captioning"
  let needsText = true
  let finalNorm = FinalNorm.required

  static func recognize(_ keys: BEiT3HeadKeys) -> CaptioningHead? {
    // With a mim_head beside it this is a pretrained model.
    guard let vocabulary = keys.outputs("mlm_head.weight"), !keys.has("mim_head.weight") else { return nil }
    return CaptioningHead(vocabulary: vocabulary)
  }

  func declarations(_ configuration: BEiT3Configuration) -> [ParameterDeclaration] {
    ParameterDeclaration.linear("mlm_head", vocabulary, configuration.width, .vocabulary)
  }

  func build(_ builder: inout BEiT3GraphBuilder) throws(GraphError) {
    let image = try builder.embedImage()
    let (text, padding) = try builder.embedText(batch: "batch")
    let encoded = try builder.encode([image, text], padding: padding, mask: .caption)
    let normed = try builder.finalNorm(encoded[1])
    builder.output("logits", try builder.linear(normed, "mlm_head", .vocabulary, .shared, as: "logits"))
  }
}
