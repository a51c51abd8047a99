import MultiwayCore
import MultiwayGraph

/// Visual question answering: a classifier of answers on the pooled first token of the text.
struct VLMoQuestionHead: VLMoHead {
  var answers: Int

  let task = "vqa"
  var title: String { "visual question answering (\(answers) answers)" }
  let needsText = true
  let needsPooler = true
  var hyperparameters: [(name: String, value: HyperparameterValue)] { [("class_count", .integer(answers))] }

  private static let name = "vqa_classifier"

  static func recognize(_ sizes: SizeFinder, _ configuration: VLMoConfiguration) -> VLMoQuestionHead? {
    sizes[name + ".3.weight"].map { VLMoQuestionHead(answers: $0[0]) }
  }

  func declarations(_ configuration: VLMoConfiguration) -> [ParameterDeclaration] {
    let width = configuration.width
    return VLMoHeads.classifier(VLMoQuestionHead.name, inputs: width, hidden: width * 2, outputs: answers)
  }

  func build(_ builder: inout VLMoGraphBuilder) throws(GraphError) {
    let route = VLMoGraphBuilder.Route(isJoint: true)
    let image = try builder.embedImage()
    let (text, padding) = try builder.embedText()
    let encoded = try builder.encodePair(image, text, padding: padding, route)
    let pooled = try builder.pool(encoded.text, route)
    let hidden = try builder.linear(pooled, VLMoQuestionHead.name + ".0", .headHidden, .shared)
    try builder.classify(hidden, VLMoQuestionHead.name)
  }
}

/// NLVR2: is a sentence true of two images? Each goes through the encoder with the sentence, the second with a token type of its own,
/// and a classifier reads both pooled tokens.
struct VLMoReasoningHead: VLMoHead {
  var classes: Int

  let task = "nlvr2"
  let title = "visual reasoning over two images (NLVR2)"
  let needsText = true
  let needsPooler = true
  var hyperparameters: [(name: String, value: HyperparameterValue)] { [("class_count", .integer(classes))] }

  private static let name = "nlvr2_classifier"

  static func recognize(_ sizes: SizeFinder, _ configuration: VLMoConfiguration) -> VLMoReasoningHead? {
    sizes[name + ".3.weight"].map { VLMoReasoningHead(classes: $0[0]) }
  }

  func declarations(_ configuration: VLMoConfiguration) -> [ParameterDeclaration] {
    let width = configuration.width * 2
    return VLMoHeads.classifier(VLMoReasoningHead.name, inputs: width, hidden: width, outputs: classes)
  }

  func build(_ builder: inout VLMoGraphBuilder) throws(GraphError) {
    let (text, padding) = try builder.embedText()
    var pooled: [ValueID] = []
    for (input, type, prefix) in [("image", 1, ""), ("image2", 2, "second.")] {
      let route = VLMoGraphBuilder.Route(prefix: prefix, isJoint: true)
      let image = try builder.embedImage(input: input, type: type, prefix: prefix)
      let encoded = try builder.encodePair(image, text, padding: padding, route)
      pooled.append(try builder.pool(encoded.text, route))
    }
    try builder.classify(try firstLayer(pooled, &builder), VLMoReasoningHead.name)
  }

  /// A layer on two vectors side by side is the sum of a layer on each, with its half of the columns.
  private func firstLayer(_ pooled: [ValueID], _ builder: inout VLMoGraphBuilder) throws(GraphError) -> ValueID {
    let (name, width) = (VLMoReasoningHead.name + ".0", builder.configuration.width)
    guard let weight = builder.parameters[name + ".weight"]?.data else {
      throw GraphError(.invalidReference, "the checkpoint has no parameter for this", tensor: name + ".weight")
    }
    var halves: [ValueID] = []
    for (place, value) in pooled.enumerated() {
      let half = "\(name).\(place == 0 ? "first" : "second")"
      let columns = builder.constant(
        half + ".weight", .headHidden, .shared,
        .columns(builder.floating(weight), place * width..<(place + 1) * width))
      let bias = place == 0 ? try builder.constant(name + ".bias") : nil
      halves.append(
        try builder.graph.add(
          .linear(weight: columns, bias: bias), value, name: half, role: .headHidden, modality: .shared))
    }
    return try builder.graph.add(.add, halves, names: [name], modality: .shared)[0]
  }
}
