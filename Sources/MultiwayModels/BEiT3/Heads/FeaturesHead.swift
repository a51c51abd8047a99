import MultiwayCore
import MultiwayGraph

/// No head: the encoder's tokens, vision first. Where a head was taken off and its norm is left, as in timm's files, the normed mean over
/// the patches is a second output.
struct FeaturesHead: BEiT3Head {
  var hasPooledNorm = false

  let task = "features"
  let title = "features"
  let needsText = false
  let finalNorm = FinalNorm.optional

  static func recognize(_ keys: BEiT3HeadKeys) -> FeaturesHead? {
    let hasPooledNorm = keys.names == ["fc_norm.bias", "fc_norm.weight"]
    return keys.isEmpty || hasPooledNorm ? FeaturesHead(hasPooledNorm: hasPooledNorm) : nil
  }

  func declarations(_ configuration: BEiT3Configuration) -> [ParameterDeclaration] {
    hasPooledNorm ? ParameterDeclaration.norm("fc_norm", configuration.width, .headNorm, .shared) : []
  }

  func build(_ builder: inout BEiT3GraphBuilder) throws(GraphError) {
    let tokens = try builder.addFeatures().vision
    guard hasPooledNorm else { return }
    let mean = try builder.graph.add(.meanTokens(first: 1), tokens, name: "mean", modality: .shared)
    builder.output("pooled", try builder.norm(mean, "fc_norm", .headNorm, .shared, as: "pooled"))
  }
}

extension BEiT3GraphBuilder {
  /// The encoder over image and, where there are experts for it, text, with all tokens as the output `features`.
  /// - Returns: the tokens of each, normed.
  mutating func addFeatures() throws(GraphError) -> (vision: ValueID, text: ValueID?) {
    var streams = [try embedImage()]
    var padding: ValueID?
    if has(.text) {
      let (text, mask) = try embedText(batch: "batch")
      streams.append(text)
      padding = mask
    }
    var ends: [ValueID] = []
    for stream in try encode(streams, padding: padding) { ends.append(try finalNorm(stream)) }
    let features =
      ends.count == 1 ? ends[0] : try graph.add(.joinTokens, ends, names: ["features"], modality: .shared)[0]
    output("features", features)
    return (ends[0], ends.count > 1 ? ends[1] : nil)
  }
}
