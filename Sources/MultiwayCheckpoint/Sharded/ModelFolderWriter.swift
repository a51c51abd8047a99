public import MultiwayCore

/// Writes the folder of a model as Hugging Face's loaders have it: weights in one safetensors file or in shards with an index, and JSON
/// files beside them. Files get their names when all are written, the one by which readers find the weights last.
///
/// A model that was in the folder goes whole: its weights or its index, and of the shards that the index names those that are called as
/// shards are, as loaders that take every `*.safetensors` would mix them with the new ones. An index comes from strangers, so nothing else goes because it
/// names it, and a shard that no index names may be anybody's: it stays.
public enum ModelFolderWriter {
  /// More files at once would run into the limits of processes, and no loader is helped by them.
  static let maximumShards = 500
  private static let weights = ModelFolder.safetensors
  private static let index = ModelFolder.safetensorsIndex

  /// Writes a folder and gives the size of its files in bytes.
  /// - Parameters:
  ///   - shardSize: how many bytes of tensors a shard may have; a larger tensor has a shard of its own. Nil for one file.
  ///   - companions: the JSON files, by name.
  ///   - metadata: what every safetensors file says in its header.
  ///   - provenance: where the tensors come from; each file has it with the digests of its own.
  public static func write(
    _ tensors: [StoredTensor], shardSize: Int? = nil, companions: [(name: String, contents: JSONObject)] = [],
    metadata: [String: String] = [:], provenance: Provenance? = nil, to path: String, overwrite: Bool = false,
    inputs: [FileIdentity] = [], progress: ((Int, Int) -> Void)? = nil
  ) throws -> Int {
    let ordered = try SafetensorsWriter.order(tensors, path: path)
    let shards =
      try shardSize.map { size throws(CheckpointError) in try split(ordered, size: size, path: path) } ?? [ordered]
    let names = shards.indices.map { shards.count == 1 ? weights : name(of: $0, count: shards.count) }
    let folder = try OutputFolder(path: path, overwrite: overwrite, keys: [weights, index], inputs: inputs)
    try replaceModel(in: folder, companions: companions.map(\.name))
    let total = StateDict(name: "", tensors: ordered).byteCount
    var (done, size) = (0, 0)
    for companion in companions { size += try add(companion.contents, companion.name, to: folder) }
    for (name, shard) in zip(names, shards) {
      var file = try folder.file(name)
      let before = done
      try SafetensorsWriter.write(shard, metadata: metadata, provenance: provenance, to: &file) { written, _ in
        done = before + written
        progress?(done, total)
      }
      size += file.byteCount
      try folder.add(file)
    }
    if shards.count > 1 { size += try add(index(of: shards, names: names, total: total), index, to: folder) }
    try folder.commit()
    return size
  }

  /// `model-00002-of-00005.safetensors`.
  private static func name(of shard: Int, count: Int) -> String {
    func digits(_ number: Int) -> String {
      let text = String(number)
      return String(repeating: "0", count: max(0, 5 - text.count)) + text
    }
    return "model-\(digits(shard + 1))-of-\(digits(count)).safetensors"
  }

  /// Fills shards one after the other.
  private static func split(
    _ tensors: [StoredTensor], size: Int, path: String
  ) throws(CheckpointError) -> [[StoredTensor]] {
    var shards: [[StoredTensor]] = [[]]
    var filled = 0
    for tensor in tensors {
      let (sum, overflow) = filled.addingReportingOverflow(tensor.byteCount)
      if !shards[shards.count - 1].isEmpty, overflow || sum > size {
        shards.append([])
        filled = 0
      }
      shards[shards.count - 1].append(tensor)
      filled = filled.addingReportingOverflow(tensor.byteCount).partialValue
      guard shards.count <= maximumShards else {
        throw CheckpointError(
          .unrepresentable, "shards of \(size) bytes would be more than \(maximumShards)",
          expected: "at most \(maximumShards) files", remedy: "choose a larger --shard-size", file: path)
      }
    }
    return shards
  }

  /// The index as transformers writes it, its keys sorted.
  private static func index(of shards: [[StoredTensor]], names: [String], total: Int) -> JSONObject {
    var pairs: [(key: String, file: String)] = []
    for (name, shard) in zip(names, shards) { pairs += shard.map { ($0.name, name) } }
    pairs.sort { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
    var map = JSONObject()
    for pair in pairs { map[pair.key] = .string(pair.file) }
    return ["metadata": .object(["total_size": .integer(total)]), ShardIndex.mapKey: .object(map)]
  }

  private static func add(_ object: JSONObject, _ name: String, to folder: OutputFolder) throws(FileError) -> Int {
    var file = try folder.file(name)
    try file.write(Array((JSONValue.object(object).text(indented: true) + "\n").utf8))
    let size = file.byteCount
    try folder.add(file)
    return size
  }

  /// Retires the shards of the model that is in the folder, and refuses a folder with files that readers might take for the new model's.
  private static func replaceModel(in output: OutputFolder, companions: [String]) throws(FileError) {
    let folder = try Folder(path: output.path)
    let present = Set(folder.names)
    if let other = ModelFolder.weightNames.first(where: { $0 != weights && $0 != index && present.contains($0) }) {
      throw refusal(other, "weights", in: folder)
    }
    guard present.contains(weights) || present.contains(index) else { return }
    if let other = ModelFolder.companions.map(\.0).first(where: { !companions.contains($0) && present.contains($0) }) {
      throw refusal(other, "configuration", in: folder)
    }
    // An index that cannot be read names nothing.
    guard let file = try? folder.open(index), let old = try? ShardIndex(file) else { return }
    for name in old.shards where isShard(name) { try output.retire(name) }
  }

  private static func refusal(_ name: String, _ part: String, in folder: borrowing Folder) -> FileError {
    FileError(
      .exists, "the folder holds \(name), which readers might take for the model's \(part)",
      remedy: "write to another folder, or remove it", file: folder.path)
  }

  /// True for a name such as `name(of:count:)` makes.
  private static func isShard(_ name: String) -> Bool {
    let parts = name.split(separator: "-", omittingEmptySubsequences: false)
    func isNumber(_ text: Substring) -> Bool {
      text.utf8.count >= 5 && text.utf8.allSatisfy { (0x30...0x39).contains($0) }
    }
    let suffix = ".safetensors"
    guard parts.count == 4, parts[0] == "model", parts[2] == "of", parts[3].hasSuffix(suffix) else { return false }
    return isNumber(parts[1]) && isNumber(parts[3].dropLast(suffix.count))
  }
}
