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
  /// Something that is a tensor, but whose elements cannot be given.
  case unsupported(UnreadableTensor)
  /// A NumPy array that waits for its BUILD.
  case unfilledArray
}

/// A tensor that is listed, and refused when it is needed.
struct UnreadableTensor {
  /// What it is.
  var reason: String
  /// What its owner can do.
  var remedy: String
  /// Its dtype and shape, where dtypes of ours describe it.
  var type: (dtype: DType, shape: Shape)?
}

/// What the world of a pickle is made of: how its storages are found.
struct TorchStorages {
  /// Finds a storage's bytes by its key and the size that the pickle gives it.
  var find: (_ key: String, _ byteCount: Int) throws(CheckpointError) -> any TensorStorage
  /// Reads the storage in the bytes of a pickle within the pickle; nil where no writer puts one.
  var readNested: ((PickleBlob) throws(CheckpointError) -> TorchStorage)?
  /// Tensors that the pickle refers to by number: the older tar form only.
  var numbered: [Int: StoredTensor]?

  /// For pickles that can have none: headers, lists of keys.
  static var none: TorchStorages {
    TorchStorages { key, _ throws(CheckpointError) in
      throw CheckpointError(.malformed, "a storage '\(key)' where there can be none")
    }
  }
}

/// Gives the names of PyTorch's pickles their meaning: storages become ranges of the file, rebuild functions become tensors.
struct TorchWorld: PickleWorld {
  let source: TorchStorages
  let isBigEndian: Bool
  private(set) var tensors: [TorchTensor] = []
  private(set) var storages: [TorchStorage] = []
  /// How many quantized tensors are given as the numbers that they stand for.
  var dequantizedCount = 0
  /// The classes whose objects were kept as records, in order of appearance.
  private(set) var opaque: [String] = []
  private var opaqueNames: Set<String> = []
  private var storageIndex: [String: Int] = [:]
  private var viewIndex: [String: Int] = [:]
  private var numberedIndex: [Int: Int] = [:]
  private var logicalBudget: Int

  /// - Parameter fileSize: bounds what the views of a file's storages may add up to, since a view with stride 0 makes any
  ///   number of bytes from a few.
  init(fileSize: Int, isBigEndian: Bool = false, storages source: TorchStorages = .none) {
    self.source = source
    self.isBigEndian = isBigEndian
    let (product, overflow) = fileSize.multipliedReportingOverflow(by: 64)
    logicalBudget = overflow ? Int.max : max(product, 64 << 20)
  }

  func check(_ global: PickleGlobal) throws(CheckpointError) { try PicklePolicy.check(global) }

  // MARK: Storages

  mutating func persistent(_ id: PickleValue, in arena: inout PickleArena) throws(CheckpointError) -> PickleValue {
    if source.numbered != nil { return try numberedTensor(id, in: &arena) }
    let parts = arena.tuple(id) ?? []
    // Before 1.6 the source code of a module's class stood beside the class.
    if parts.count >= 2, arena.text(parts[0]) == "module", case .global = parts[1] { return parts[1] }
    guard parts.count >= 5, arena.text(parts[0]) == "storage" else {
      throw CheckpointError(
        .malformed, "a persistent id that is \(arena.kind(id))",
        expected: "('storage', class, key, location, number of elements)")
    }
    guard let global = arena.global(parts[1]), let type = TorchTypes.storage(global) else {
      throw CheckpointError(
        .unsupported, "a storage of \(arena.kind(parts[1]))",
        expected: "one of torch." + TorchTypes.storageNames.joined(separator: ", "))
    }
    guard let key = arena.text(parts[2]), key.utf8.count <= PickleLimits.maximumNameSize,
      case .int(let count) = parts[4], count >= 0
    else {
      throw CheckpointError(.malformed, "a storage whose key or size is odd")
    }
    let root = try rootStorage(key, type, count, in: &arena)
    guard parts.count > 5, parts[5] != .none else { return .storage(root) }
    return .storage(try view(parts[5], of: root, key, in: &arena))
  }

  private mutating func rootStorage(
    _ key: String, _ type: TorchTypes.StorageType, _ count: Int, in arena: inout PickleArena
  ) throws(CheckpointError) -> Int {
    if let known = storageIndex[key] {
      guard storages[known].type == type, storages[known].count == count else {
        throw CheckpointError(
          .malformed, "the storage '\(key)' is used with two element types or sizes", expected: "one")
      }
      return known
    }
    let (size, overflow) = count.multipliedReportingOverflow(by: type.unitSize)
    let storage = try source.find(key, overflow ? .max : size)
    guard !overflow, size == storage.byteCount else {
      throw CheckpointError(
        .sizeMismatch, "the storage '\(key)' should hold \(count) elements of \(type.unitSize) bytes",
        expected: "\(storage.byteCount) bytes, which its record has", remedy: "the file is damaged: fetch it again")
    }
    let index = try add(TorchStorage(type: type, count: count, storage: storage), in: &arena)
    storageIndex[key] = index
    return index
  }

  mutating func add(_ storage: TorchStorage, in arena: inout PickleArena) throws(CheckpointError) -> Int {
    try arena.charge(256)
    storages.append(storage)
    return storages.count - 1
  }

  /// The size of the elements in which the storage of that key is counted.
  func unitSize(ofStorage key: String) -> Int? { storageIndex[key].map { storages[$0].type.unitSize } }

  /// The part of a storage that `(key, offset, number of elements)` describes, as files from before 0.4 have it.
  private mutating func view(
    _ metadata: PickleValue, of root: Int, _ rootKey: String, in arena: inout PickleArena
  ) throws(CheckpointError) -> Int {
    let whole = storages[root]
    guard let parts = arena.tuple(metadata), parts.count == 3, let key = arena.text(parts[0]),
      key.utf8.count <= PickleLimits.maximumNameSize, case .int(let offset) = parts[1],
      case .int(let count) = parts[2], offset >= 0, count >= 0, count <= whole.count, offset <= whole.count - count
    else {
      throw CheckpointError(
        .malformed, "a view of the storage '\(rootKey)' that is odd or leaves it",
        expected: "(key, offset, number of elements), within \(whole.count) elements")
    }
    let range = offset * whole.type.unitSize..<(offset + count) * whole.type.unitSize
    let name = "\(rootKey)/\(range.lowerBound)-\(range.upperBound)"
    if let known = viewIndex[name] { return known }
    let part = StorageSlice(of: whole.storage, range: range)
    let index = try add(TorchStorage(type: whole.type, count: count, storage: part), in: &arena)
    viewIndex[name] = index
    return index
  }

  /// A tensor of the tar form by its number, or the class that stands beside its source code.
  private mutating func numberedTensor(
    _ id: PickleValue, in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue {
    if let first = arena.tuple(id)?.first, case .global = first { return first }
    let number: Int? =
      switch id {
      case .int(let number): number
      case .string: arena.text(id).flatMap { Int($0) }
      default: nil
      }
    guard let number, let tensor = source.numbered?[number] else {
      throw CheckpointError(
        .missingRecord, "a persistent id that is \(number.map { "the number \($0)" } ?? arena.kind(id))",
        expected: "the number of a tensor in 'tensors'")
    }
    if let known = numberedIndex[number] { return .tensor(known) }
    let value = try add(.stored(tensor), in: &arena)
    if case .tensor(let index) = value { numberedIndex[number] = index }
    return value
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
