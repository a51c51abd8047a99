import MultiwayCore

extension TorchWorld {
  mutating func call(
    _ callable: Int, _ arguments: PickleValue, isConstructor: Bool, in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue {
    let global = arena.globals[callable]
    let items = arena.tuple(arguments) ?? []
    switch global.module {
    case "torch._utils":
      if let tensor = try rebuild(global.name, items, in: &arena) { return tensor }
    case "torch._tensor" where global.name == "_rebuild_from_type_v2":
      return try rebuildFromType(items, in: &arena)
    case "torch.storage" where global.name == "_load_from_bytes" && source.readNested != nil:
      return try nestedStorage(items, in: &arena)
    case "torch", "torch.nn.parameter", "torch.serialization", "torch.jit._pickle":
      if let value = torchValue(global, items) { return value }
    case "collections", "builtins", "_codecs", "copyreg":
      if let value = try pythonValue(global, items, in: &arena) { return value }
    case "numpy.core.multiarray", "numpy.core.numeric":
      if let value = try numpyValue(global, items, in: &arena) { return value }
    default: break
    }
    try PicklePolicy.checkCall(global, isConstructor: isConstructor)
    if global.fullName != "numpy.dtype" { record(opaque: global.fullName) }
    return try arena.object(PickleObject(callable: callable, arguments: arguments))
  }

  /// The storage in bytes that are a file of the format before 1.6 themselves, as `pickle.dump` writes tensors.
  private mutating func nestedStorage(
    _ items: [PickleValue], in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue {
    guard let first = items.first, items.count == 1, let blob = arena.blob(first), let read = source.readNested else {
      throw CheckpointError(.malformed, "a storage of what is not bytes")
    }
    return .storage(try add(try read(blob), in: &arena))
  }

  /// Calls of `torch` that are their own argument.
  private func torchValue(_ global: PickleGlobal, _ items: [PickleValue]) -> PickleValue? {
    switch global.fullName {
    case "torch.Size", "torch.device", "torch.serialization._get_layout", "torch.nn.parameter.Parameter",
      "torch.nn.parameter.Buffer", "torch.jit._pickle.build_intlist", "torch.jit._pickle.build_doublelist",
      "torch.jit._pickle.build_boollist", "torch.jit._pickle.build_tensorlist", "torch.jit._pickle.restore_type_tag":
      items.first
    default: nil
    }
  }

  private func pythonValue(
    _ global: PickleGlobal, _ items: [PickleValue], in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue? {
    switch global.fullName {
    case "collections.OrderedDict", "collections.Counter", "builtins.dict":
      return try arena.container(.dict, try pairs(items.first, in: arena))
    case "collections.defaultdict":
      return try arena.container(.dict, try pairs(items.dropFirst().first, in: arena))
    case "builtins.list", "builtins.tuple", "builtins.set", "builtins.frozenset":
      let kind: PickleContainer.Kind =
        global.name == "list" ? .list : global.name == "tuple" ? .tuple : .set
      return try arena.container(kind, items.first.flatMap { arena.items($0, [.tuple, .list, .set]) } ?? [])
    case "builtins.bytes", "builtins.bytearray":
      if let first = items.first, case .int = first { return nil }
      return items.isEmpty ? .bytes(blob: try arena.blob([])) : try latin1(items, in: &arena)
    case "_codecs.encode": return try latin1(items, in: &arena)
    case "copyreg._reconstructor":
      guard items.count == 3, case .global(let index) = items[0] else {
        throw CheckpointError(.malformed, "pickle: copyreg._reconstructor without a class")
      }
      return try arena.object(PickleObject(callable: index, arguments: items[2]))
    default: return nil
    }
  }

  /// The keys and values of a dict, or of a list of pairs.
  private func pairs(_ value: PickleValue?, in arena: PickleArena) throws(CheckpointError) -> [PickleValue] {
    guard let value, value != .none else { return [] }
    if let items = arena.items(value, .dict) { return items }
    guard let items = arena.items(value, .sequence) else {
      throw CheckpointError(.malformed, "pickle: a dict is made of \(arena.kind(value))")
    }
    var pairs: [PickleValue] = []
    for item in items {
      guard let pair = arena.items(item, .sequence), pair.count == 2 else {
        throw CheckpointError(.malformed, "pickle: a dict is made of what are not pairs")
      }
      pairs += pair
    }
    return pairs
  }

  /// Bytes as protocol 2 spells them: a string of characters below 256, and the name of the encoding.
  private func latin1(
    _ items: [PickleValue], in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue {
    guard let first = items.first else { throw CheckpointError(.malformed, "pickle: bytes of nothing") }
    if case .bytes = first { return first }
    let encoding = items.count > 1 ? arena.text(items[1]) : nil
    guard let text = arena.text(first), encoding == "latin1" || encoding == "latin-1" else {
      throw CheckpointError(.malformed, "pickle: bytes of \(arena.kind(first)) in an unknown encoding")
    }
    var bytes: [UInt8] = []
    for scalar in text.unicodeScalars {
      guard let byte = UInt8(exactly: scalar.value) else {
        throw CheckpointError(.malformed, "pickle: bytes with a character above 255")
      }
      bytes.append(byte)
    }
    return .bytes(blob: try arena.blob(bytes))
  }
}

// MARK: - NumPy

extension TorchWorld {
  private mutating func numpyValue(
    _ global: PickleGlobal, _ items: [PickleValue], in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue? {
    switch global.name {
    case "_reconstruct": return try add(.unfilledArray, in: &arena)
    case "_frombuffer":
      guard items.count == 4, let dimensions = arena.integers(items[2]) else {
        throw CheckpointError(.malformed, "a NumPy array whose arguments are odd")
      }
      let isFortran = arena.text(items[3]) == "F"
      return try add(
        numpyArray(dimensions, dtype: items[1], isFortran: isFortran, bytes: items[0], in: arena), in: &arena)
    case "scalar":
      guard items.count == 2, let (dtype, isBig) = numpyDType(items[0], in: arena), let bytes = arena.bytes(items[1]),
        bytes.count == dtype.byteWidth, let value = scalar(isBig ? bytes.reversed() : bytes, dtype)
      else { return nil }
      return value
    default: return nil
    }
  }

  /// A scalar's value from its little-endian bytes.
  private func scalar(_ bytes: [UInt8], _ dtype: DType) -> PickleValue? {
    var bits: UInt64 = 0
    for byte in bytes.prefix(8).reversed() { bits = bits << 8 | UInt64(byte) }
    switch dtype {
    case .f64: return .real(Double(bitPattern: bits))
    case .f32: return .real(Double(Float(bitPattern: UInt32(truncatingIfNeeded: bits))))
    case .f16: return .real(Double(HalfPrecision.float(fromF16: UInt16(truncatingIfNeeded: bits))))
    case .bool: return .bool(bits != 0)
    case .i8: return .int(Int(Int8(truncatingIfNeeded: bits)))
    case .i16: return .int(Int(Int16(truncatingIfNeeded: bits)))
    case .i32: return .int(Int(Int32(truncatingIfNeeded: bits)))
    case .i64: return .int(Int(Int64(truncatingIfNeeded: bits)))
    case .u8, .u16, .u32, .u64: return Int(exactly: bits).map { .int($0) }
    default: return nil
    }
  }

  /// The dtype that `numpy.dtype('f4', False, True)` and its BUILD describe, and whether it is big-endian.
  private func numpyDType(_ value: PickleValue, in arena: PickleArena) -> (DType, Bool)? {
    guard case .object(let index) = value else { return nil }
    let object = arena.objects[index]
    guard arena.globals[object.callable].fullName == "numpy.dtype",
      let code = arena.tuple(object.arguments)?.first.flatMap({ arena.text($0) }),
      let dtype = TorchTypes.numpyDType(code)
    else { return nil }
    let order = arena.tuple(object.state)?.dropFirst().first.flatMap { arena.text($0) }
    return (dtype, order == ">" || code.hasPrefix(">"))
  }

  /// A NumPy array as a tensor in memory.
  func numpyArray(
    _ dimensions: [Int], dtype: PickleValue, isFortran: Bool, bytes: PickleValue, in arena: PickleArena
  ) -> TorchTensor {
    guard let (dtype, isBig) = numpyDType(dtype, in: arena), let blob = arena.blob(bytes) else {
      return .unsupported(
        UnreadableTensor(
          reason: "a NumPy array of objects or of a structured type",
          remedy: "store plain arrays of one of " + TorchTypes.numpyNames.joined(separator: ", ")))
    }
    guard let shape = Shape(checking: dimensions), shape.byteCount(of: dtype) == blob.byteCount else {
      return .unsupported(
        UnreadableTensor(
          reason: "a NumPy array whose bytes do not fill its shape", remedy: "the file is damaged: fetch it again"))
    }
    let storage: any TensorStorage =
      switch blob {
      case .bytes(let bytes): MemoryStorage(TensorBytes(copying: bytes))
      case .place(let slice): FileRange(file: slice, range: 0..<slice.byteCount)
      }
    return .stored(NumPyArray.tensor(dtype, shape, isFortran: isFortran, isBigEndian: isBig, storage: storage))
  }
}
