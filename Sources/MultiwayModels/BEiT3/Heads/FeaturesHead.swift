import MultiwayCore
import MultiwayGraph

/// No head: the encoder's tokens, vision first. Pretrained files bring an `mlm_head` and a `mim_head`, which features do not reach.
struct FeaturesHead: BEiT3Head {
  var vocabulary: Int?
  var codebook: Int?

  let task = "features"
  var title: String { vocabulary == nil && codebook == nil ? "features" : "features of a pretrained model" }
  let needsText = false
  let finalNorm = FinalNorm.optional

  static func recognize(_ keys: BEiT3HeadKeys) -> FeaturesHead? {
    let head = FeaturesHead(
      vocabulary: keys.outputs("mlm_head.weight"), codebook: keys.outputs("mim_head.weight"))
    // An mlm_head alone is a captioning model, whose outputs are logits, not features.
    guard keys.isEmpty || head.codebook != nil else { return nil }
    return head
  }

  func declarations(_ configuration: BEiT3Configuration) -> [ParameterDeclaration] {
    let heads = [("mlm_head", vocabulary), ("mim_head", codebook)]
    return heads.flatMap { name, outputs in
      outputs.map { ParameterDeclaration.linear(name, $0, configuration.width, .head) } ?? []
    }
  }

  func build(_ builder: inout BEiT3GraphBuilder) throws(GraphError) {
    var streams = [try builder.embedImage()]
    var padding: ValueID?
    if builder.has(.text) {
      let (text, mask) = try builder.embedText(batch: "batch")
      streams.append(text)
      padding = mask
    }
    var ends: [ValueID] = []
    for stream in try builder.encode(streams, padding: padding) { ends.append(try builder.finalNorm(stream)) }
    let features =
      ends.count == 1
      ? ends[0] : try builder.graph.add(.joinTokens, ends, names: ["features"], modality: .shared)[0]
    builder.output("features", features)
  }
}
