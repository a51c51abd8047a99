public import MultiwayCheckpoint
public import MultiwayCore
public import MultiwayGraph

/// A model family: it recognises state dicts by their keys, and makes of one a bound model.
public protocol Architecture: Sendable {
  /// The name that artifacts carry in `general.architecture`.
  static var name: String { get }
  /// A sentence on the keys that it looks for, for the error that lists what is supported.
  static var signature: String { get }
  /// True where the keys are those of this family, whatever else may be wrong with them.
  static func recognizes(_ tensors: [StoredTensor]) -> Bool
  /// The keys of a small model in every layout, all options on: what a file is compared with that fits nothing.
  static var keyTemplates: [(layout: String, keys: [String])] { get }
  /// What is supported, task by task.
  static var support: [TaskSupport] { get }
  /// Binds a state dict.
  static func load(
    _ tensors: [StoredTensor], checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) -> Model
}

/// What a user can say about a model that its file does not.
public struct ModelOptions: Sendable {
  /// The number of attention heads, where no key tells it.
  public var heads: Int?
  /// The side of the image in pixels, where positions shall be resized for another than the checkpoint's.
  public var imageSize: Int?
  /// After how many blocks the four feature maps of a segmentation decoder are taken; nil for what the layout's own code does.
  public var featureTaps: [Int]?

  /// Makes options.
  public init(heads: Int? = nil, imageSize: Int? = nil, featureTaps: [Int]? = nil) {
    self.heads = heads
    self.imageSize = imageSize
    self.featureTaps = featureTaps
  }
}

/// How images become tensors for a model: facts that no checkpoint holds.
public struct ImagePreprocessing: Hashable, Sendable {
  /// The side of the square image, in pixels.
  public var size: Int
  /// The mean of each channel of values in 0…1.
  public var mean: [Float]
  /// The standard deviation of each channel.
  public var standardDeviation: [Float]
  /// True where the shorter side is resized and the centre cut out; false where both sides are resized.
  public var cropsCentre: Bool
  /// The cut-out's share of the shorter side.
  public var cropFraction: Float = 1
  /// How pixels are interpolated.
  public var interpolation = "bicubic"

  /// The statistics of ImageNet.
  public static let imageNetMean: [Float] = [0.485, 0.456, 0.406]
  /// The statistics of ImageNet.
  public static let imageNetStandardDeviation: [Float] = [0.229, 0.224, 0.225]
}

/// A checkpoint understood: the architecture, its parameters, and the graph of its task.
public struct Model: Sendable {
  /// The architecture's name: `beit3`.
  public var architecture: String
  /// A line for people: `BEiT-3 base, patch 16, 224×224, image classification (1000 classes)`.
  public var summary: String
  /// The task's name: `classification`, `features`, …
  public var task: String
  /// The names and values of the hyper-parameters, for `inspect` and the artifact: `block_count` and so on.
  public var hyperparameters: [(name: String, value: HyperparameterValue)]
  /// The declared parameters with their tensors.
  public var parameters: BoundParameters
  /// The graph of the task.
  public var graph: Graph
  /// How images are prepared, nil for a model without images.
  public var preprocessing: ImagePreprocessing?
  /// What was assumed because no key tells it.
  public var assumptions: [String]
  /// The key layout of the checkpoint: `unilm`, `timm`, `huggingface`.
  public var layout: String
  /// The layouts that the parameters can be written in.
  public var layouts: [KeyMap]
  /// What was left out or undone on the way, for people.
  public var notes: [String] = []
}

/// A hyper-parameter's value.
public enum HyperparameterValue: Hashable, Sendable, CustomStringConvertible {
  /// A count or a size.
  case integer(Int)
  /// A real number.
  case real(Float)
  /// A word.
  case text(String)

  /// The value as text.
  public var description: String {
    switch self {
    case .integer(let value): String(value)
    case .real(let value): String(value)
    case .text(let value): value
    }
  }
}

/// The architectures that are known. A new one is a folder and a line here.
public enum Architectures {
  /// All of them, in the order in which they are asked.
  public static let all: [any Architecture.Type] = [
    BEiT3.self, VLMo.self, Data2VecVision.self, BEiT.self, ViT.self,
  ]

  /// The architecture whose keys a state dict has, nil if none.
  public static func recognize(_ tensors: [StoredTensor]) -> (any Architecture.Type)? {
    guard tensors.allSatisfy({ OrdinaryKeys.has($0.name) }) else { return nil }
    let tensors = ExpandedBias.collected(WrapperPrefix.strip(tensors).tensors)
    return all.first { $0.recognizes(tensors) }
  }

  /// Finds the architecture of a state dict and binds it.
  public static func load(
    _ stateDict: StateDict, of checkpoint: Checkpoint, options: ModelOptions = ModelOptions()
  ) throws(ModelError) -> Model {
    guard stateDict.tensors.allSatisfy({ OrdinaryKeys.has($0.name) }) else {
      throw ImportDoctor.unknownArchitecture(stateDict.tensors, file: checkpoint.path)
    }
    let (stripped, note) = WrapperPrefix.strip(stateDict.tensors)
    let tensors = ExpandedBias.collected(stripped)
    if let error = ImportDoctor.severalModels(tensors, file: checkpoint.path) { throw error }
    guard let architecture = recognize(tensors) else {
      throw ImportDoctor.unknownArchitecture(tensors, file: checkpoint.path)
    }
    var model = try architecture.load(tensors, checkpoint: checkpoint, options: options)
    model.notes = (note.map { [$0] } ?? []) + model.parameters.notes
    return model
  }
}
