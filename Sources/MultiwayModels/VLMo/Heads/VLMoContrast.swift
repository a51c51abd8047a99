import MultiwayCore
import MultiwayGraph

/// Retrieval as fine-tuned: image and text go through the encoder apart, each with its own experts in every layer, and the first token
/// of each becomes an embedding of length 1. Images and texts may differ in number. The logit scale serves training only.
struct VLMoRetrievalHead: VLMoHead {
  let task = "retrieval"
  let title = "retrieval"
  let needsText = false
  let needsPooler = false

  static func recognize(_ sizes: SizeFinder, _ configuration: VLMoConfiguration) -> VLMoRetrievalHead? {
    sizes.has(VLMoContrast.own.weight(of: .vision)) ? VLMoRetrievalHead() : nil
  }

  func declarations(_ configuration: VLMoConfiguration) -> [ParameterDeclaration] {
    VLMoContrast.own.declarations(configuration)
  }

  func build(_ builder: inout VLMoGraphBuilder) throws(GraphError) {
    try builder.contrast(try builder.embedImage(), padding: nil, [.own])
    guard builder.hasText else { return }
    let (text, padding) = try builder.embedText(batch: "texts")
    try builder.contrast(text, padding: padding, [.own])
  }
}

/// The two pairs of embeddings that contrastive pretraining makes of an image alone and a text alone.
enum VLMoContrast: String, CaseIterable, Sendable {
  /// Each modality with its own experts in every layer.
  case own = ""
  /// The upper layers with the experts of both together.
  case joint = "vl_"

  private static let words: [Modality: String] = [.vision: "image", .text: "text"]

  private func layer(of modality: Modality) -> String {
    "itc_\(rawValue)\(VLMoContrast.words[modality] ?? modality.rawValue)_proj.fc"
  }

  func weight(of modality: Modality) -> String { layer(of: modality) + ".weight" }

  func declarations(_ configuration: VLMoConfiguration) -> [ParameterDeclaration] {
    let shape: Shape = [configuration.width, configuration.width]
    return [
      ParameterDeclaration(weight(of: .text), shape, .head, .text, .group("text")),
      ParameterDeclaration(weight(of: .vision), shape, .head, .vision),
      ParameterDeclaration("logit_\(rawValue)scale", [], .trainingScalar, .shared, .optional),
    ]
  }

  /// The embedding of a stream that has left the encoder, as an output: `image_embedding`, `text_vl_embedding`.
  func build(
    _ stream: VLMoGraphBuilder.Stream, _ route: VLMoGraphBuilder.Route, _ builder: inout VLMoGraphBuilder
  ) throws(GraphError) {
    let modality = stream.modality
    let token = try builder.firstToken(stream, route)
    let projected = try builder.linear(token, layer(of: modality), .head, modality)
    let name = "\(VLMoContrast.words[modality] ?? modality.rawValue)_\(rawValue)embedding"
    builder.output(name, try builder.graph.add(.normalizeL2, projected, name: name, modality: modality))
  }
}

extension VLMoGraphBuilder {
  /// One modality through the encoder, to its embeddings. Both pairs of embeddings share the layers below the joint experts.
  mutating func contrast(
    _ stream: Stream, padding: ValueID?, _ contrasts: [VLMoContrast]
  ) throws(GraphError) {
    let start = configuration.jointStart
    let own = Route(prefix: "alone.", isJoint: false)
    let below = try encode([stream], padding: padding, own, layers: 0..<start)
    for contrast in contrasts {
      let route = contrast == .own ? own : Route(prefix: "alone_joint.", isJoint: true)
      let encoded = try encode(below, padding: padding, route, layers: start..<configuration.depth)
      try contrast.build(encoded[0], route, &self)
    }
  }
}
