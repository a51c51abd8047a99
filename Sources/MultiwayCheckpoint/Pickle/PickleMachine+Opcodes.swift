import MultiwayCore

extension PickleMachine {
  /// Executes one opcode. The groups follow the list in Python's `pickletools`.
  mutating func execute(_ opcode: UInt8) throws(CheckpointError) {
    switch opcode {
    case 0x4E, 0x4A, 0x4B, 0x4D, 0x47, 0x49, 0x4C, 0x46, 0x88...0x8B: try executeConstant(opcode)
    case 0x58, 0x8C...0x8E, 0x55, 0x54, 0x53, 0x56, 0x43, 0x42, 0x96: try executeText(opcode)
    case 0x28, 0x30...0x32, 0x67, 0x68, 0x6A, 0x70...0x72, 0x94: try executeStack(opcode)
    case 0x29, 0x5D, 0x7D, 0x8F, 0x74, 0x6C, 0x91, 0x64, 0x85...0x87, 0x61, 0x65, 0x90, 0x73, 0x75:
      try executeContainer(opcode)
    case 0x63, 0x93, 0x50, 0x51, 0x52, 0x81, 0x92, 0x69, 0x6F, 0x62: try executeCall(opcode)
    case 0x80:
      let version = try number(UInt8.self)
      guard version <= 5 else { throw fault(.unsupported, "protocol \(version)", expected: "0 to 5") }
    case 0x95:
      let size = try number(UInt64.self)
      guard size <= UInt64(reader.remaining) else {
        throw fault(.truncated, "a frame of \(size) bytes", expected: "at most \(reader.remaining), which are left")
      }
    case 0x98: _ = try top()
    case 0x97: throw fault(.unsupported, "an out-of-band buffer (NEXT_BUFFER)")
    case 0x82, 0x83, 0x84: throw fault(.unsupported, "an extension registry code (EXT)")
    default: throw fault(.malformed, "unknown opcode 0x\(String(opcode, radix: 16))")
    }
  }

  /// Numbers, None and truth values.
  private mutating func executeConstant(_ opcode: UInt8) throws(CheckpointError) {
    switch opcode {
    case UInt8(ascii: "N"): try push(.none)
    case 0x88: try push(.bool(true))
    case 0x89: try push(.bool(false))
    case UInt8(ascii: "J"): try push(.int(Int(try number(Int32.self))))
    case UInt8(ascii: "K"): try push(.int(Int(try number(UInt8.self))))
    case UInt8(ascii: "M"): try push(.int(Int(try number(UInt16.self))))
    case UInt8(ascii: "G"): try push(.real(Double(bitPattern: try number(UInt64.self).byteSwapped)))
    case UInt8(ascii: "I"), UInt8(ascii: "L"):
      try push(try textInteger(try line(), isLong: opcode == UInt8(ascii: "L")))
    case UInt8(ascii: "F"): try push(try textReal(try line()))
    case 0x8A: try push(try integer(try bytes(counted: UInt8.self)))
    case 0x8B:
      let count = try number(Int32.self)
      guard count >= 0 else { throw fault(.malformed, "an integer of \(count) bytes") }
      guard count <= 1024 else { throw fault(.overBudget, "an integer of \(count) bytes", expected: "at most 1024") }
      guard let bytes = try reader.readBytes(Int(count)) else {
        throw fault(.truncated, "the pickle ends in an integer")
      }
      try push(try integer(bytes))
    default: break
    }
  }

  /// Strings and bytes.
  private mutating func executeText(_ opcode: UInt8) throws(CheckpointError) {
    switch opcode {
    case UInt8(ascii: "X"): try push(try arena.string(try utf8(try bytes(counted: UInt32.self))))
    case 0x8C: try push(try arena.string(try utf8(try bytes(counted: UInt8.self))))
    case 0x8D: try push(try arena.string(try utf8(try bytes(counted: UInt64.self))))
    case UInt8(ascii: "U"): try push(try python2String(try bytes(counted: UInt8.self)))
    case UInt8(ascii: "T"): try push(try python2String(try bytes(counted: Int32.self)))
    case UInt8(ascii: "S"): try push(try python2String(try PickleText.unquoted(try line())))
    case UInt8(ascii: "V"): try push(try arena.string(try PickleText.rawUnicode(try line())))
    case UInt8(ascii: "C"): try push(.bytes(blob: try arena.blob(try bytes(counted: UInt8.self))))
    case UInt8(ascii: "B"): try push(try blob(counted: UInt32.self))
    case 0x8E, 0x96: try push(try blob(counted: UInt64.self))
    default: break
    }
  }

  /// The stack itself and the memo.
  private mutating func executeStack(_ opcode: UInt8) throws(CheckpointError) {
    switch opcode {
    case UInt8(ascii: "("): try mark()
    case UInt8(ascii: "0"):
      if let mark = marks.last, mark == stack.count {
        marks.removeLast()
      } else {
        _ = try pop()
      }
    case UInt8(ascii: "1"): _ = try popToMark()
    case UInt8(ascii: "2"): try push(try top())
    case UInt8(ascii: "g"): try recall(try memoKey(try line()))
    case UInt8(ascii: "h"): try recall(Int(try number(UInt8.self)))
    case UInt8(ascii: "j"): try recall(Int(try number(UInt32.self)))
    case UInt8(ascii: "p"): try remember(try top(), as: try memoKey(try line()))
    case UInt8(ascii: "q"): try remember(try top(), as: Int(try number(UInt8.self)))
    case UInt8(ascii: "r"): try remember(try top(), as: Int(try number(UInt32.self)))
    case 0x94: try remember(try top(), as: memo.count)
    default: break
    }
  }

  /// Tuples, lists, dicts and sets.
  private mutating func executeContainer(_ opcode: UInt8) throws(CheckpointError) {
    switch opcode {
    case UInt8(ascii: ")"): try push(try arena.container(.tuple))
    case UInt8(ascii: "]"): try push(try arena.container(.list))
    case UInt8(ascii: "}"): try push(try arena.container(.dict))
    case 0x8F: try push(try arena.container(.set))
    case UInt8(ascii: "t"): try push(try arena.container(.tuple, try popToMark()))
    case UInt8(ascii: "l"): try push(try arena.container(.list, try popToMark()))
    case 0x91: try push(try arena.container(.set, try popToMark()))
    case UInt8(ascii: "d"):
      let items = try popToMark()
      guard items.count % 2 == 0 else { throw fault(.malformed, "a dict with a key that has no value") }
      try push(try arena.container(.dict, items))
    case 0x85...0x87:
      var items: [PickleValue] = []
      for _ in 0x84..<opcode { items.append(try pop()) }
      try push(try arena.container(.tuple, items.reversed()))
    case UInt8(ascii: "a"):
      let item = try pop()
      try append(CollectionOfOne(item), to: try top(), kind: .list)
    case UInt8(ascii: "e"):
      let items = try popToMark()
      try append(items, to: try top(), kind: .list)
    case 0x90:
      let items = try popToMark()
      try append(items, to: try top(), kind: .set)
    case UInt8(ascii: "s"):
      let value = try pop()
      let key = try pop()
      try append([key, value], to: try top(), kind: .dict)
    case UInt8(ascii: "u"):
      let items = try popToMark()
      guard items.count % 2 == 0 else { throw fault(.malformed, "a dict with a key that has no value") }
      try append(items, to: try top(), kind: .dict)
    default: break
    }
  }

  private mutating func append(
    _ items: some Collection<PickleValue>, to target: PickleValue, kind: PickleContainer.Kind
  ) throws(CheckpointError) {
    switch target {
    case .container(let index) where arena.containers[index].kind == kind: try arena.append(items, to: index)
    case .object(let index):
      try arena.charge(items.count * 32)
      arena.objects[index].items.append(contentsOf: items)
      arena.objects[index].hasKeys = kind == .dict
    default: throw fault(.malformed, "items of a \(kind) are given to \(arena.kind(target))")
    }
  }

  /// Names, ids and what stands for calls.
  private mutating func executeCall(_ opcode: UInt8) throws(CheckpointError) {
    switch opcode {
    case UInt8(ascii: "c"):
      let module = try utf8(try line())
      try push(try global(module, try utf8(try line())))
    case 0x93:
      guard let name = arena.text(try pop()), let module = arena.text(try pop()) else {
        throw fault(.malformed, "a name that is not made of two strings")
      }
      try push(try global(module, name))
    case UInt8(ascii: "P"):
      let id = try arena.string(try utf8(try line()))
      try push(try world.persistent(id, in: &arena))
    case UInt8(ascii: "Q"): try push(try world.persistent(try pop(), in: &arena))
    case UInt8(ascii: "R"):
      let arguments = try pop()
      try call(try pop(), arguments, isConstructor: false)
    case 0x81:
      let arguments = try pop()
      try call(try pop(), arguments, isConstructor: true)
    case 0x92:
      _ = try pop()
      let arguments = try pop()
      try call(try pop(), arguments, isConstructor: true)
    case UInt8(ascii: "i"):
      let module = try utf8(try line())
      let callable = try global(module, try utf8(try line()))
      let arguments = try arena.container(.tuple, try popToMark())
      try call(callable, arguments, isConstructor: true)
    case UInt8(ascii: "o"):
      let items = try popToMark()
      guard let callable = items.first else { throw fault(.malformed, "an object without its class") }
      try call(callable, try arena.container(.tuple, Array(items.dropFirst())), isConstructor: true)
    case UInt8(ascii: "b"):
      let state = try pop()
      try build(try top(), state: state)
    default: break
    }
  }

  private mutating func global(_ module: String, _ name: String) throws(CheckpointError) -> PickleValue {
    guard module.utf8.count <= PickleLimits.maximumNameSize, name.utf8.count <= PickleLimits.maximumNameSize else {
      throw fault(.overBudget, "a name of \(module.utf8.count) and \(name.utf8.count) bytes")
    }
    let global = PickleGlobal(module: module, name: name)
    try world.check(global)
    return .global(try arena.global(global))
  }

  private mutating func call(
    _ callable: PickleValue, _ arguments: PickleValue, isConstructor: Bool
  ) throws(CheckpointError) {
    guard case .global(let index) = callable else {
      throw fault(.malformed, "\(arena.kind(callable)) is called", expected: "a name of a class or function")
    }
    guard arena.tuple(arguments) != nil else {
      throw fault(.malformed, "the arguments of a call are \(arena.kind(arguments))", expected: "a tuple")
    }
    try push(try world.call(index, arguments, isConstructor: isConstructor, in: &arena))
  }

  private mutating func build(_ target: PickleValue, state: PickleValue) throws(CheckpointError) {
    switch target {
    case .tensor(let index): try world.build(tensor: index, state: state, in: &arena)
    case .object(let index): arena.objects[index].state = state
    case .container(let index) where arena.containers[index].kind == .dict: break
    default: throw fault(.malformed, "a state is given to \(arena.kind(target))")
    }
  }
}
