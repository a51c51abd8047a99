public import MultiwayArtifact
public import MultiwayCheckpoint
public import MultiwayCore
import MultiwayGGUF
import MultiwayModels

/// What the user says about an input file beyond its path.
public struct InputOptions: Sendable {
  /// Which dictionary of tensors to take, where a file holds several: `model`, `model_ema`, …; nil for the default.
  public var stateDict: String?
  /// The number of attention heads, where no key tells it.
  public var heads: Int?
  /// The side of the image in pixels, where positions shall be resized for another than the checkpoint's.
  public var imageSize: Int?
  /// After how many blocks the four feature maps of a segmentation decoder are taken; nil for what the layout's own code does.
  public var featureTaps: [Int]?

  /// Makes options.
  public init(stateDict: String? = nil, heads: Int? = nil, imageSize: Int? = nil, featureTaps: [Int]? = nil) {
    self.stateDict = stateDict
    self.heads = heads
    self.imageSize = imageSize
    self.featureTaps = featureTaps
  }

  /// What of it concerns the model.
  var model: ModelOptions { ModelOptions(heads: heads, imageSize: imageSize, featureTaps: featureTaps) }
}

/// An input of any kind, found from its bytes: a file, compressed by zstd or not, an index of shards, or a folder.
public enum ModelFile: Sendable {
  /// A checkpoint of any format.
  case checkpoint(Checkpoint)
  /// An artifact of ours.
  case artifact(Artifact)

  /// Opens a file or a folder; only headers are read.
  public static func open(_ path: String) throws -> ModelFile {
    if Folder.exists(path) { return .checkpoint(try CheckpointFormats.open(path: path)) }
    let file = try CheckpointFormats.source(path: path)
    let start = try file.bytes(in: 0..<min(4, file.byteCount))
    if GGUFContainer.recognizes(start.span) {
      let container = try GGUFContainer.read(file)
      if Artifact.recognizes(container) { return .artifact(try Artifact.read(container)) }
    }
    return recognizing(try CheckpointFormats.read(file))
  }

  /// The name of the format, for people.
  public var format: String {
    switch self {
    case .checkpoint(let checkpoint): checkpoint.format
    case .artifact(let artifact): artifact.format
    }
  }

  /// The path as it was given.
  public var path: String {
    switch self {
    case .checkpoint(let checkpoint): checkpoint.path
    case .artifact(let artifact): artifact.path
    }
  }

  /// The size on the disk in bytes.
  public var byteCount: Int {
    switch self {
    case .checkpoint(let checkpoint): checkpoint.byteCount
    case .artifact(let artifact): artifact.byteCount
    }
  }

  /// Which files it is made of, by which an output is kept from replacing one of them.
  public var identities: [FileIdentity] {
    switch self {
    case .checkpoint(let checkpoint): checkpoint.identities
    case .artifact(let artifact): artifact.files.map(\.identity)
    }
  }

  /// The key under which the file holds the state dict that was asked for, or the default one; empty where it is nothing but one.
  func stateDictName(_ name: String?) -> String {
    guard case .checkpoint(let checkpoint) = self else { return "" }
    return name ?? checkpoint.stateDicts.first?.name ?? ""
  }
}
