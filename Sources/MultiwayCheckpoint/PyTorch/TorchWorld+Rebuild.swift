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
        return try add(
          .unsupported(
            UnreadableTensor(
              reason: "a tensor of \(global.fullName)",
              remedy: "save it as one of torch." + TorchTypes.dtypeNames.joined(separator: ", "))), in: &arena)
      }
      return try rebuildTensor(items, dtype: dtype, metadata: items.count > 7 ? items[7] : .none, in: &arena)
    case "_rebuild_parameter", "_rebuild_parameter_with_state":
      guard let first = items.first, case .tensor = first else { throw odd(name) }
      return first
    case "_rebuild_qtensor": return try rebuildQuantized(items, in: &arena)
    case "_rebuild_sparse_tensor": return try add(sparse(items, in: arena), in: &arena)
    case "_rebuild_meta_tensor_no_storage", "_rebuild_wrapper_subclass":
      let start = name == "_rebuild_wrapper_subclass" ? 1 : 0
      let remedy = "load the model with its weights and save it from a device that holds them"
      return try add(
        .unsupported(
          UnreadableTensor(
            reason: "a tensor without bytes (saved from the 'meta' device, or of a subclass that hides them)",
            remedy: remedy, type: type(items.dropFirst(start).first, items.dropFirst(start + 1).first, in: arena))),
        in: &arena)
    case "_rebuild_nested_tensor":
      return try add(
        .unsupported(
          UnreadableTensor(reason: "a nested tensor", remedy: "save its parts (tensor.unbind()) or a padded tensor")),
        in: &arena)
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

  /// The dtype and shape that two values name.
  private func type(
    _ dtype: PickleValue?, _ size: PickleValue?, in arena: PickleArena
  ) -> (dtype: DType, shape: Shape)? {
    guard let dtype = dtype.flatMap({ arena.global($0) }).flatMap({ TorchTypes.dtype($0) }),
      let shape = size.flatMap({ arena.integers($0) }).flatMap({ Shape(checking: $0) }),
      shape.byteCount(of: dtype) != nil
    else { return nil }
    return (dtype, shape)
  }

  /// A sparse tensor: `(layout, (indices, values, size, …))`, or `(layout, (rows, columns, values, size))`.
  private func sparse(_ items: [PickleValue], in arena: PickleArena) -> TorchTensor {
    let parts = items.dropFirst().first.flatMap { arena.tuple($0) } ?? []
    let sizes = parts.compactMap { arena.integers($0) }.compactMap { Shape(checking: $0) }
    let dtypes = parts.compactMap { part -> DType? in
      guard case .tensor(let index) = part, case .stored(let tensor) = tensors[index] else { return nil }
      return tensor.dtype
    }
    var type: (dtype: DType, shape: Shape)?
    if let dtype = dtypes.last, let shape = sizes.last, shape.byteCount(of: dtype) != nil { type = (dtype, shape) }
    return .unsupported(
      UnreadableTensor(
        reason: "a sparse tensor", remedy: "save it as an ordinary one: tensor.to_dense()", type: type))
  }

  func odd(_ name: String) -> CheckpointError {
    CheckpointError(.malformed, "pickle: the arguments of \(name) are odd")
  }

  private mutating func rebuildTensor(
    _ items: [PickleValue], dtype explicit: DType?, metadata: PickleValue, in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue {
    let view = try View(items, in: arena, storages: storages)
    if view.storage.type.isQuantized {
      return try add(
        .unsupported(
          UnreadableTensor(
            reason: "a tensor of quantized integers without a scale", remedy: "save it as torch.int_repr gives it")),
        in: &arena)
    }
    guard let dtype = explicit ?? view.storage.type.dtype else {
      throw CheckpointError(.malformed, "a tensor of untyped bytes without a dtype")
    }
    if let flags = arena.items(metadata, .dict), flags.contains(.bool(true)) {
      return try add(
        .unsupported(
          UnreadableTensor(
            reason: "a lazily conjugated or negated view",
            remedy: "call tensor.resolve_conj().resolve_neg() and save it again",
            type: view.shape.byteCount(of: dtype) == nil ? nil : (dtype, view.shape))), in: &arena)
    }
    return try add(.stored(try view.tensor(dtype, isBigEndian: isBigEndian)), in: &arena)
  }

  /// The part of a storage that a tensor shows: storage, offset, size and stride, in elements.
  struct View {
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
      try self.init(storage: storages[index], offset: offset, sizes: sizes, strides: strides)
    }

    init(storage: TorchStorage, offset: Int, sizes: [Int], strides: [Int]) throws(CheckpointError) {
      guard sizes.count == strides.count, offset >= 0, !strides.contains(where: { $0 < 0 }),
        let shape = Shape(checking: sizes)
      else {
        throw CheckpointError(
          .malformed, "a tensor of size \(sizes.prefix(8)) and stride \(strides.prefix(8))",
          expected: "as many of the one as of the other, none negative, and fewer than 2^63 elements")
      }
      self.storage = storage
      self.offset = offset
      self.shape = shape
      self.strides = strides
    }

    /// The elements of the view, after `check`.
    func tensor(_ dtype: DType, isBigEndian: Bool) throws(CheckpointError) -> StoredTensor {
      try check(dtype)
      return StoredTensor(
        name: "", dtype: dtype, shape: shape, strides: strides, elementOffset: offset, storage: storage.storage,
        isBigEndian: isBigEndian && dtype.swapWidth > 1)
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
