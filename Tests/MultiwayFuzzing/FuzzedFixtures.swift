import Foundation
import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph

/// The good files beside which a fuzzed one stands, and places for those that must lie on a disk.
public enum FuzzedFixtures {
  /// The root of the package, found from this file's place in it.
  public static let package = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

  /// A folder with shards.
  static let shards = package + "/Formats/sharded/golden/plain"
  /// A folder with the external data of an ONNX model.
  static let external = package + "/Formats/onnx/golden"
  /// What a delta is a change of.
  public static let base = package + "/Formats/safetensors/golden/all_dtypes.safetensors"

  /// The header of a small vision transformer of Hugging Face, without its length.
  static let header: [UInt8] = {
    let path = package + "/Tests/Fixtures/family/vit_features/huggingface/model.safetensors"
    guard let bytes = try? MappedFile(path: path).bytes, let size = bytes.span.load(UInt64.self, at: 0) else {
      fatalError("there is no \(path)")
    }
    let text = bytes.extracting(8..<8 + Int(size)).array(of: UInt8.self)
    // The metadata makes way for those with a configuration.
    guard let object = try? JSONParser.parse(text).object else { fatalError("\(path) is no safetensors file") }
    var tensors = JSONObject()
    for (key, value) in object.members where key != "__metadata__" { tensors[key] = value }
    return Array(JSONValue.object(tensors).text().utf8)
  }()

  /// The constants of artifacts that have every op.
  private static let constants: [String: TensorExpression] = {
    var constants: [String: TensorExpression] = [:]
    for path in ["Formats/onnx/golden/operators.gguf", "Formats/gguf/golden/artifact.gguf"] {
      guard let file = try? MappedFile(path: package + "/" + path), let artifact = try? Artifact.read(file) else {
        fatalError("there is no \(path)")
      }
      for constant in artifact.graph.constants { constants[constant.name] = constant.data }
    }
    return constants
  }()

  /// Those of the constants that a graph's text declares, so that it is not refused for leaving some out.
  static func constants(namedIn text: String) -> [String: TensorExpression] {
    let declared = (try? JSONParser.parse(Array(text.utf8)))?["constants"]?.array ?? []
    let names = Set(declared.compactMap { $0["name"]?.string })
    return constants.filter { names.contains($0.key) }
  }

  /// A folder in memory where the system has one.
  private static let folder: String = {
    let parent = FileManager.default.fileExists(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
    let path = parent + "/multiway-fuzz-\(ProcessInfo.processInfo.processIdentifier)"
    try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    atexit { try? FileManager.default.removeItem(atPath: FuzzedFixtures.folder) }
    return path
  }()

  /// Writes an input and gives its path and that of an output.
  static func write(_ bytes: TensorBytes) throws -> (input: String, output: String) {
    var file = try OutputFile(path: folder + "/in", overwrite: true)
    try file.write(bytes.span)
    try file.commit()
    return (folder + "/in", folder + "/out")
  }
}
