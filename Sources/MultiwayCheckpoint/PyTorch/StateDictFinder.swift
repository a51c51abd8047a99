import MultiwayCore

/// Finds the dictionaries of tensors in what a pickle describes, and the plain data beside them.
struct StateDictFinder {
  let arena: PickleArena
  let world: TorchWorld
  private(set) var notes: [String] = []
  private var stateDicts: [StateDict] = []
  private(set) var metadata = JSONObject()

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

  init(arena: PickleArena, world: TorchWorld) {
    self.arena = arena
    self.world = world
  }

  /// Every state dict in `root`, the default one first.
  mutating func find(in root: PickleValue) throws(CheckpointError) -> [StateDict] {
    guard let members = members(root) else {
      try addBare(root, members: [("tensor", root)])
      return stateDicts
    }
    let isSequence = arena.items(root, .list, .tuple) != nil
    let wrapped =
      isSequence ? [] : members.filter { StateDictFinder.wrappers.contains($0.name) && isMostlyTensors($0.value) }
    let ranks = Dictionary(uniqueKeysWithValues: StateDictFinder.wrappers.enumerated().map { ($1, $0) })
    for member in wrapped.sorted(by: { ranks[$0.name, default: 0] < ranks[$1.name, default: 0] }) {
      let found = try collect([(name: "", value: member.value)])
      stateDicts.append(StateDict(name: member.name, tensors: found))
    }
    let wrapperNames = Set(wrapped.map(\.name))
    let rest = members.filter { !wrapperNames.contains($0.name) }
    let bare = rest.filter { isDirect($0, beside: wrapperNames) }
    try addBare(root, members: bare)
    let bareNames = Set(bare.map(\.name))
    for member in rest where !bareNames.contains(member.name) { describe(member.name, member.value) }
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

  private func isDirect(_ member: (name: String, value: PickleValue), beside wrappers: Set<String>) -> Bool {
    if case .tensor = member.value { return true }
    if !wrappers.isEmpty || StateDictFinder.leftOut.contains(member.name) { return false }
    return count(member.value).tensors > 0
  }

  private func isMostlyTensors(_ value: PickleValue) -> Bool {
    if case .tensor = value { return false }
    let count = count(value)
    return count.tensors > 0 && count.tensors >= count.others
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

  private func pairs(_ items: [PickleValue]) -> [(name: String, value: PickleValue)] {
    var pairs: [(name: String, value: PickleValue)] = []
    var index: [String: Int] = [:]
    for position in stride(from: 0, to: items.count - 1, by: 2) {
      let name: String
      switch items[position] {
      case .string(let text): name = arena.strings[text]
      case .int(let number): name = String(number)
      default: continue
      }
      // As in Python, the last value of a key counts, at the place of its first.
      if let known = index[name] {
        pairs[known].value = items[position + 1]
      } else {
        index[name] = pairs.count
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

  /// Names what is already visited, so that shared and circular structures are walked once.
  private func identity(_ value: PickleValue) -> PickleValue? {
    switch value {
    case .container, .object: value
    default: nil
    }
  }

  /// How many tensors and other plain values there are in `value`.
  private func count(_ value: PickleValue) -> (tensors: Int, others: Int, bytes: Int) {
    var result = (tensors: 0, others: 0, bytes: 0)
    var visited: Set<PickleValue> = []
    var pending = [value]
    while let next = pending.popLast() {
      if case .tensor(let index) = next {
        result.tensors += 1
        if case .stored(let tensor) = world.tensors[index] {
          result.bytes = result.bytes.addingReportingOverflow(tensor.byteCount).partialValue
        }
      } else if let identity = identity(next) {
        guard visited.insert(identity).inserted else { continue }
        pending += (members(next) ?? []).map(\.value)
      } else {
        result.others += 1
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
    var visited: Set<PickleValue> = root.map { [$0] } ?? []
    var pending = members.reversed().map { (name: $0.name, value: $0.value, depth: 0) }
    var isTooDeep = false
    while let next = pending.popLast() {
      if case .tensor(let index) = next.value {
        guard names.insert(Array(next.name.utf8)).inserted else {
          throw CheckpointError(.duplicateName, "two tensors have this name", tensor: next.name)
        }
        tensors.append(try tensor(index, named: next.name))
      } else if let identity = identity(next.value) {
        guard visited.insert(identity).inserted else { continue }
        guard next.depth < StateDictFinder.maximumDepth else {
          isTooDeep = true
          continue
        }
        let prefix = next.name.isEmpty ? "" : next.name + "."
        for member in (self.members(next.value) ?? []).reversed() {
          pending.append((prefix + member.name, member.value, next.depth + 1))
        }
      }
    }
    if isTooDeep { notes.append("not looked at: what is nested deeper than \(StateDictFinder.maximumDepth) levels") }
    return tensors
  }

  private func tensor(_ index: Int, named name: String) throws(CheckpointError) -> StoredTensor {
    switch world.tensors[index] {
    case .stored(var tensor):
      tensor.name = name
      return tensor
    case .unsupported(let reason):
      throw CheckpointError(
        .unsupported, "this is \(reason)", remedy: "save the model again with ordinary dense tensors", tensor: name)
    case .unfilledArray:
      throw CheckpointError(.malformed, "a NumPy array without its contents", tensor: name)
    }
  }
}

// MARK: - What is beside the tensors

extension StateDictFinder {
  private static let maximumJSONDepth = 32
  private static let maximumJSONValues = 20_000

  private mutating func describe(_ name: String, _ value: PickleValue) {
    let count = count(value)
    if count.tensors > 0 {
      let noun = count.tensors == 1 ? "tensor" : "tensors"
      notes.append("left out: \(name) (\(count.tensors) \(noun), \(ByteText.size(count.bytes)))")
      return
    }
    var budget = StateDictFinder.maximumJSONValues
    if let json = json(value, depth: 0, budget: &budget) { metadata[name] = json }
  }

  /// Plain data as JSON; nil for what is not plain. The recursion is bounded by `maximumJSONDepth`.
  private func json(_ value: PickleValue, depth: Int, budget: inout Int) -> JSONValue? {
    budget -= 1
    guard budget >= 0, depth < StateDictFinder.maximumJSONDepth else { return nil }
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
        guard let element = json(item, depth: depth + 1, budget: &budget) else { continue }
        elements.append(element)
      }
      return .array(elements)
    case .container, .object:
      guard let members = members(value) else {
        if case .object(let index) = value { return .string(arena.globals[arena.objects[index].callable].fullName) }
        return nil
      }
      var object = JSONObject()
      for member in members { object[member.name] = json(member.value, depth: depth + 1, budget: &budget) }
      return .object(object)
    }
  }
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
