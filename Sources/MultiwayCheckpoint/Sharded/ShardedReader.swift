import MultiwayCore

/// Reads a checkpoint whose tensors lie in several files, by its index. Whatever is wrong with the set is told at once.
struct ShardedReader {
  private let file: any ByteSource
  private let index: ShardIndex
  private var problems = ShardProblems()
  /// The checkpoint of each shard; nil where it cannot be read.
  private var shards: [Checkpoint?] = []

  /// Reads the shards' headers.
  static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    var reader = ShardedReader(file: file, index: try ShardIndex(file))
    try reader.openShards()
    reader.compareFormats()
    let tensors = reader.compareTensors()
    if let error = reader.problems.error(file: file.path) { throw error }
    return reader.checkpoint(tensors)
  }

  private init(file: any ByteSource, index: ShardIndex) {
    self.file = file
    self.index = index
  }

  private mutating func openShards() throws(CheckpointError) {
    var leaving: [String] = []
    var missing: [String] = []
    var unreadable: [String] = []
    var itself: [String] = []
    var firstError: CheckpointError?
    let folder: Folder
    do throws(FileError) {
      folder = try Folder(path: ModelFolder.folder(of: file.path))
    } catch {
      throw CheckpointError(.missingRecord, error.diagnosis)
    }
    for name in index.shards {
      var shard: Checkpoint?
      do {
        let source = try folder.open(name)
        if source.identity == file.identity {
          itself.append(name)
        } else {
          shard = try CheckpointFormats.readOne(source)
        }
      } catch let error as FileError {
        switch error.code {
        case .leavesFolder: leaving.append(name)
        case .notFound: missing.append(name)
        default: unreadable.append(name)
        }
      } catch let error as CheckpointError {
        firstError = firstError ?? error
      } catch {
        unreadable.append(name)
      }
      shards.append(shard)
    }
    problems.add(.leavesFolder, "names or links that lead out of the folder", leaving)
    problems.add(.malformed, "the index itself as a shard", itself)
    problems.add(.missingRecord, "missing shards", missing)
    problems.add(.missingRecord, "shards that cannot be opened", unreadable)
    // A shard that is broken in itself is told by its own error, unless something is wrong with the set.
    if let firstError, problems.isEmpty { throw firstError }
  }

  private mutating func compareFormats() {
    var formats: [String] = []
    var examples: [String] = []
    for (name, shard) in zip(index.shards, shards) {
      guard let format = shard?.container, !formats.contains(format) else { continue }
      formats.append(format)
      examples.append("\(name) is \(format)")
    }
    if formats.count > 1 { problems.add(.malformed, "shards of several formats", examples) }
  }

  /// All tensors, shard by shard, compared with those that the index names.
  private mutating func compareTensors() -> [StoredTensor] {
    var holders: [String: Int] = [:]
    var tensors: [StoredTensor] = []
    var twice: [String] = []
    for (place, shard) in shards.enumerated() {
      for tensor in shard?.stateDicts.first?.tensors ?? [] {
        if let other = holders.updateValue(place, forKey: tensor.name) {
          twice.append("\(tensor.name) in \(index.shards[other]) and \(index.shards[place])")
        }
        tensors.append(tensor)
      }
    }
    var absent: [String] = []
    for (name, place) in index.tensors {
      let holder = holders.removeValue(forKey: name)
      if shards[place] != nil, holder != place { absent.append("\(name) in \(index.shards[place])") }
    }
    // Those that are left in a shard which the index does name, but without them.
    let unnamed = tensors.compactMap { tensor in
      holders.removeValue(forKey: tensor.name).map { "\(tensor.name) in \(index.shards[$0])" }
    }
    problems.add(.duplicateName, "tensors that two shards hold", twice)
    problems.add(.missingRecord, "tensors that are not where the index says", absent)
    problems.add(.malformed, "tensors that the index does not name", unnamed)
    return tensors
  }

  private func checkpoint(_ tensors: [StoredTensor]) -> Checkpoint {
    let shards = shards.compactMap { $0 }
    var metadata = JSONObject()
    var notes: [String] = []
    var opaque: [String] = []
    for (name, shard) in zip(index.shards, shards) {
      for (key, value) in shard.metadata.members where metadata[key] == nil { metadata[key] = value }
      notes += shard.notes.map { "\(name): \($0)" }
      if shard.stateDicts.count > 1 {
        notes.append("\(name): only the first of its \(shard.stateDicts.count) dictionaries was taken")
      }
      for record in shard.opaqueRecords where !opaque.contains(record) { opaque.append(record) }
    }
    let dict = StateDict(name: shards.first?.stateDicts.first?.name ?? "", tensors: tensors)
    if let claimed = index.totalSize, claimed != dict.byteCount {
      notes.append("the index says that the tensors take \(claimed) bytes; they take \(dict.byteCount)")
    }
    let container = shards.first?.container ?? ""
    let packing = shards.allSatisfy { $0.packing == shards.first?.packing } ? shards.first?.packing : nil
    return Checkpoint(
      container: container, packing: packing, shardCount: shards.count, path: file.path,
      byteCount: shards.reduce(file.fileByteCount) { $0 &+ $1.byteCount },
      files: [InputFile(file)] + shards.flatMap(\.files), stateDicts: [dict], metadata: metadata,
      opaqueRecords: opaque, notes: notes)
  }
}

/// What is wrong with a set of shards, kind by kind.
private struct ShardProblems {
  private var code: CheckpointErrorCode?
  private var texts: [String] = []

  var isEmpty: Bool { texts.isEmpty }

  /// Adds a kind of problem, if there are any; the first kind gives the error its code.
  mutating func add(_ code: CheckpointErrorCode, _ kind: String, _ names: [String]) {
    guard !names.isEmpty else { return }
    self.code = self.code ?? code
    texts.append("\(kind): \(listed(names))")
  }

  /// One error that lists all.
  func error(file: String) -> CheckpointError? {
    guard let code else { return nil }
    let remedy: String? =
      switch code {
      case .missingRecord: "fetch every file of the checkpoint, of the same revision, into one folder"
      case .leavesFolder: "do not trust this index; where links are your own, give the folder that they lead to"
      default: "fetch the checkpoint again; do not mix files of several"
      }
    return CheckpointError(
      code, "the set of shards has faults: " + texts.joined(separator: "; "),
      expected: "shards that hold just the tensors it names",
      remedy: remedy, file: file)
  }
}
