import MultiwayCore

/// Finds the dictionaries of tensors in what a pickle describes, and the plain data beside them.
struct StateDictFinder {
  let arena: PickleArena
  let world: TorchWorld
  private let path: String
  private(set) var notes: [String] = []
  private var stateDicts: [StateDict] = []
  /// Equal strings have equal numbers here, so that a key is hashed once, however often it is used.
  private let textIDs: [Int]
  private var visits = 0
  /// Which walk saw a container or an object last: shared and circular structures are walked once.
  private var containerWalks: [Int]
  private var objectWalks: [Int]
  private var walk = 0
  private var namesLeft = PickleLimits.maximumNames
  private var metadataLeft = PickleLimits.maximumMetadata
  private(set) var metadata = JSONObject()
  /// The tensors that are listed, but cannot be read: the first of them, and all names.
  private var refusal: CheckpointError?
  private var refused: [String] = []

  /// Keys under which training scripts keep a model's state dict, in order of preference; averaged copies last.
  static let wrappers = [
    "model", "module", "state_dict", "model_state_dict", "model_state", "net", "network", "weights", "params",
    "generator", "student", "teacher", "model_ema", "ema", "state_dict_ema", "ema_state_dict", "ema_model",
    "model_ema_state_dict", "params_ema",
  ]
  /// Keys under which training scripts keep what is no model.
  static let leftOut: Set<String> = [
    "optimizer", "optimizers", "optimizer_state_dict", "optimizer_states", "optim", "scaler", "grad_scaler",
    "loss_scaler",
    "amp", "lr_scheduler", "lr_schedulers", "scheduler", "scheduler_state_dict", "callbacks", "loops", "rng_state",
    "rng_states", "cuda_rng_state", "random_states",
  ]
  /// How deep dictionaries of tensors may nest.
  static let maximumDepth = 64

  init(arena: PickleArena, world: TorchWorld, path: String) {
    self.arena = arena
    self.world = world
    self.path = path
    containerWalks = [Int](repeating: 0, count: arena.containers.count)
    objectWalks = [Int](repeating: 0, count: arena.objects.count)
    var known: [String: Int] = [:]
    textIDs = arena.strings.map { text in
      if let id = known[text] { return id }
      known[text] = known.count
      return known.count - 1
    }
  }

  /// Every state dict in `root`, the default one first. Tensors that cannot be read are listed, unless there are no others.
  mutating func find(in root: PickleValue) throws(CheckpointError) -> [StateDict] {
    let found = try search(root)
    if let refusal {
      let count = found.reduce(0) { $0 + $1.tensors.count }
      guard refused.count < count else { throw refusal }
      let list = refused.prefix(5).joined(separator: ", ") + (refused.count > 5 ? ", …" : "")
      notes.append("\(refused.count) of \(count) tensors are listed but cannot be read: \(list)")
    }
    return found
  }

  private mutating func search(_ root: PickleValue) throws(CheckpointError) -> [StateDict] {
    guard let members = members(root) else {
      try addBare(root, members: [("tensor", root)])
      return stateDicts
    }
    let isSequence = arena.items(root, .sequence) != nil
    let wrapped = isSequence ? [] : try wrapped(members)
    let ranks = Dictionary(uniqueKeysWithValues: StateDictFinder.wrappers.enumerated().map { ($1, $0) })
    for member in wrapped.sorted(by: { ranks[$0.name, default: 0] < ranks[$1.name, default: 0] }) {
      let found = try collect([(name: "", value: member.value)])
      stateDicts.append(StateDict(name: member.name, tensors: found))
    }
    let wrapperNames = Set(wrapped.map(\.name))
    let rest = members.filter { !wrapperNames.contains($0.name) }
    var bare: [(name: String, value: PickleValue)] = []
    for member in rest where try isDirect(member, beside: wrapperNames) { bare.append(member) }
    try addBare(root, members: bare)
    let bareNames = Set(bare.map(\.name))
    for member in rest where !bareNames.contains(member.name) { try describe(member.name, member.value) }
    return stateDicts
  }

  /// Tensors that stand beside the wrappers, or all that there are if there is no wrapper.
  private mutating func addBare(
    _ root: PickleValue, members: [(name: String, value: PickleValue)]
  ) throws(CheckpointError) {
    let tensors = try collect(members, of: root)
    guard !tensors.isEmpty else { return }
    let position = stateDicts.firstIndex { ($0.name.contains("ema") || $0.name == "teacher") } ?? stateDicts.count
    stateDicts.insert(StateDict(name: "", tensors: tensors), at: position)
  }

  /// The members that are state dicts under a name that training scripts use.
  private mutating func wrapped(
    _ members: [(name: String, value: PickleValue)]
  ) throws(CheckpointError) -> [(name: String, value: PickleValue)] {
    var wrapped: [(name: String, value: PickleValue)] = []
    for member in members where StateDictFinder.wrappers.contains(member.name) {
      if case .tensor = member.value { continue }
      let count = try count(member.value)
      if count.tensors > 0 && count.tensors >= count.others { wrapped.append(member) }
    }
    return wrapped
  }

  private mutating func isDirect(
    _ member: (name: String, value: PickleValue), beside wrappers: Set<String>
  ) throws(CheckpointError) -> Bool {
    if case .tensor = member.value { return true }
    if !wrappers.isEmpty || StateDictFinder.leftOut.contains(member.name) { return false }
    return try count(member.value).tensors > 0
  }
}

// MARK: - Walking

extension StateDictFinder {
  /// The named parts of a value: a dict's entries, a list's elements, a module's parameters, an object's attributes.
  private func members(_ value: PickleValue) -> [(name: String, value: PickleValue)]? {
    switch value {
    case .container(let index):
      let container = arena.containers[index]
      switch container.kind {
      case .dict: return pairs(container.items)
      case .list, .tuple: return container.items.enumerated().map { (String($0), $1) }
      case .set: return nil
      }
    case .object(let index):
      let object = arena.objects[index]
      if object.hasKeys { return pairs(object.items) }
      if !object.items.isEmpty { return object.items.enumerated().map { (String($0), $1) } }
      return attributes(object.state)
    default: return nil
    }
  }

  private enum Key: Hashable {
    case text(Int)
    case number(Int)
  }

  private func pairs(_ items: [PickleValue]) -> [(name: String, value: PickleValue)] {
    var pairs: [(name: String, value: PickleValue)] = []
    var index: [Key: Int] = [:]
    for position in stride(from: 0, to: items.count - 1, by: 2) {
      let key: Key
      let name: String
      switch items[position] {
      case .string(let text): (key, name) = (.text(textIDs[text]), arena.strings[text])
      case .int(let number): (key, name) = (.number(number), String(number))
      default: continue
      }
      // As in Python, the last value of a key counts, at the place of its first.
      if let known = index[key] {
        pairs[known].value = items[position + 1]
      } else {
        index[key] = pairs.count
        pairs.append((name, items[position + 1]))
      }
    }
    return pairs
  }

  /// The attributes of an object, where a PyTorch module's own dictionaries are looked through.
  private func attributes(_ state: PickleValue) -> [(name: String, value: PickleValue)]? {
    guard let items = arena.items(state, .dict) else { return nil }
    let all = pairs(items)
    let registers = ["_parameters", "_buffers", "_modules"]
    guard all.contains(where: { $0.name == "_parameters" }) else { return all }
    return registers.flatMap { register in
      all.first { $0.name == register }.flatMap { members($0.value) } ?? []
    }
  }

  private enum Visit { case leaf, first, again }

  /// Whether this walk sees a value that has parts for the first time.
  private mutating func meet(_ value: PickleValue) -> Visit {
    switch value {
    case .container(let index):
      defer { containerWalks[index] = walk }
      return containerWalks[index] == walk ? .again : .first
    case .object(let index):
      defer { objectWalks[index] = walk }
      return objectWalks[index] == walk ? .again : .first
    default: return .leaf
    }
  }

  private mutating func visit(_ count: Int) throws(CheckpointError) {
    visits += count
    guard visits <= PickleLimits.maximumVisits else {
      throw CheckpointError(
        .overBudget, "the pickle's values refer to each other too often to be searched for tensors",
        remedy: "the file is not an ordinary checkpoint; do not trust it")
    }
  }

  /// How many tensors and other plain values there are in `value`.
  private mutating func count(
    _ value: PickleValue
  ) throws(CheckpointError) -> (tensors: Int, others: Int, bytes: Int) {
    var result = (tensors: 0, others: 0, bytes: 0)
    walk += 1
    var pending = [value]
    while let next = pending.popLast() {
      if case .tensor(let index) = next {
        result.tensors += 1
        if case .stored(let tensor) = world.tensors[index] {
          result.bytes = result.bytes.addingReportingOverflow(tensor.byteCount).partialValue
        }
        continue
      }
      switch meet(next) {
      case .again: break
      case .leaf: result.others += 1
      case .first:
        let parts = arena.items(next, .sequence) ?? (members(next) ?? []).map(\.value)
        try visit(1 + parts.count)
        pending += parts
      }
    }
    return result
  }

  /// All tensors in `members`, under dotted names, in file order.
  private mutating func collect(
    _ members: [(name: String, value: PickleValue)], of root: PickleValue? = nil
  ) throws(CheckpointError) -> [StoredTensor] {
    var tensors: [StoredTensor] = []
    var names: Set<[UInt8]> = []
    walk += 1
    if let root {
      _ = meet(root)
      if let key = duplicate(in: root) { throw duplicateName(key) }
    }
    var pending = members.reversed().map { (name: $0.name, value: $0.value, depth: 0) }
    var isTooDeep = false
    while let next = pending.popLast() {
      if case .tensor(let index) = next.value {
        try chargeName(next.name)
        guard names.insert(Array(next.name.utf8)).inserted else {
          throw duplicateName(next.name)
        }
        tensors.append(try tensor(index, named: next.name))
      } else if meet(next.value) == .first {
        guard next.depth < StateDictFinder.maximumDepth else {
          isTooDeep = true
          continue
        }
        let prefix = next.name.isEmpty ? "" : next.name + "."
        if let key = duplicate(in: next.value) { throw duplicateName(prefix + key) }
        for member in (self.members(next.value) ?? []).reversed() {
          let name = prefix + member.name
          try chargeName(name)
          pending.append((name, member.value, next.depth + 1))
        }
      }
    }
    if isTooDeep { notes.append("not looked at: what is nested deeper than \(StateDictFinder.maximumDepth) levels") }
    return tensors
  }

  private func duplicateName(_ name: String) -> CheckpointError {
    CheckpointError(
      .duplicateName, "two tensors have this name",
      remedy: "no tool can tell which is meant: save the state dict again from the model", tensor: name)
  }

  /// A key under which a dict holds two tensors. In Python the second would replace the first without a word.
  private func duplicate(in value: PickleValue) -> String? {
    guard let items = arena.items(value, .dict) else { return nil }
    var seen: Set<Int> = []
    for position in stride(from: 0, to: items.count - 1, by: 2) {
      guard case .string(let text) = items[position], case .tensor = items[position + 1] else { continue }
      if !seen.insert(textIDs[text]).inserted { return arena.strings[text] }
    }
    return nil
  }

  private mutating func chargeName(_ name: String) throws(CheckpointError) {
    namesLeft -= name.utf8.count
    guard namesLeft >= 0 else {
      throw CheckpointError(
        .overBudget, "the tensors' names take more than \(PickleLimits.maximumNames) bytes",
        remedy: "the file is not an ordinary checkpoint; do not trust it")
    }
  }

  private mutating func tensor(_ index: Int, named name: String) throws(CheckpointError) -> StoredTensor {
    switch world.tensors[index] {
    case .stored(var tensor):
      tensor.name = name
      return tensor
    case .unsupported(let tensor):
      let error = CheckpointError(
        .unsupported, "this is \(tensor.reason), which is not supported", remedy: tensor.remedy, file: path,
        tensor: name)
      guard let type = tensor.type else { throw error }
      refusal = refusal ?? error
      refused.append("\(name) (\(tensor.reason))")
      return StoredTensor(
        name: name, dtype: type.dtype, shape: type.shape, storage: RefusedStorage(type.shape, type.dtype, error))
    case .unfilledArray:
      throw CheckpointError(.malformed, "a NumPy array without its contents", tensor: name)
    }
  }
}

// MARK: - What is beside the tensors

extension StateDictFinder {
  private static let maximumJSONDepth = 32

  private mutating func describe(_ name: String, _ value: PickleValue) throws(CheckpointError) {
    let count = try count(value)
    if count.tensors > 0 {
      let noun = count.tensors == 1 ? "tensor" : "tensors"
      notes.append("left out: \(name) (\(count.tensors) \(noun), \(ByteText.size(count.bytes)))")
      return
    }
    if let json = json(value, depth: 0) { metadata[name] = json }
  }

  /// Plain data as JSON; nil for what is not plain. The recursion is bounded by `maximumJSONDepth`.
  private mutating func json(_ value: PickleValue, depth: Int) -> JSONValue? {
    metadataLeft -= 32 + (arena.text(value)?.utf8.count ?? 0)
    guard metadataLeft >= 0, depth < StateDictFinder.maximumJSONDepth else { return nil }
    switch value {
    case .none: return .null
    case .bool(let truth): return .bool(truth)
    case .int(let number): return .integer(number)
    case .real(let number): return .real(number)
    case .string(let index): return .string(arena.strings[index])
    case .global(let index): return .string(arena.globals[index].fullName)
    case .bigInt, .bytes, .storage, .tensor: return nil
    case .container(let index) where arena.containers[index].kind != .dict:
      var elements: [JSONValue] = []
      for item in arena.containers[index].items {
        guard metadataLeft >= 0 else { break }
        if let element = json(item, depth: depth + 1) { elements.append(element) }
      }
      return .array(elements)
    case .container, .object:
      guard let members = members(value) else {
        if case .object(let index) = value { return .string(arena.globals[arena.objects[index].callable].fullName) }
        return nil
      }
      metadataLeft -= members.count * 8
      var object = JSONObject()
      for member in members {
        metadataLeft -= member.name.utf8.count
        guard metadataLeft >= 0 else { break }
        object[member.name] = json(member.value, depth: depth + 1)
      }
      return .object(object)
    }
  }
}

/// Stands for the bytes of a tensor that cannot be read.
private final class RefusedStorage: TensorStorage {
  let byteCount: Int
  private let error: TensorError

  init(_ shape: Shape, _ dtype: DType, _ error: CheckpointError) {
    byteCount = shape.byteCount(of: dtype) ?? 0
    self.error = TensorError(.unsupported, error.diagnosis)
  }

  func load() throws(TensorError) -> TensorBytes { throw error }
  func load(in range: Range<Int>) throws(TensorError) -> TensorBytes { throw error }
  func discard() {}
}

/// Sizes for people.
enum ByteText {
  /// `24 bytes`, `4.1 MB`.
  static func size(_ bytes: Int) -> String {
    if bytes < 1000 { return "\(bytes) bytes" }
    var value = Double(bytes)
    var unit = "bytes"
    for next in ["kB", "MB", "GB", "TB"] where value >= 1000 {
      value /= 1000
      unit = next
    }
    return "\((value * 10).rounded() / 10) \(unit)"
  }
}
