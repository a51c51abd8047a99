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

  /// The most tensors of an index.
  private static let maximumTensors = 200_000
  /// How much memory the values beside the map may take.
  private static let otherAllowance = 16 << 20

  /// Parses an index, tensor by tensor.
  init(_ file: any ByteSource) throws(CheckpointError) {
    var hasMap = false
    try JSONFile.members(of: file, limit: ShardIndex.maximumSize) { key, parser in
      guard key == ShardIndex.mapKey else {
        let value = try parser.value(allowance: ShardIndex.otherAllowance)
        if key == "metadata" { totalSize = value["total_size"]?.integer }
        return
      }
      hasMap = true
      try readMap(&parser, file)
    }
    guard hasMap else {
      throw CheckpointError(
        .unrecognized, "this is a JSON file, but no index of shards: it has no \(ShardIndex.mapKey)",
        expected: "a checkpoint", remedy: "give the file with the weights, or the folder that it lies in",
        file: file.path)
    }
  }

  private mutating func readMap(_ parser: inout JSONParser, _ file: any ByteSource) throws {
    var places: [String: Int] = [:]
    var names: Set<String> = []
    var odd: [String] = []
    guard try parser.beginObject() else { throw ShardIndex.noMembers(file) }
    while let (name, offset) = try parser.nextMember() {
      guard names.insert(name).inserted else { throw JSONError.twice(name, at: offset) }
      guard names.count <= ShardIndex.maximumTensors else {
        throw CheckpointError(
          .overBudget, "an index of more than \(ShardIndex.maximumTensors) tensors", file: file.path,
          byteOffset: offset)
      }
      guard case .string(let shard) = try parser.value(allowance: ShardIndex.otherAllowance) else {
        odd.append(name)
        continue
      }
      let place = places[shard] ?? shards.count
      if place == shards.count {
        shards.append(shard)
        places[shard] = place
      }
      tensors.append((name, place))
    }
    guard odd.isEmpty else {
      throw CheckpointError(
        .malformed, "\(ShardIndex.mapKey) gives no file name for \(listed(odd))", expected: "strings", file: file.path)
    }
    if names.isEmpty { throw ShardIndex.noMembers(file) }
  }

  private static func noMembers(_ file: any ByteSource) -> CheckpointError {
    CheckpointError(
      .malformed, "\(mapKey) is not an object with members", expected: "file names under the tensors' names",
      file: file.path)
  }
}

/// JSON files beside checkpoints.
enum JSONFile {
  /// How much memory the values of a file may take.
  private static let allowance = 24 << 20

  /// The object that fills the file.
  static func object(_ file: any ByteSource, limit: Int) throws(CheckpointError) -> JSONObject {
    let bytes = try contents(of: file, limit: limit)
    do throws(JSONError) {
      if case .object(let object) = try JSONParser.parse(bytes, allowance: allowance) { return object }
    } catch {
      throw described(error, file)
    }
    throw noObject(file)
  }

  /// Gives the members of the object that fills the file one by one; `body` reads the value.
  static func members(
    of file: any ByteSource, limit: Int, _ body: (String, inout JSONParser) throws -> Void
  ) throws(CheckpointError) {
    let bytes = try contents(of: file, limit: limit)
    do {
      var parser = JSONParser(bytes)
      guard try parser.beginObject() else { throw noObject(file) }
      var keys: Set<String> = []
      while let (key, offset) = try parser.nextMember() {
        guard keys.insert(key).inserted else { throw JSONError.twice(key, at: offset) }
        try body(key, &parser)
      }
      try parser.end()
    } catch let error as CheckpointError {
      throw error
    } catch let error as JSONError {
      throw described(error, file)
    } catch {
      throw CheckpointError(.malformed, "\(error)", file: file.path)
    }
  }

  private static func contents(of file: any ByteSource, limit: Int) throws(CheckpointError) -> TensorBytes {
    let limit = min(limit, file.headerLimit)
    guard file.byteCount <= limit else {
      throw CheckpointError(
        .overBudget, "a JSON file of \(file.byteCount) bytes", expected: "at most \(limit)", file: file.path)
    }
    return try file.contents(in: 0..<file.byteCount)
  }

  private static func described(_ error: JSONError, _ file: any ByteSource) -> CheckpointError {
    CheckpointError(
      error.isDuplicate ? .duplicateName : .malformed, error.message, file: file.path, byteOffset: error.byteOffset)
  }

  private static func noObject(_ file: any ByteSource) -> CheckpointError {
    CheckpointError(.malformed, "the file is not a JSON object", file: file.path, byteOffset: 0)
  }
}

/// The first twenty names, quoted, and how many more there are.
func listed(_ names: [String]) -> String {
  let more = names.count > 20 ? " and \(names.count - 20) more" : ""
  return names.prefix(20).map { "'\($0.prefix(200))'" }.joined(separator: ", ") + more
}
