import MultiwayCore

/// The index of a sharded checkpoint: a JSON object whose `weight_map` tells the file of each tensor.
struct ShardIndex {
  /// The names of the shards, in the order in which the index first names them.
  private(set) var shards: [String] = []
  /// For each tensor the place of its shard in `shards`, in the index's order.
  private(set) var tensors: [(name: String, shard: Int)] = []
  /// The size of all tensors in bytes, as the index says; nil if it says nothing.
  private(set) var totalSize: Int?

  /// The largest index that is read, in bytes.
  private static let maximumSize = 100_000_000
  static let mapKey = "weight_map"

  /// True for what may be a JSON object. A safetensors file may start with `{` too, but its length then has zero bytes.
  static func recognizes(_ header: RawSpan) -> Bool {
    let start = header.array(in: 0..<min(64, header.byteCount))
    guard !start.prefix(8).contains(0) else { return false }
    return start.first { $0 != 0x20 && $0 != 0x09 && $0 != 0x0A && $0 != 0x0D } == UInt8(ascii: "{")
  }

  /// Parses an index.
  init(_ file: any ByteSource) throws(CheckpointError) {
    let object = try JSONFile.object(file, limit: ShardIndex.maximumSize)
    guard let map = object[ShardIndex.mapKey] else {
      throw CheckpointError(
        .unrecognized, "this is a JSON file, but no index of shards: it has no \(ShardIndex.mapKey)",
        expected: "a checkpoint", remedy: "give the file with the weights, or the folder that it lies in",
        file: file.path)
    }
    guard let members = map.object?.members, !members.isEmpty else {
      throw CheckpointError(
        .malformed, "\(ShardIndex.mapKey) is not an object with members",
        expected: "file names under the tensors' names",
        file: file.path)
    }
    var places: [String: Int] = [:]
    let odd = members.filter { $0.value.string == nil }.map(\.key)
    guard odd.isEmpty else {
      throw CheckpointError(
        .malformed, "\(ShardIndex.mapKey) gives no file name for \(listed(odd))", expected: "strings", file: file.path)
    }
    for (name, value) in members {
      guard let shard = value.string else { continue }
      let place = places[shard] ?? shards.count
      if place == shards.count {
        shards.append(shard)
        places[shard] = place
      }
      tensors.append((name, place))
    }
    totalSize = object["metadata"]?["total_size"]?.integer
  }
}

/// JSON files beside checkpoints.
enum JSONFile {
  /// The object that fills the file.
  static func object(_ file: any ByteSource, limit: Int) throws(CheckpointError) -> JSONObject {
    let limit = min(limit, file.headerLimit)
    guard file.byteCount <= limit else {
      throw CheckpointError(
        .overBudget, "a JSON file of \(file.byteCount) bytes", expected: "at most \(limit)", file: file.path)
    }
    let bytes = try file.contents(in: 0..<file.byteCount).array(of: UInt8.self)
    do throws(JSONError) {
      if case .object(let object) = try JSONParser.parse(bytes) { return object }
    } catch {
      throw CheckpointError(
        error.message.hasSuffix("stands twice") ? .duplicateName : .malformed, error.message, file: file.path,
        byteOffset: error.byteOffset)
    }
    throw CheckpointError(.malformed, "the file is not a JSON object", file: file.path, byteOffset: 0)
  }
}

/// The first twenty names, quoted, and how many more there are.
func listed(_ names: [String]) -> String {
  let more = names.count > 20 ? " and \(names.count - 20) more" : ""
  return names.prefix(20).map { "'\($0.prefix(200))'" }.joined(separator: ", ") + more
}
