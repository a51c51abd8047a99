import MultiwayCore
import MultiwayGraph

/// NLVR2: is a sentence true of two images? Each image goes through the encoder with the sentence; the class token and the first text
/// token of both passes, after one another, go through two layers.
///
/// The two passes share every constant. They stand one after the other in the graph, the values of the second under names that begin
/// with `second.`.
struct PairHead: BEiT3Head {
  var classes: Int

  let task = "nlvr2"
  let title = "reasoning over two images"
  let needsText = true
  let finalNorm = FinalNorm.required

  static func recognize(_ keys: BEiT3HeadKeys) -> PairHead? {
    guard keys.has("head.norm1.weight"), let classes = keys.outputs("head.dense2.weight") else { return nil }
    return PairHead(classes: classes)
  }

  func declarations(_ configuration: BEiT3Configuration) -> [ParameterDeclaration] {
    let width = configuration.width
    return ParameterDeclaration.norm("head.norm1", 4 * width, .headNorm, .shared)
      + ParameterDeclaration.linear("head.dense1", 2 * width, 4 * width, .headHidden)
      + ParameterDeclaration.norm("head.norm2", 2 * width, .headNorm, .shared)
      + ParameterDeclaration.linear("head.dense2", classes, 2 * width, .head)
  }

  var hyperparameters: [(name: String, value: HyperparameterValue)] { [("class_count", .integer(classes))] }

  func build(_ builder: inout BEiT3GraphBuilder) throws(GraphError) {
    let images = [
      try builder.embedImage(), try builder.embedImage(input: "image2", prefix: "second."),
    ]
    let (text, padding) = try builder.embedText(batch: "batch")
    var pooled: [ValueID] = []
    for image in images {
      var words = text
      words.prefix = image.prefix
      for stream in try builder.encode([image, words], padding: padding) {
        let normed = try builder.finalNorm(stream)
        pooled.append(
          try builder.graph.add(
            .selectToken(0), normed, name: "\(stream.prefix)\(stream.modality.rawValue).pooled",
            modality: stream.modality))
      }
    }
    let joined = try builder.graph.add(.joinChannels, pooled, names: ["pooled"], modality: .shared)[0]
    let normed = try builder.norm(joined, "head.norm1", .headNorm, .shared)
    let hidden = try builder.linear(normed, "head.dense1", .headHidden, .shared)
    let hiddenNormed = try builder.norm(hidden, "head.norm2", .headNorm, .shared)
    let activated = try builder.graph.add(.gelu, hiddenNormed, name: "head.activation", modality: .shared)
    builder.output("logits", try builder.linear(activated, "head.dense2", .head, .shared, as: "logits"))
  }
}
