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
    // The metadata makes way for those with a configuration, and all layers but the first for speed.
    guard let object = try? JSONParser.parse(text).object else { fatalError("\(path) is no safetensors file") }
    var tensors = JSONObject()
    var end = 0
    for (key, value) in object.members where key != "__metadata__" && !(key.contains(".layer.") && !key.contains(".0."))
    {
      guard var entry = value.object, let range = entry["data_offsets"]?.array?.compactMap(\.integer), range.count == 2
      else { fatalError("\(path) is no safetensors file") }
      entry["data_offsets"] = .array([.integer(end), .integer(end + range[1] - range[0])])
      end += range[1] - range[0]
      tensors[key] = .object(entry)
    }
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

  private static let name = Array("\"name\":\"".utf8)

  /// Those of the constants whose names stand as `"name":"…"` in a graph's text, so that it is not refused for leaving some out.
  static func constants(namedIn text: [UInt8]) -> [String: TensorExpression] {
    var found: [String: TensorExpression] = [:]
    var place = 0
    while place + name.count < text.count {
      guard text[place] == name[0], text[place..<place + name.count].elementsEqual(name) else {
        place += 1
        continue
      }
      place += name.count
      let end = text[place...].firstIndex(of: UInt8(ascii: "\"")) ?? text.endIndex
      let key = String(decoding: text[place..<end], as: UTF8.self)
      found[key] = constants[key]
      place = end
    }
    return found
  }

  /// Gives `body` the path of a file in memory with these bytes, and that of an output that is thrown away.
  static func deliver(_ bytes: TensorBytes, _ body: (_ input: String, _ output: String) throws -> Void) throws {
    let file = MemoryFile(bytes)
    defer { withExtendedLifetime(file) {} }
    try OutputDevices.$current.withValue(DiscardingDevice()) {
      try body(file.path, MemoryFile.folder + "/multiway-fuzz-out")
    }
  }
}
