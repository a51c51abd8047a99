import MultiwayCore
import MultiwayGraph

/// The end of a VLMo for one task.
protocol VLMoHead: Sendable {
  /// The task's name in the artifact.
  var task: String { get }
  /// The task for people.
  var title: String { get }
  /// False where a file may lack all that serves text: `prune --keep vision` made it.
  var needsText: Bool { get }
  /// True where the task reads the pooled first token.
  var needsPooler: Bool { get }
  /// False where no image enters.
  var readsImages: Bool { get }
  /// Finds the head from the keys, nil where they are not its own.
  static func recognize(_ sizes: SizeFinder, _ configuration: VLMoConfiguration) -> Self?
  /// The parameters of the head.
  func declarations(_ configuration: VLMoConfiguration) -> [ParameterDeclaration]
  /// Extra hyper-parameters.
  var hyperparameters: [(name: String, value: HyperparameterValue)] { get }
  /// Adds the whole graph.
  func build(_ builder: inout VLMoGraphBuilder) throws(GraphError)
}

extension VLMoHead {
  var readsImages: Bool { true }
  var hyperparameters: [(name: String, value: HyperparameterValue)] { [] }
}

/// The heads that are known. A new one is a file and a line here.
enum VLMoHeads {
  static let all: [any VLMoHead.Type] = [
    VLMoQuestionHead.self, VLMoReasoningHead.self, VLMoTextPretrainingHead.self, VLMoPretrainingHead.self,
    VLMoRetrievalHead.self,
  ]

  /// The head of a state dict; without any key of a head, features.
  static func recognize(
    _ tensors: [StoredTensor], _ configuration: VLMoConfiguration, file: String
  ) throws(ModelError) -> any VLMoHead {
    let sizes = SizeFinder(tensors, keyMap: configuration.keyMap, file: file)
    for head in all {
      if let head = head.recognize(sizes, configuration) { return head }
    }
    let keys = headKeys(tensors, configuration)
    guard keys.isEmpty else {
      throw ModelError(
        .unsupported, "a task head with the keys \(keys.joined(separator: ", ")), which is not supported",
        expected:
          "visual question answering (vqa_classifier), NLVR2 (nlvr2_classifier), retrieval (itc_image_proj), pretraining "
          + "(mlm_score, itm_score, itc_vl_image_proj) or no head",
        remedy: "`multiway convert IN OUT.safetensors` works for any state dict", file: file)
    }
    return VLMoFeaturesHead()
  }

  /// The keys outside the backbone.
  private static func headKeys(_ tensors: [StoredTensor], _ configuration: VLMoConfiguration) -> [String] {
    let backbone = [
      "transformer.", "text_embeddings.", "token_type_embeddings.", "pooler.", "relative_position_bias_table",
    ]
    let keyMap = configuration.keyMap
    return tensors.map(\.name).filter { key in
      guard key.hasPrefix(configuration.prefix), keyMap.leftAlone(key) == nil else { return false }
      let own = key.dropFirst(configuration.prefix.count)
      return !backbone.contains { own.hasPrefix($0) }
    }
  }

  /// Every file has a pooler, whether its task reads it or not.
  static func pooler(_ configuration: VLMoConfiguration, isRequired: Bool) -> [ParameterDeclaration] {
    ParameterDeclaration.linear("pooler.dense", configuration.width, configuration.width, .headHidden).map {
      var declaration = $0
      declaration.presence = isRequired ? .required : .group("pooler")
      return declaration
    }
  }

  /// The declarations of a classifier: linear, LayerNorm, GELU, linear.
  static func classifier(_ name: String, inputs: Int, hidden: Int, outputs: Int) -> [ParameterDeclaration] {
    ParameterDeclaration.linear(name + ".0", hidden, inputs, .headHidden)
      + ParameterDeclaration.norm(name + ".1", hidden, .headNorm, .shared)
      + ParameterDeclaration.linear(name + ".3", outputs, hidden, .head)
  }
}

extension VLMoGraphBuilder {
  /// A text with an image through the whole encoder.
  mutating func encodePair(
    _ image: Stream, _ text: Stream, padding: ValueID, _ route: Route
  ) throws(GraphError) -> (vision: Stream, text: Stream) {
    let encoded = try encode([image, text], padding: padding, route)
    return (encoded[0], encoded[1])
  }

  /// What follows the first layer of a classifier, to the logits.
  mutating func classify(_ hidden: ValueID, _ name: String) throws(GraphError) {
    let normed = try headNorm(hidden, name + ".1", epsilon: VLMoConfiguration.classifierEpsilon)
    let activated = try graph.add(.gelu, normed, name: name + ".2", modality: .shared)
    output("logits", try linear(activated, name + ".3", .head, .shared, as: "logits"))
  }
}

/// No head: the encoder's tokens, text first as in the original, and the pooled first token of the text.
struct VLMoFeaturesHead: VLMoHead {
  let task = "features"
  let title = "features"
  let needsText = false
  let needsPooler = false

  static func recognize(_ sizes: SizeFinder, _ configuration: VLMoConfiguration) -> VLMoFeaturesHead? {
    VLMoFeaturesHead()
  }

  func declarations(_ configuration: VLMoConfiguration) -> [ParameterDeclaration] { [] }

  func build(_ builder: inout VLMoGraphBuilder) throws(GraphError) {
    let route = VLMoGraphBuilder.Route(isJoint: true)
    let image = try builder.embedImage()
    guard builder.hasText else {
      let encoded = try builder.encode([image], padding: nil, route)[0]
      builder.output("features", try builder.finalNorm(encoded, route))
      return
    }
    let (text, padding) = try builder.embedText()
    let encoded = try builder.encodePair(image, text, padding: padding, route)
    let ends = [try builder.finalNorm(encoded.text, route), try builder.finalNorm(encoded.vision, route)]
    let features = try builder.graph.add(.joinTokens, ends, names: ["features"], modality: .shared)[0]
    builder.output("features", features)
    if builder.parameters["pooler.dense.weight"] != nil {
      builder.output("pooled", try builder.pool(encoded.text, route))
    }
  }
}
