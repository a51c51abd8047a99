/// The dimensions of a tensor, outermost first. Every dimension is at least 0 and the element count fits an `Int`.
public struct Shape: Hashable, Sendable {
  /// The dimensions, outermost first; empty for a scalar.
  public let dimensions: [Int]
  /// The product of the dimensions; 1 for a scalar.
  public let elementCount: Int

  /// Makes a shape from dimensions that come from a file; nil if one is negative or if those that are not 0 overflow
  /// together: `[2^63, 4, 0]`, as in the safetensors reference reader, and in any other order too.
  public init?(checking dimensions: [Int]) {
    var count = 1
    for dimension in dimensions {
      guard dimension >= 0 else { return nil }
      // A 0 must not hide that the others overflow: the same sizes in another order, or a part of them, would do so.
      let (product, overflow) = count.multipliedReportingOverflow(by: max(1, dimension))
      guard !overflow else { return nil }
      count = product
    }
    self.dimensions = dimensions
    self.elementCount = dimensions.contains(0) ? 0 : count
  }

  /// Makes a shape from dimensions that the program itself computed; a negative one or an overflow is a programmer's error.
  public init(_ dimensions: [Int]) {
    guard let shape = Shape(checking: dimensions) else { preconditionFailure("impossible shape \(dimensions)") }
    self = shape
  }

  /// The number of dimensions.
  public var rank: Int { dimensions.count }

  /// The dimension at `index`.
  public subscript(index: Int) -> Int { dimensions[index] }

  /// The last dimension; 1 for a scalar.
  public var last: Int { dimensions.last ?? 1 }

  /// The strides of C order, in elements. Overflow is impossible where the element count fits, but for shapes that hold a
  /// zero the products of the other dimensions may not fit: they wrap, and nothing is ever read through them.
  public var contiguousStrides: [Int] {
    var strides = [Int](repeating: 1, count: rank)
    for index in dimensions.indices.dropLast().reversed() {
      strides[index] = strides[index + 1] &* dimensions[index + 1]
    }
    return strides
  }

  /// The number of bytes that the elements take in C order, nil on overflow or if they do not fill whole bytes.
  public func byteCount(of dtype: DType) -> Int? {
    let (bits, overflow) = elementCount.multipliedReportingOverflow(by: dtype.bitWidth)
    guard !overflow, bits % 8 == 0 else { return nil }
    return bits / 8
  }
}

extension Shape: CustomStringConvertible, ExpressibleByArrayLiteral {
  /// `[197, 768]`.
  public var description: String { "[" + dimensions.map(String.init).joined(separator: ", ") + "]" }

  /// Makes a shape from a literal.
  public init(arrayLiteral elements: Int...) { self.init(elements) }
}
