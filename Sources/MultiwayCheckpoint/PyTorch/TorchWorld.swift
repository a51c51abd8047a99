import MultiwayCore

/// A storage that a persistent id names.
struct TorchStorage {
  var type: TorchTypes.StorageType
  /// The number of units: elements of a typed storage, bytes of an untyped one.
  var count: Int
  var storage: any TensorStorage

  var byteCount: Int { storage.byteCount }
}

/// What became of a tensor that the pickle describes.
enum TorchTensor {
  case stored(StoredTensor)
  /// Something that is a tensor, but whose bytes cannot be given; the text says why.
  case unsupported(String)
  /// A NumPy array that waits for its BUILD.
  case unfilledArray
}

/// Gives the names of PyTorch's pickles their meaning: storages become ranges of the file, rebuild functions become tensors.
struct TorchWorld: PickleWorld {
  /// Finds a storage's record by its key.
  let findRecord: (String) throws(CheckpointError) -> any TensorStorage
  let isBigEndian: Bool
  private(set) var tensors: [TorchTensor] = []
  private(set) var storages: [TorchStorage] = []
  /// The classes whose objects were kept as records, in order of appearance.
  private(set) var opaque: [String] = []
  private var opaqueNames: Set<String> = []
  private var storageIndex: [String: Int] = [:]
  private var logicalBudget: Int

  /// - Parameter fileSize: bounds what the views of a file's storages may add up to, since a view with stride 0 makes any
  ///   number of bytes from a few.
  init(
    fileSize: Int, isBigEndian: Bool, findRecord: @escaping (String) throws(CheckpointError) -> any TensorStorage
  ) {
    self.findRecord = findRecord
    self.isBigEndian = isBigEndian
    let (product, overflow) = fileSize.multipliedReportingOverflow(by: 64)
    logicalBudget = overflow ? Int.max : max(product, 64 << 20)
  }

  func check(_ global: PickleGlobal) throws(CheckpointError) { try PicklePolicy.check(global) }

  // MARK: Storages

  mutating func persistent(_ id: PickleValue, in arena: inout PickleArena) throws(CheckpointError) -> PickleValue {
    guard let parts = arena.tuple(id), parts.count >= 5, arena.text(parts[0]) == "storage" else {
      throw CheckpointError(
        .malformed, "a persistent id that is \(arena.kind(id))",
        expected: "('storage', class, key, location, number of elements)")
    }
    guard let global = arena.global(parts[1]), let type = TorchTypes.storage(global) else {
      throw CheckpointError(
        .unsupported, "a storage of \(arena.kind(parts[1]))", expected: "a storage class such as torch.FloatStorage")
    }
    guard let key = arena.text(parts[2]), key.utf8.count <= PickleLimits.maximumNameSize,
      case .int(let count) = parts[4], count >= 0
    else {
      throw CheckpointError(.malformed, "a storage whose key or size is odd")
    }
    if let known = storageIndex[key] {
      guard storages[known].type == type, storages[known].count == count else {
        throw CheckpointError(
          .malformed, "the storage '\(key)' is used with two element types or sizes", expected: "one")
      }
      return .storage(known)
    }
    let storage = try findRecord(key)
    let (size, overflow) = count.multipliedReportingOverflow(by: type.unitSize)
    guard !overflow, size == storage.byteCount else {
      throw CheckpointError(
        .sizeMismatch, "the storage '\(key)' should hold \(count) elements of \(type.unitSize) bytes",
        expected: "\(storage.byteCount) bytes, which its record has", remedy: "the file is damaged: fetch it again")
    }
    try arena.charge(256)
    storages.append(TorchStorage(type: type, count: count, storage: storage))
    storageIndex[key] = storages.count - 1
    return .storage(storages.count - 1)
  }

  // MARK: Tensors

  /// Adds a tensor and returns the value that stands for it.
  mutating func add(_ tensor: TorchTensor, in arena: inout PickleArena) throws(CheckpointError) -> PickleValue {
    try arena.charge(256)
    if case .stored(let stored) = tensor {
      logicalBudget = logicalBudget.subtractingReportingOverflow(stored.byteCount).partialValue
      guard logicalBudget >= 0 else {
        throw CheckpointError(
          .overBudget, "the tensors' views take far more bytes than the file has",
          remedy: "the file is not an ordinary checkpoint; do not trust it")
      }
    }
    tensors.append(tensor)
    return .tensor(tensors.count - 1)
  }

  /// Replaces a tensor that was not complete.
  mutating func fill(_ index: Int, with tensor: TorchTensor) { tensors[index] = tensor }

  mutating func record(opaque name: String) {
    if opaque.count < 1000, opaqueNames.insert(name).inserted { opaque.append(name) }
  }

  mutating func build(tensor: Int, state: PickleValue, in arena: inout PickleArena) throws(CheckpointError) {
    guard case .unfilledArray = tensors[tensor] else { return }
    guard let parts = arena.tuple(state), parts.count == 5, let dimensions = arena.integers(parts[1]) else {
      throw CheckpointError(.malformed, "a NumPy array whose state is odd")
    }
    tensors[tensor] = numpyArray(
      dimensions, dtype: parts[2], isFortran: parts[3] == .bool(true), bytes: parts[4], in: arena)
  }
}
