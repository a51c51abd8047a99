import Foundation
public import MultiwayCheckpoint
public import MultiwayCore
public import MultiwayGraph
public import MultiwayModels

/// The committed files in Tests/Fixtures, found beside this source.
public enum Fixtures {
  /// The root of the package.
  public static let package = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

  /// The models of `tiny` whose graph is known, with the names of their goldens: each has `NAME.pth`, `NAME_inputs` and outputs.
  public static let models = [
    "tiny/classification", "tiny/features", "tiny/heads/vqa", "tiny/heads/nlvr2", "tiny/heads/captioning",
    "tiny/heads/retrieval", "tiny/heads/pretraining",
  ]

  /// The path of a fixture.
  public static func path(_ name: String) -> String { package + "/Tests/Fixtures/" + name }

  /// All tensors of a safetensors file, as values.
  public static func values(_ name: String) throws -> [String: TensorValue] {
    let tensors = try CheckpointFormats.open(path: path(name)).stateDict().tensors
    return Dictionary(uniqueKeysWithValues: try tensors.map { ($0.name, try TensorValue($0)) })
  }

  /// The inputs of one of `models`.
  public static func inputs(_ model: String) throws -> [String: TensorValue] {
    try values(model + "_inputs.safetensors")
  }

  /// PyTorch's values for one of `models`: the outputs, and where there is a `_values` file everything in between.
  public static func goldens(_ model: String) throws -> [String: TensorValue] {
    let all = model + "_values.safetensors"
    return try values(FileManager.default.fileExists(atPath: path(all)) ? all : model + "_outputs.safetensors")
  }

  /// A checkpoint.
  public static func checkpoint(_ name: String) throws -> Checkpoint {
    try CheckpointFormats.open(path: path(name))
  }

  /// The model of a checkpoint; the name is without `.pth`.
  public static func model(_ name: String, stateDict: String? = nil, heads: Int? = nil) throws -> Model {
    let checkpoint = try checkpoint(name + ".pth")
    return try Architectures.load(
      try checkpoint.stateDict(named: stateDict), of: checkpoint, options: ModelOptions(heads: heads))
  }

  /// The graph of a checkpoint; the name is without `.pth`.
  public static func graph(_ name: String) throws -> Graph { try model(name).graph }

  /// The digits model's test set.
  public static func digits(_ examples: Range<Int> = 0..<360) throws -> (
    image: TensorValue, labels: [Int], logits: TensorValue
  ) {
    let values = try values("digits_test.safetensors")
    guard let image = values["image"], let labels = values["labels"]?.integers, let logits = values["logits"] else {
      throw CocoaError(.fileReadCorruptFile)
    }
    return (image.rows(examples), Array(labels[examples]), logits.rows(examples))
  }
}

/// A folder of its own that goes away with the last reference.
public final class TemporaryFolder: Sendable {
  private let url: URL

  /// Makes the folder.
  public init() throws {
    url = FileManager.default.temporaryDirectory.appendingPathComponent("multiway-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  /// The folder itself.
  public var path: String { url.path }

  /// The path of a file in it.
  public func path(_ name: String) -> String { url.appendingPathComponent(name).path }

  /// The bytes of a file in it.
  public func bytes(_ name: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: url.appendingPathComponent(name)))
  }

  /// Writes a file in it and gives its path.
  @discardableResult
  public func write(_ bytes: [UInt8], to name: String) throws -> String {
    try Data(bytes).write(to: url.appendingPathComponent(name))
    return path(name)
  }

  /// The names of all files in it, or in a folder of it, hidden ones too.
  public func names(in name: String = "") throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: url.appendingPathComponent(name).path).sorted()
  }
}
