public import MultiwayCore

/// A dictionary of tensors in a checkpoint.
public struct StateDict: Sendable {
  /// Where it stands: `model`, `module`, `state_dict`, `model_ema`; empty for a file that is nothing but one.
  public var name: String
  /// The tensors in file order; the names are unique.
  public var tensors: [StoredTensor]

  /// Makes a state dict.
  public init(name: String, tensors: [StoredTensor]) {
    self.name = name
    self.tensors = tensors
  }

  /// The tensor of that name.
  public func tensor(named name: String) -> StoredTensor? { tensors.first { $0.name == name } }

  /// The size of all tensors in C order, in bytes.
  public var byteCount: Int {
    tensors.reduce(0) { sum, tensor in
      let (total, overflow) = sum.addingReportingOverflow(tensor.byteCount)
      return overflow ? Int.max : total
    }
  }
}

/// What a checkpoint holds, in one file or several. Opening one reads headers only; tensors are read when their bytes are asked for.
public struct Checkpoint: Sendable {
  /// The name of the format of the file or of each shard, without what it is packed with: `safetensors`.
  public let container: String
  /// What the files are packed with: `zstd`, nil for nothing.
  public let packing: String?
  /// The number of shards, nil for a single file.
  let shardCount: Int?
  /// The path as it was given.
  public internal(set) var path: String
  /// The size of all files in bytes.
  public let byteCount: Int
  /// The files that it is made of.
  public var files: [InputFile]
  /// Every dictionary of tensors that was found, the default one first, averaged (EMA) copies last.
  public let stateDicts: [StateDict]
  /// The tensors as the file holds them and names them, which digests are of, where the reader shows others in their place; else nil.
  public internal(set) var filedTensors: [StoredTensor]?
  /// Checksums in the file of what holds the digest of its header: they follow from it, so that they count as zeros in it.
  public internal(set) var checksumsOfDigests: [Range<Int>] = []
  /// Plain data beside the tensors: safetensors metadata, a pickle's `epoch` and `args`, GGUF's scalar keys; `config` and
  /// `preprocessor_config` hold the JSON files of those names that lie beside a Hugging Face model.
  public internal(set) var metadata: JSONObject
  /// What the pickle wanted to build or call and what was kept as inert data instead, by name.
  public let opaqueRecords: [String]
  /// What a reader should know: what was left out, absent checksums, foreign byte order.
  public internal(set) var notes: [String]

  /// The name of the format, for people: `safetensors`, `zstd of PyTorch zip`, `safetensors, 3 shards`.
  public var format: String {
    let name = packing.map { "\($0) of \(container)" } ?? container
    return shardCount.map { "\(name), \($0) shard\($0 == 1 ? "" : "s")" } ?? name
  }

  init(
    format: String, file: any ByteSource, stateDicts: [StateDict], metadata: JSONObject = JSONObject(),
    opaqueRecords: [String] = [], notes: [String] = []
  ) {
    self.init(
      container: format, packing: file.packing, shardCount: nil, path: file.path, byteCount: file.fileByteCount,
      files: [InputFile(file)], stateDicts: stateDicts, metadata: metadata, opaqueRecords: opaqueRecords,
      notes: notes)
  }

  init(
    container: String, packing: String?, shardCount: Int?, path: String, byteCount: Int, files: [InputFile],
    stateDicts: [StateDict], metadata: JSONObject, opaqueRecords: [String], notes: [String]
  ) {
    self.container = container
    self.packing = packing
    self.shardCount = shardCount
    self.path = path
    self.byteCount = byteCount
    self.files = files
    self.stateDicts = stateDicts
    self.metadata = metadata
    self.opaqueRecords = opaqueRecords
    self.notes = notes
  }

  /// Adds something that a reader should know.
  public mutating func add(note: String) { notes.append(note) }

  /// Which files it is made of, by which an output is kept from replacing one of them.
  public var identities: [FileIdentity] { files.map(\.identity) }

  /// The state dict of that name, or the default one; the error lists those that there are.
  public func stateDict(named name: String? = nil) throws(CheckpointError) -> StateDict {
    guard let name else {
      guard let first = stateDicts.first else {
        throw CheckpointError(.noTensors, "there are no tensors in the file", file: path)
      }
      return first
    }
    guard let found = stateDicts.first(where: { $0.name == name }) else {
      throw CheckpointError(
        .noSuchStateDict, "there is no state dict '\(name)'",
        expected: "one of " + stateDicts.map { "'\($0.name)'" }.joined(separator: ", "), file: path)
    }
    return found
  }
}

/// A reader of one checkpoint format.
public protocol CheckpointReader: Sendable {
  /// The name of the format.
  static var formatName: String { get }
  /// What of the format is read, in a line.
  static var summary: String { get }
  /// True where the file that starts with these bytes is of the format.
  static func recognizes(_ header: RawSpan) -> Bool
  /// Reads the headers of a file and checks everything in them.
  static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint
}

extension ByteSource {
  /// The bytes in `range`, which must lie within.
  func contents(in range: Range<Int>) throws(CheckpointError) -> TensorBytes {
    do throws(TensorError) {
      return try bytes(in: range)
    } catch {
      throw CheckpointError(.corrupt, error.diagnosis)
    }
  }
}
