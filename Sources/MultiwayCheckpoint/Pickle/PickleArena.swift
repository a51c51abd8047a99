import MultiwayCore

/// A value that a pickle describes. Everything that can nest is an index into the arena, so that no value ever owns another:
/// a million nested lists cost a million small entries, and no recursion to build, walk or free.
enum PickleValue: Hashable {
  case none
  case bool(Bool)
  case int(Int)
  /// An integer beyond 64 bits: its bytes, little-endian two's complement.
  case bigInt(blob: Int)
  case real(Double)
  case string(Int)
  case bytes(blob: Int)
  case container(Int)
  case global(Int)
  case object(Int)
  case storage(Int)
  case tensor(Int)
}

/// A tuple, list, dict or set.
struct PickleContainer {
  enum Kind: UInt8 { case tuple, list, dict, set }

  /// Some kinds.
  struct Kinds: OptionSet {
    let rawValue: UInt8
    static let tuple = Kinds(rawValue: 1 << Kind.tuple.rawValue)
    static let list = Kinds(rawValue: 1 << Kind.list.rawValue)
    static let dict = Kinds(rawValue: 1 << Kind.dict.rawValue)
    static let set = Kinds(rawValue: 1 << Kind.set.rawValue)
    static let sequence: Kinds = [.tuple, .list]
  }

  var kind: Kind
  /// The elements; for a dict, keys and values in turn.
  var items: [PickleValue] = []
}

/// The name of something in a Python module. It is a name and nothing else: no name leads to code.
struct PickleGlobal: Hashable {
  let module: String
  let name: String

  /// Names of Python 2 and of older NumPy are brought to one spelling.
  init(module: String, name: String) {
    var module = module
    for (old, new) in PickleGlobal.renamed where module == old || module.hasPrefix(old + ".") {
      module = new + module.dropFirst(old.count)
    }
    self.module = module
    self.name = name
  }

  private static let renamed = [
    ("__builtin__", "builtins"), ("copy_reg", "copyreg"), ("numpy._core", "numpy.core"), ("UserDict", "collections"),
  ]

  var fullName: String { module + "." + name }
}

/// Something that the pickle wanted to make by calling a class, kept as a record of what was asked.
struct PickleObject {
  var callable: Int
  var arguments: PickleValue
  var state: PickleValue = .none
  /// What SETITEM and APPEND gave to it, for subclasses of dict and list.
  var items: [PickleValue] = []
  var hasKeys = false
}

/// Bytes that a pickle holds: in memory, or left in their place where they are many.
enum PickleBlob {
  case bytes([UInt8])
  case place(SourceSlice)

  var byteCount: Int {
    switch self {
    case .bytes(let bytes): bytes.count
    case .place(let slice): slice.byteCount
    }
  }

  /// As a source; `file` gives it a path.
  func source(of file: any ByteSource) -> any ByteSource {
    switch self {
    case .bytes(let bytes): MemorySource(TensorBytes(copying: bytes), of: file)
    case .place(let slice): slice
    }
  }
}

/// Owns what a pickle describes, within a memory budget.
struct PickleArena {
  private(set) var strings: [String] = []
  private(set) var blobs: [PickleBlob] = []
  private(set) var globals: [PickleGlobal] = []
  var containers: [PickleContainer] = []
  var objects: [PickleObject] = []
  private var globalIndex: [PickleGlobal: Int] = [:]
  /// How many bytes may still be spent.
  private var budget: Int

  init(budget: Int) { self.budget = budget }

  /// Takes `bytes` from the budget.
  mutating func charge(_ bytes: Int) throws(CheckpointError) {
    budget -= bytes
    guard budget >= 0 else {
      throw CheckpointError(
        .overBudget, "the pickle describes more than the file's size justifies",
        remedy: "the file is not an ordinary checkpoint; do not trust it")
    }
  }

  mutating func string(_ text: String) throws(CheckpointError) -> PickleValue {
    try charge(48 + text.utf8.count)
    strings.append(text)
    return .string(strings.count - 1)
  }

  mutating func blob(_ bytes: [UInt8]) throws(CheckpointError) -> Int {
    try charge(48 + bytes.count)
    blobs.append(.bytes(bytes))
    return blobs.count - 1
  }

  mutating func blob(_ slice: SourceSlice) throws(CheckpointError) -> Int {
    try charge(144)
    blobs.append(.place(slice))
    return blobs.count - 1
  }

  mutating func container(_ kind: PickleContainer.Kind, _ items: [PickleValue] = []) throws(CheckpointError)
    -> PickleValue
  {
    try charge(80 + items.count * 32)
    containers.append(PickleContainer(kind: kind, items: items))
    return .container(containers.count - 1)
  }

  mutating func append(_ items: some Collection<PickleValue>, to container: Int) throws(CheckpointError) {
    try charge(items.count * 32)
    containers[container].items.append(contentsOf: items)
  }

  mutating func global(_ global: PickleGlobal) throws(CheckpointError) -> Int {
    if let known = globalIndex[global] { return known }
    try charge(160 + global.fullName.utf8.count)
    globals.append(global)
    globalIndex[global] = globals.count - 1
    return globals.count - 1
  }

  mutating func object(_ object: PickleObject) throws(CheckpointError) -> PickleValue {
    try charge(112)
    objects.append(object)
    return .object(objects.count - 1)
  }
}

// MARK: - Looking at values

extension PickleArena {
  func text(_ value: PickleValue) -> String? {
    if case .string(let index) = value { strings[index] } else { nil }
  }

  func items(_ value: PickleValue, _ kinds: PickleContainer.Kinds) -> [PickleValue]? {
    guard case .container(let index) = value, kinds.rawValue >> containers[index].kind.rawValue & 1 == 1 else {
      return nil
    }
    return containers[index].items
  }

  func tuple(_ value: PickleValue) -> [PickleValue]? { items(value, .tuple) }

  func global(_ value: PickleValue) -> PickleGlobal? {
    if case .global(let index) = value { globals[index] } else { nil }
  }

  /// The integers of a tuple or list, nil if it holds anything else or more than a shape can have.
  func integers(_ value: PickleValue) -> [Int]? {
    guard let items = items(value, .sequence), items.count <= PickleLimits.maximumRank else { return nil }
    var integers: [Int] = []
    for item in items {
      guard case .int(let integer) = item else { return nil }
      integers.append(integer)
    }
    return integers
  }

  /// The bytes of a bytes object, or of a Python 2 string.
  func blob(_ value: PickleValue) -> PickleBlob? {
    switch value {
    case .bytes(let index): blobs[index]
    case .string(let index): .bytes(Array(strings[index].utf8))
    default: nil
    }
  }

  /// The bytes of a short bytes object.
  func bytes(_ value: PickleValue) -> [UInt8]? {
    if case .bytes(let bytes) = blob(value) { bytes } else { nil }
  }

  /// The value's type, for messages.
  func kind(_ value: PickleValue) -> String {
    switch value {
    case .none: "None"
    case .bool: "a bool"
    case .int, .bigInt: "an int"
    case .real: "a float"
    case .string: "a string"
    case .bytes: "bytes"
    case .container(let index): "a \(containers[index].kind)"
    case .global(let index): globals[index].fullName
    case .object(let index): "an object of \(globals[objects[index].callable].fullName)"
    case .storage: "a storage"
    case .tensor: "a tensor"
    }
  }
}
