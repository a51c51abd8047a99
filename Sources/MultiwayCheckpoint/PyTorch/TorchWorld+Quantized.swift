import MultiwayCore

/// PyTorch's quantized tensors: what they stand for is exact in fp32, so they are given as that.
extension TorchWorld {
  private static let remedy = "save what it stands for: tensor.dequantize()"

  /// The tensor of `_rebuild_qtensor(storage, offset, size, stride, (scheme, scale, zero point, …), …)`.
  mutating func rebuildQuantized(
    _ items: [PickleValue], in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue {
    let view = try View(items, in: arena, storages: storages)
    if let dtype = view.storage.type.dtype { try view.check(dtype) }
    guard items.count > 4, let parameters = arena.tuple(items[4]), let scheme = parameters.first else {
      throw odd("_rebuild_qtensor")
    }
    guard let byteCount = view.shape.byteCount(of: .f32) else { throw odd("_rebuild_qtensor") }
    let type = view.storage.type
    guard type.isQuantized, let dtype = type.dtype, type.isWhole else {
      return try add(
        .unsupported(
          UnreadableTensor(
            reason: "a quantized tensor of a type other than torch.qint8 and torch.quint8", remedy: TorchWorld.remedy,
            type: (.f32, view.shape))), in: &arena)
    }
    let integers = StoredTensor(
      name: "", dtype: dtype, shape: view.shape, strides: view.strides, elementOffset: view.offset,
      storage: view.storage.storage)
    switch arena.global(scheme)?.fullName {
    case "torch.per_tensor_affine":
      guard parameters.count == 3, let scale = arena.number(parameters[1]), case .int(let zero) = parameters[2],
        Int32(exactly: zero) != nil
      else { throw odd("_rebuild_qtensor") }
      let storage = AffineStorage(integers, byteCount: byteCount, channels: .one(scale: Float(scale), zero: zero))
      return try addDequantized(storage, view.shape, in: &arena)
    case "torch.per_channel_affine":
      guard parameters.count == 4, case .int(let axis) = parameters[3], view.shape.dimensions.indices.contains(axis),
        let scales = try channels(parameters[1], in: arena), let zeros = try channels(parameters[2], in: arena),
        scales.shape == [view.shape[axis]], zeros.shape == scales.shape
      else { throw odd("_rebuild_qtensor") }
      let storage = AffineStorage(
        integers, byteCount: byteCount, channels: .axis(axis, scales: scales, zeros: zeros))
      return try addDequantized(storage, view.shape, in: &arena)
    default:
      return try add(
        .unsupported(
          UnreadableTensor(
            reason: "a quantized tensor of the scheme \(arena.kind(scheme))",
            remedy: TorchWorld.remedy, type: (.f32, view.shape))), in: &arena)
    }
  }

  private mutating func addDequantized(
    _ storage: AffineStorage, _ shape: Shape, in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue {
    dequantizedCount += 1
    return try add(.stored(StoredTensor(name: "", dtype: .f32, shape: shape, storage: storage)), in: &arena)
  }

  /// The scales or zero points of the channels: a tensor or a list of numbers.
  private func channels(_ value: PickleValue, in arena: PickleArena) throws(CheckpointError) -> StoredTensor? {
    if case .tensor(let index) = value {
      guard case .stored(let tensor) = tensors[index], tensor.dtype.isDecodable else { return nil }
      return tensor
    }
    guard let items = arena.items(value, .sequence) else { return nil }
    var numbers: [Double] = []
    for item in items {
      guard let number = arena.number(item) else { return nil }
      numbers.append(number)
    }
    return StoredTensor(name: "", dtype: .f64, shape: Shape([numbers.count]), elements: numbers)
  }
}

extension PickleArena {
  /// A float or an integer.
  func number(_ value: PickleValue) -> Double? {
    switch value {
    case .real(let number): number
    case .int(let number): Double(number)
    default: nil
    }
  }
}

/// Eight-bit integers with a scale and a zero point, as the numbers that they stand for: (q − zero point) × scale in fp32,
/// which is what PyTorch's `dequantize()` computes.
final class AffineStorage: TensorStorage {
  /// What turns an integer into a number.
  enum Channels {
    case one(scale: Float, zero: Int)
    /// One scale and one zero point for each place on an axis.
    case axis(Int, scales: StoredTensor, zeros: StoredTensor)
  }

  let byteCount: Int
  private let integers: StoredTensor
  private let channels: Channels

  init(_ integers: StoredTensor, byteCount: Int, channels: Channels) {
    self.integers = integers
    self.byteCount = byteCount
    self.channels = channels
  }

  func load() throws(TensorError) -> TensorBytes {
    let scales: [Float]
    let zeros: [Int32]
    var inner = integers.shape.elementCount
    switch channels {
    case .one(let scale, let zero): (scales, zeros) = ([scale], [Int32(truncatingIfNeeded: zero)])
    case .axis(let axis, let scaleTensor, let zeroTensor):
      scales = try scaleTensor.floats()
      zeros = try zeroPoints(zeroTensor)
      inner = integers.shape.dimensions.dropFirst(axis + 1).reduce(1, &*)
    }
    let bytes = try integers.contiguousBytes()
    let isSigned = integers.dtype == .i8
    let result = AlignedBuffer(byteCount: byteCount)
    result.fill { target in
      var channel = 0
      var left = inner
      for index in 0..<byteCount / 4 {
        if left == 0 {
          channel = channel + 1 == scales.count ? 0 : channel + 1
          left = inner
        }
        left -= 1
        let byte = bytes.span.byte(at: index)
        let value = isSigned ? Int32(Int8(bitPattern: byte)) : Int32(byte)
        let number = Float(value &- zeros[channel]) * scales[channel]
        target.storeBytes(of: number, toByteOffset: index * 4, as: Float.self)
      }
    }
    return result.bytes
  }

  private func zeroPoints(_ tensor: StoredTensor) throws(TensorError) -> [Int32] {
    var zeros: [Int32] = []
    for value in try tensor.floats() {
      guard let zero = Int32(exactly: value) else {
        throw TensorError(.unsupported, "a quantized tensor with the zero point \(value)", expected: "an integer")
      }
      zeros.append(zero)
    }
    return zeros
  }

  func discard() { integers.discard() }
}
