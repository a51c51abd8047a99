import MultiwayCore
import MultiwayGraph

/// The end of a vision transformer for one task.
protocol VisionHead: Sendable {
  /// The task's name in the artifact.
  var task: String { get }
  /// The task for people.
  var title: String { get }
  /// Extra hyper-parameters.
  var hyperparameters: [(name: String, value: HyperparameterValue)] { get }
  /// Finds the head from the keys, nil where they are not its own.
  static func recognize(_ sizes: SizeFinder, _ configuration: VisionConfiguration) -> Self?
  /// The parameters of the head.
  func declarations(_ configuration: VisionConfiguration) -> [ParameterDeclaration]
  /// Adds the whole graph.
  func build(_ builder: inout VisionGraphBuilder) throws(GraphError)
}

extension VisionHead {
  var hyperparameters: [(name: String, value: HyperparameterValue)] { [] }
}

/// The heads that are known. A new one is a type and a line here.
enum VisionHeads {
  static let all: [any VisionHead.Type] = [
    VisionClassificationHead.self, MaskedImageHead.self, VisionFeaturesHead.self,
  ]

  static func recognize(_ sizes: SizeFinder, _ configuration: VisionConfiguration) -> any VisionHead {
    for head in all {
      if let head = head.recognize(sizes, configuration) { return head }
    }
    return VisionFeaturesHead()
  }
}

/// Classification: of the normed mean over the patches where there is an `fc_norm`, else of the class token behind the final norm.
struct VisionClassificationHead: VisionHead {
  var classes: Int

  let task = "classification"
  var title: String { "image classification (\(classes) classes)" }
  var hyperparameters: [(name: String, value: HyperparameterValue)] { [("class_count", .integer(classes))] }

  static func recognize(_ sizes: SizeFinder, _ configuration: VisionConfiguration) -> VisionClassificationHead? {
    guard let shape = sizes["head.weight"] else { return nil }
    return VisionClassificationHead(classes: shape[0])
  }

  func declarations(_ configuration: VisionConfiguration) -> [ParameterDeclaration] {
    (configuration.hasPooledNorm ? ParameterDeclaration.norm("fc_norm", configuration.width, .headNorm, .shared) : [])
      + ParameterDeclaration.linear("head", classes, configuration.width, .head)
  }

  func build(_ builder: inout VisionGraphBuilder) throws(GraphError) {
    let image = try builder.embedImage()
    let encoded = try builder.encode(image).last ?? image
    let tokens = try builder.finalNorm(encoded)
    var pooled: ValueID
    if builder.configuration.hasPooledNorm {
      pooled = try builder.graph.add(.meanTokens(first: 1), tokens, name: "pooled", modality: .shared)
      pooled = try builder.norm(pooled, "fc_norm", .headNorm, .shared, as: "pooled_norm")
    } else {
      pooled = try builder.graph.add(.selectToken(0), tokens, name: "pooled", modality: .shared)
    }
    builder.output("logits", try builder.linear(pooled, "head", .head, .shared, as: "logits"))
  }
}

/// Masked image modeling: logits over the visual codebook for every patch. Nothing is masked in inference.
struct MaskedImageHead: VisionHead {
  var codes: Int

  let task = "masked_image_modeling"
  var title: String { "masked image modeling (\(codes) codes)" }
  var hyperparameters: [(name: String, value: HyperparameterValue)] { [("code_count", .integer(codes))] }

  static func recognize(_ sizes: SizeFinder, _ configuration: VisionConfiguration) -> MaskedImageHead? {
    guard let shape = sizes["lm_head.weight"] else { return nil }
    return MaskedImageHead(codes: shape[0])
  }

  func declarations(_ configuration: VisionConfiguration) -> [ParameterDeclaration] {
    ParameterDeclaration.linear("lm_head", codes, configuration.width, .head)
  }

  func build(_ builder: inout VisionGraphBuilder) throws(GraphError) {
    let image = try builder.embedImage()
    let encoded = try builder.encode(image).last ?? image
    let tokens = try builder.finalNorm(encoded)
    let patches = try builder.graph.add(.dropTokens(first: 1), tokens, name: "patches", modality: .vision)
    builder.output("mim_logits", try builder.linear(patches, "lm_head", .head, .shared, as: "mim_logits"))
  }
}

/// No head: the encoder's tokens, the class token first. Where the file brings what pools them, there is a second output: the normed
/// mean over the patches (BEiT), or the class token through a layer and tanh (ViT in transformers).
struct VisionFeaturesHead: VisionHead {
  let task = "features"
  let title = "features"

  static func recognize(_ sizes: SizeFinder, _ configuration: VisionConfiguration) -> VisionFeaturesHead? {
    VisionFeaturesHead()
  }

  func declarations(_ configuration: VisionConfiguration) -> [ParameterDeclaration] {
    let width = configuration.width
    let pooler = ParameterDeclaration.linear("pooler", width, width, .headHidden).map { declaration in
      var optional = declaration
      optional.presence = .group("pooler")
      return optional
    }
    return (configuration.hasPooledNorm ? ParameterDeclaration.norm("fc_norm", width, .headNorm, .shared) : []) + pooler
  }

  func build(_ builder: inout VisionGraphBuilder) throws(GraphError) {
    let image = try builder.embedImage()
    let encoded = try builder.encode(image).last ?? image
    let tokens = try builder.finalNorm(encoded)
    builder.output("features", tokens)
    if builder.configuration.hasPooledNorm {
      let mean = try builder.graph.add(.meanTokens(first: 1), tokens, name: "mean", modality: .shared)
      builder.output("pooled", try builder.norm(mean, "fc_norm", .headNorm, .shared, as: "pooled"))
    } else if builder.parameters["pooler.weight"] != nil {
      let token = try builder.graph.add(.selectToken(0), tokens, name: "class", modality: .shared)
      let dense = try builder.linear(token, "pooler", .headHidden, .shared, as: "pooler")
      builder.output("pooled", try builder.graph.add(.tanh, dense, name: "pooled", modality: .shared))
    }
  }
}
