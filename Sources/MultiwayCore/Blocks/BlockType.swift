/// The types of ggml that store numbers in blocks: some whole numbers, and the scales, in half precision, that make them real.
public enum BlockType: String, CaseIterable, Hashable, Sendable {
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k

  /// The number of elements of a block.
  public var elementCount: Int { layout.elements }
  /// The number of bytes of a block.
  public var byteCount: Int { layout.bytes }

  private var layout: (elements: Int, bytes: Int) {
    switch self {
    case .q8_0: (32, 34)
    case .q4_0: (32, 18)
    case .q4_1: (32, 20)
    case .q5_0: (32, 22)
    case .q5_1: (32, 24)
    case .q4_k: (256, 144)
    case .q5_k: (256, 176)
    case .q6_k: (256, 210)
    }
  }

  /// True for the types that matrices of our own are encoded in, that artifacts hold and kernels compute with.
  public var isComputed: Bool {
    switch self {
    case .q8_0, .q4_0, .q4_1: true
    default: false
    }
  }

  /// The shape of the bytes of a matrix in such blocks, each row of which fills whole ones; nil where a row does not.
  public func byteShape(of shape: Shape) -> Shape? {
    guard shape.rank > 0, shape.last % elementCount == 0 else { return nil }
    let (width, overflow) = (shape.last / elementCount).multipliedReportingOverflow(by: byteCount)
    return overflow ? nil : Shape(checking: Array(shape.dimensions.dropLast()) + [width])
  }
}
