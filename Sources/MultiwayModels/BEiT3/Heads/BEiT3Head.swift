import MultiwayCore
import MultiwayGraph

/// The end of a BEiT-3 for one task: which parameters it adds, and how it makes outputs of the encoder's tokens.
protocol BEiT3Head: Sendable {
  /// The task's name in the artifact.
  var task: String { get }
  /// The task for people.
  var title: String { get }
  /// False where no text ever enters, so that a file may lack the text experts.
  var needsText: Bool { get }
  /// Whether the encoder ends in a norm.
  var finalNorm: FinalNorm { get }
  /// Finds the head from the keys outside the backbone, nil where they are not its own.
  static func recognize(_ keys: BEiT3HeadKeys) -> Self?
  /// The parameters of the head.
  func declarations(_ configuration: BEiT3Configuration) -> [ParameterDeclaration]
  /// Extra hyper-parameters.
  var hyperparameters: [(name: String, value: HyperparameterValue)] { get }
  /// Adds the whole graph.
  func build(_ builder: inout BEiT3GraphBuilder) throws(GraphError)
  /// How images are prepared for the task.
  func preprocessing(size: Int) -> ImagePreprocessing
}

/// Whether an encoder ends in a LayerNorm.
enum FinalNorm {
  case required, optional, absent
}

extension BEiT3Head {
  var hyperparameters: [(name: String, value: HyperparameterValue)] { [] }

  /// Every task but ImageNet resizes both sides and uses 0.5 for mean and deviation.
  func preprocessing(size: Int) -> ImagePreprocessing {
    ImagePreprocessing(
      size: size, mean: [0.5, 0.5, 0.5], standardDeviation: [0.5, 0.5, 0.5], cropsCentre: false)
  }
}

/// The keys of a state dict that do not belong to the backbone, with their shapes.
struct BEiT3HeadKeys {
  private let shapes: [String: Shape]

  /// What the keys of the backbone start with, behind the layout's prefix.
  private static let backbone = [
    "vision_embed.", "text_embed.", "encoder.", "blocks.", "patch_embed.", "cls_token", "pos_embed", "norm.",
  ]

  init(_ tensors: [StoredTensor], prefix: String) {
    let own = tensors.filter { tensor in
      let key = tensor.name.dropFirst(tensor.name.hasPrefix(prefix) ? prefix.count : 0)
      return !BEiT3HeadKeys.backbone.contains { key.hasPrefix($0) }
    }
    shapes = Dictionary(own.map { ($0.name, $0.shape) }, uniquingKeysWith: { first, _ in first })
  }

  var isEmpty: Bool { shapes.isEmpty }
  var names: [String] { shapes.keys.sorted() }

  func has(_ key: String) -> Bool { shapes[key] != nil }

  /// The first dimension of a key, nil if it is not there or is one that no file can fill, which an empty tensor may claim.
  func outputs(_ key: String) -> Int? { shapes[key].flatMap { $0.rank > 0 && $0[0] < 1 << 30 ? $0[0] : nil } }
}

/// The heads that are known. A new one is a file and a line here.
enum BEiT3Heads {
  static let all: [any BEiT3Head.Type] = [
    ClassificationHead.self, VisualQuestionHead.self, PairHead.self, CaptioningHead.self, RetrievalHead.self,
    PretrainingHead.self, FeaturesHead.self,
  ]

  static func recognize(
    _ tensors: [StoredTensor], _ configuration: BEiT3Configuration, file: String
  ) throws(ModelError) -> any BEiT3Head {
    let keys = BEiT3HeadKeys(tensors, prefix: configuration.prefix)
    for head in all {
      if let head = head.recognize(keys) { return head }
    }
    throw ModelError(
      .unsupported, "a task head with the keys \(keys.names.joined(separator: ", ")), which is not supported",
      expected: "image classification, visual question answering, NLVR2, captioning, retrieval, pretraining or no head",
      remedy: "`multiway convert IN OUT.safetensors` works for any state dict", file: file)
  }
}
