import MultiwayCore

/// PyTorch's rebuild functions: what they would make, as descriptions of tensors.
extension TorchWorld {
  /// The value of a function of `torch._utils`; nil for one that is not known.
  mutating func rebuild(
    _ name: String, _ items: [PickleValue], in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue? {
    switch name {
    case "_rebuild_tensor", "_rebuild_tensor_v2":
      return try rebuildTensor(items, dtype: nil, metadata: items.count > 6 ? items[6] : .none, in: &arena)
    case "_rebuild_tensor_v3":
      guard items.count >= 7, let global = arena.global(items[6]) else { throw odd(name) }
      guard let dtype = TorchTypes.dtype(global) else {
        return try add(.unsupported("a tensor of \(global.fullName)"), in: &arena)
      }
      return try rebuildTensor(items, dtype: dtype, metadata: items.count > 7 ? items[7] : .none, in: &arena)
    case "_rebuild_parameter", "_rebuild_parameter_with_state":
      guard let first = items.first, case .tensor = first else { throw odd(name) }
      return first
    case "_rebuild_qtensor":
      try checkQuantized(items, in: arena)
      return try add(.unsupported("a quantized tensor, which is not supported yet"), in: &arena)
    case "_rebuild_sparse_tensor":
      return try add(.unsupported("a sparse tensor, which is not supported"), in: &arena)
    case "_rebuild_meta_tensor_no_storage", "_rebuild_wrapper_subclass":
      return try add(.unsupported("a tensor without bytes (saved from the 'meta' device)"), in: &arena)
    case "_rebuild_device_tensor_from_numpy", "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_xla_tensor":
      guard let first = items.first, case .tensor = first else { throw odd(name) }
      return first
    default: return nil
    }
  }

  /// A tensor of a subclass: built by the function that is named first.
  mutating func rebuildFromType(
    _ items: [PickleValue], in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue {
    guard items.count >= 3, let function = arena.global(items[0]), function.module == "torch._utils",
      let arguments = arena.tuple(items[2]), let value = try rebuild(function.name, arguments, in: &arena)
    else { throw odd("_rebuild_from_type_v2") }
    if let type = arena.global(items[1]), !type.fullName.hasPrefix("torch.") { record(opaque: type.fullName) }
    return value
  }

  private func odd(_ name: String) -> CheckpointError {
    CheckpointError(.malformed, "pickle: the arguments of \(name) are odd")
  }

  private mutating func rebuildTensor(
    _ items: [PickleValue], dtype explicit: DType?, metadata: PickleValue, in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue {
    let view = try View(items, in: arena, storages: storages)
    if view.storage.type.isQuantized {
      return try add(.unsupported("a tensor of quantized integers without a scale"), in: &arena)
    }
    guard let dtype = explicit ?? view.storage.type.dtype else {
      throw CheckpointError(.malformed, "a tensor of untyped bytes without a dtype")
    }
    if let flags = arena.items(metadata, .dict), flags.contains(.bool(true)) {
      return try add(.unsupported("a lazily conjugated or negated view, which is not supported"), in: &arena)
    }
    try view.check(dtype)
    return try add(
      .stored(
        StoredTensor(
          name: "", dtype: dtype, shape: view.shape, strides: view.strides, elementOffset: view.offset,
          storage: view.storage.storage, isBigEndian: isBigEndian && dtype.swapWidth > 1)), in: &arena)
  }

  private func checkQuantized(_ items: [PickleValue], in arena: PickleArena) throws(CheckpointError) {
    let view = try View(items, in: arena, storages: storages)
    if let dtype = view.storage.type.dtype { try view.check(dtype) }
    guard items.count > 4, arena.tuple(items[4]) != nil else { throw odd("_rebuild_qtensor") }
  }

  /// The part of a storage that a tensor shows: storage, offset, size and stride, in elements.
  private struct View {
    var storage: TorchStorage
    var offset: Int
    var shape: Shape
    var strides: [Int]

    init(_ items: [PickleValue], in arena: PickleArena, storages: [TorchStorage]) throws(CheckpointError) {
      guard items.count >= 4, case .storage(let index) = items[0], case .int(let offset) = items[1], offset >= 0,
        let sizes = arena.integers(items[2]), let strides = arena.integers(items[3])
      else {
        throw CheckpointError(
          .malformed, "a tensor whose storage, offset, size or stride is odd",
          expected: "a storage, an integer, and two tuples of at most \(PickleLimits.maximumRank) integers")
      }
      guard sizes.count == strides.count, !strides.contains(where: { $0 < 0 }),
        let shape = Shape(checking: sizes)
      else {
        throw CheckpointError(
          .malformed, "a tensor of size \(sizes.prefix(8)) and stride \(strides.prefix(8))",
          expected: "as many of the one as of the other, none negative, and fewer than 2^63 elements")
      }
      storage = storages[index]
      self.offset = offset
      self.shape = shape
      self.strides = strides
    }

    /// Refuses a view that leaves its storage.
    func check(_ dtype: DType) throws(CheckpointError) {
      guard let width = dtype.byteWidth, shape.byteCount(of: dtype) != nil else {
        throw CheckpointError(.malformed, "a tensor of shape \(shape) has more than 2^63 bytes")
      }
      if shape.elementCount == 0 { return }
      var last = offset
      for (size, stride) in zip(shape.dimensions, strides) {
        let (reach, overflow) = (size - 1).multipliedReportingOverflow(by: stride)
        let (sum, overflow2) = last.addingReportingOverflow(reach)
        last = overflow || overflow2 ? Int.max : sum
        if last == Int.max { break }
      }
      guard last < storage.byteCount / width else {
        throw CheckpointError(
          .sizeMismatch, "a tensor of shape \(shape), strides \(strides) at element \(offset) leaves its storage",
          expected: "at most \(storage.byteCount / width) elements")
      }
    }
  }
}
