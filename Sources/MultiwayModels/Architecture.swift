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
  /// Binds a state dict.
  static func load(
    _ tensors: [StoredTensor], checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) -> Model
}

/// What a user can say about a model that its file does not.
public struct ModelOptions: Sendable {
  /// The number of attention heads, where no key tells it.
  public var heads: Int?

  /// Makes options.
  public init(heads: Int? = nil) { self.heads = heads }
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
  public static let all: [any Architecture.Type] = [BEiT3.self]

  /// The architecture whose keys a state dict has, nil if none.
  public static func recognize(_ tensors: [StoredTensor]) -> (any Architecture.Type)? {
    all.first { $0.recognizes(tensors) }
  }

  /// Finds the architecture of a state dict and binds it.
  public static func load(
    _ stateDict: StateDict, of checkpoint: Checkpoint, options: ModelOptions = ModelOptions()
  ) throws(ModelError) -> Model {
    guard let architecture = recognize(stateDict.tensors) else {
      let examples = stateDict.tensors.prefix(3).map(\.name).joined(separator: ", ")
      throw ModelError(
        .unknownArchitecture, "no known architecture has keys such as \(examples.isEmpty ? "none at all" : examples)",
        expected: all.map { $0.signature }.joined(separator: "; "),
        remedy: "`multiway convert IN OUT.safetensors` works for any state dict", file: checkpoint.path)
    }
    return try architecture.load(stateDict.tensors, checkpoint: checkpoint, options: options)
  }
}
