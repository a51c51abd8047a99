import MultiwayCore
import MultiwayGraph

/// The head of masked language modeling: dense, GELU, LayerNorm, and a decoder with a bias beside it.
struct VLMoLanguageHead: Sendable {
  var vocabulary: Int

  static func find(_ sizes: SizeFinder) -> VLMoLanguageHead? {
    sizes["mlm_score.decoder.weight"].map { VLMoLanguageHead(vocabulary: $0[0]) }
  }

  func declarations(_ configuration: VLMoConfiguration) -> [ParameterDeclaration] {
    let width = configuration.width
    return [ParameterDeclaration("mlm_score.bias", [vocabulary], .head, .shared)]
      + ParameterDeclaration.linear("mlm_score.transform.dense", width, width, .headHidden)
      + ParameterDeclaration.norm("mlm_score.transform.LayerNorm", width, .headNorm, .shared)
      + [ParameterDeclaration("mlm_score.decoder.weight", [vocabulary, width], .head, .shared)]
  }

  /// Text tokens [N, T, width] behind the final norm → `mlm_logits` [N, T, vocabulary].
  func build(_ tokens: ValueID, _ builder: inout VLMoGraphBuilder) throws(GraphError) {
    let dense = try builder.linear(tokens, "mlm_score.transform.dense", .headHidden, .text)
    let activated = try builder.graph.add(.gelu, dense, name: "mlm_score.transform.activation", modality: .text)
    let normed = try builder.headNorm(
      activated, "mlm_score.transform.LayerNorm", epsilon: VLMoConfiguration.bertEpsilon)
    let op = Op.linear(
      weight: try builder.constant("mlm_score.decoder.weight"), bias: try builder.constant("mlm_score.bias"))
    builder.output("mlm_logits", try builder.graph.add(op, normed, name: "mlm_logits", role: .head, modality: .text))
  }
}

/// Language pretraining, the second stage: words for every text token, from text alone. Such a file has no joint experts.
struct VLMoTextPretrainingHead: VLMoHead {
  var language: VLMoLanguageHead

  let task = "text_pretraining"
  let title = "masked language modeling on text alone"
  let needsText = true
  let needsPooler = false
  let readsImages = false

  static func recognize(_ sizes: SizeFinder, _ configuration: VLMoConfiguration) -> VLMoTextPretrainingHead? {
    guard configuration.jointStart == configuration.depth, !VLMoPretrainingHead.hasMore(sizes) else { return nil }
    return VLMoLanguageHead.find(sizes).map { VLMoTextPretrainingHead(language: $0) }
  }

  func declarations(_ configuration: VLMoConfiguration) -> [ParameterDeclaration] {
    language.declarations(configuration)
  }

  func build(_ builder: inout VLMoGraphBuilder) throws(GraphError) {
    let route = VLMoGraphBuilder.Route(isJoint: false)
    let (text, padding) = try builder.embedText()
    let encoded = try builder.encode([text], padding: padding, route)[0]
    try language.build(try builder.finalNorm(encoded, route), &builder)
  }
}

/// Vision-language pretraining: of an image with a text, words for every text token and whether the two match; of each alone, two pairs
/// of embeddings. A file with some of these heads has their outputs.
struct VLMoPretrainingHead: VLMoHead {
  var language: VLMoLanguageHead?
  var hasMatching: Bool
  var contrasts: [VLMoContrast]

  let task = "pretraining"
  let title = "pretraining"
  let needsText = false
  var needsPooler: Bool { hasMatching }

  /// All heads at their smallest: what `keyTemplates` lists.
  static let whole = VLMoPretrainingHead(
    language: VLMoLanguageHead(vocabulary: 1), hasMatching: true, contrasts: VLMoContrast.allCases)

  private static let matching = "itm_score.fc"

  /// True where there is a head that only this task has, beside that of language.
  static func hasMore(_ sizes: SizeFinder) -> Bool {
    sizes.has(matching + ".weight") || sizes.has(VLMoContrast.joint.weight(of: .vision))
  }

  static func recognize(_ sizes: SizeFinder, _ configuration: VLMoConfiguration) -> VLMoPretrainingHead? {
    let language = VLMoLanguageHead.find(sizes)
    guard language != nil || hasMore(sizes) else { return nil }
    return VLMoPretrainingHead(
      language: language, hasMatching: sizes.has(matching + ".weight"),
      contrasts: VLMoContrast.allCases.filter { sizes.has($0.weight(of: .vision)) })
  }

  func declarations(_ configuration: VLMoConfiguration) -> [ParameterDeclaration] {
    (language?.declarations(configuration) ?? [])
      + (hasMatching ? ParameterDeclaration.linear(VLMoPretrainingHead.matching, 2, configuration.width, .head) : [])
      + contrasts.flatMap { $0.declarations(configuration) }
  }

  func build(_ builder: inout VLMoGraphBuilder) throws(GraphError) {
    let image = try builder.embedImage()
    if builder.hasText {
      let (text, padding) = try builder.embedText()
      try buildPair(image, text, padding, &builder)
      try builder.contrast(text, padding: padding, contrasts)
    }
    try builder.contrast(image, padding: nil, contrasts)
  }

  private func buildPair(
    _ image: VLMoGraphBuilder.Stream, _ text: VLMoGraphBuilder.Stream, _ padding: ValueID,
    _ builder: inout VLMoGraphBuilder
  ) throws(GraphError) {
    guard language != nil || hasMatching else { return }
    let route = VLMoGraphBuilder.Route(isJoint: true)
    let encoded = try builder.encodePair(image, text, padding: padding, route)
    if let language { try language.build(try builder.finalNorm(encoded.text, route), &builder) }
    if hasMatching {
      let pooled = try builder.pool(encoded.text, route)
      builder.output(
        "itm_logits",
        try builder.linear(pooled, VLMoPretrainingHead.matching, .head, .shared, as: "itm_logits"))
    }
  }
}
