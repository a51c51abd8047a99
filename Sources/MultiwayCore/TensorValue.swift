/// A tensor in memory as models take and give it: fp32 numbers or integers, in C order.
public struct TensorValue: Hashable, Sendable {
  /// The elements.
  public enum Elements: Hashable, Sendable {
    /// Activations, images.
    case floats([Float])
    /// Token ids, masks.
    case integers([Int])
  }

  /// The dimensions.
  public var shape: Shape
  /// The elements; as many as `shape` says.
  public var elements: Elements

  /// Makes an fp32 tensor.
  public init(_ shape: Shape, _ floats: [Float]) {
    precondition(shape.elementCount == floats.count, "\(floats.count) elements for shape \(shape)")
    self.shape = shape
    elements = .floats(floats)
  }

  /// Makes an integer tensor.
  public init(_ shape: Shape, integers: [Int]) {
    precondition(shape.elementCount == integers.count, "\(integers.count) elements for shape \(shape)")
    self.shape = shape
    elements = .integers(integers)
  }

  /// Reads a stored tensor: integer and bool dtypes become integers, the rest fp32.
  public init(_ stored: StoredTensor) throws(TensorError) {
    shape = stored.shape
    switch stored.dtype {
    case .i8, .i16, .i32, .i64, .u8, .u16, .u32, .bool: elements = .integers(try stored.integers())
    default: elements = .floats(try stored.floats())
    }
  }

  /// The elements as fp32.
  public var floats: [Float] {
    switch elements {
    case .floats(let values): values
    case .integers(let values): values.map { Float($0) }
    }
  }

  /// The elements as integers; nil if one is not a whole number in range.
  public var integers: [Int]? {
    switch elements {
    case .integers(let values): return values
    case .floats(let values):
      var integers: [Int] = []
      integers.reserveCapacity(values.count)
      for value in values {
        guard let integer = Int(exactly: value) else { return nil }
        integers.append(integer)
      }
      return integers
    }
  }

  /// The elements of a range of the first axis.
  public func rows(_ range: Range<Int>) -> TensorValue {
    let width = shape.elementCount / max(1, shape[0])
    let part = Shape([range.count] + shape.dimensions.dropFirst())
    let places = range.lowerBound * width..<range.upperBound * width
    return switch elements {
    case .floats(let values): TensorValue(part, Array(values[places]))
    case .integers(let values): TensorValue(part, integers: Array(values[places]))
    }
  }

  /// Joins the fp32 elements of parts, at least one, whose dimensions are the same but for the first.
  public init(joining parts: [TensorValue]) {
    let inner = parts[0].shape.dimensions.dropFirst()
    precondition(parts.allSatisfy { $0.shape.dimensions.dropFirst() == inner }, "the shapes do not go together")
    let first = parts.reduce(0) { $0 + $1.shape[0] }
    self.init(Shape([first] + inner), Array(parts.map(\.floats).joined()))
  }

  /// The tensor as a container stores it: f32, or i64 for integers.
  public func stored(as name: String) -> StoredTensor {
    switch elements {
    case .floats(let values): StoredTensor(name: name, dtype: .f32, shape: shape, elements: values)
    case .integers(let values): StoredTensor(name: name, dtype: .i64, shape: shape, elements: values.map { Int64($0) })
    }
  }
}
