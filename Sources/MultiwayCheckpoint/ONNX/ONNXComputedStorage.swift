import MultiwayCore

/// The elements of several tensors after one another, each in C order.
final class JoinedStorage: TensorStorage {
  private let parts: [StoredTensor]

  /// Joins tensors of one dtype. The caller has checked that the sum of their sizes does not overflow.
  init(_ parts: [StoredTensor]) { self.parts = parts }

  var byteCount: Int { parts.reduce(0) { $0 + $1.byteCount } }

  func load() throws(TensorError) -> TensorBytes {
    let result = AlignedBuffer(byteCount: byteCount)
    var offset = 0
    for part in parts {
      let bytes = try part.contiguousBytes()
      result.copy(bytes.span, at: offset)
      offset += bytes.byteCount
    }
    return result.bytes
  }

  var origins: [StoredTensor]? { parts.flatMap(\.sources) }

  func discard() { for part in parts { part.discard() } }
}

/// What DequantizeLinear makes of integers: (q − zero) · scale in fp32, computed when it is asked for.
final class DequantizedStorage: TensorStorage {
  private let integers: StoredTensor
  private let scale: StoredTensor
  private let zero: StoredTensor?
  private let axis: Int

  /// - Parameters:
  ///   - scale: one number, or as many as `integers` has places on `axis`.
  ///   - zero: as many integers as there are scales; nil for 0.
  init?(_ integers: StoredTensor, scale: StoredTensor, zero: StoredTensor?, axis: Int) {
    let count = scale.shape.elementCount
    guard [.i8, .u8, .i16, .u16, .i32].contains(integers.dtype), scale.dtype.isFloatingPoint, scale.dtype.isDecodable,
      count == 1 || integers.shape.dimensions.indices.contains(axis) && integers.shape[axis] == count,
      zero.map({ $0.shape.elementCount == count && $0.dtype == integers.dtype }) ?? true,
      integers.shape.byteCount(of: .f32) != nil
    else { return nil }
    self.integers = integers
    self.scale = scale
    self.zero = zero
    self.axis = axis
  }

  var byteCount: Int { integers.shape.byteCount(of: .f32) ?? 0 }

  func load() throws(TensorError) -> TensorBytes {
    let scales = try scale.floats()
    let zeros = try zero?.floats() ?? [Float](repeating: 0, count: scales.count)
    var elements = try integers.floats()
    let inner =
      scales.count == 1
      ? max(1, elements.count) : integers.shape.dimensions.dropFirst(axis + 1).reduce(1, *)
    for index in elements.indices {
      let channel = index / inner % scales.count
      elements[index] = (elements[index] - zeros[channel]) * scales[channel]
    }
    return TensorBytes(copying: elements)
  }

  var origins: [StoredTensor]? { [integers, scale] + (zero.map { [$0] } ?? []) }

  func discard() { for part in [integers, scale] + (zero.map { [$0] } ?? []) { part.discard() } }
}

extension StoredTensor {
  /// The same elements seen with the axes in another order: axis `i` of the result is axis `axes[i]` of this.
  func viewed(axes: [Int]) -> StoredTensor {
    var view = self
    view.shape = Shape(axes.map { shape[$0] })
    view.strides = axes.map { strides[$0] }
    return view
  }

  /// The same elements in C order under another shape of as many.
  func viewed(as shape: Shape) -> StoredTensor {
    StoredTensor(name: name, dtype: dtype, shape: shape, elementOffset: elementOffset, storage: storage)
  }

  /// A run of the elements of a vector.
  func part(_ range: Range<Int>, name: String) -> StoredTensor {
    StoredTensor(
      name: name, dtype: dtype, shape: [range.count], elementOffset: elementOffset + range.lowerBound, storage: storage)
  }

  func named(_ name: String) -> StoredTensor {
    var tensor = self
    tensor.name = name
    return tensor
  }
}
