public import MultiwayCore

/// The element types of GGUF tensors (`ggml_type`). The numbers 4, 5, 31–33 and 36–38 were removed from the format.
public enum GGUFType: UInt32, CaseIterable, Hashable, Sendable {
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case f32 = 0, f16 = 1
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case q4_0 = 2, q4_1 = 3, q5_0 = 6, q5_1 = 7, q8_0 = 8, q8_1 = 9
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case q2_k = 10, q3_k = 11, q4_k = 12, q5_k = 13, q6_k = 14, q8_k = 15
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case iq2_xxs = 16, iq2_xs = 17, iq3_xxs = 18, iq1_s = 19, iq4_nl = 20, iq3_s = 21, iq2_s = 22, iq4_xs = 23
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case i8 = 24, i16 = 25, i32 = 26, i64 = 27, f64 = 28
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case iq1_m = 29, bf16 = 30, tq1_0 = 34, tq2_0 = 35, mxfp4 = 39

  /// How many elements share one block; 1 for plain numbers.
  public var blockSize: Int { layout.block }

  /// The size of one block in bytes.
  public var typeSize: Int { layout.bytes }

  /// True for types whose elements stand alone.
  public var isPlain: Bool { layout.block == 1 }

  /// The name as GGUF tools print it: `F32`, `Q8_0`, `Q4_K`.
  public var name: String { "\(self)".uppercased() }

  /// The type of the blocks, for those that are decoded; nil for the others and for plain numbers.
  public var blockType: BlockType? {
    switch self {
    case .q4_0: .q4_0
    case .q4_1: .q4_1
    case .q5_0: .q5_0
    case .q5_1: .q5_1
    case .q8_0: .q8_0
    case .q4_k: .q4_k
    case .q5_k: .q5_k
    case .q6_k: .q6_k
    default: nil
    }
  }

  /// The type of tensors in such blocks.
  public init(_ block: BlockType) {
    self =
      switch block {
      case .q4_0: .q4_0
      case .q4_1: .q4_1
      case .q5_0: .q5_0
      case .q5_1: .q5_1
      case .q8_0: .q8_0
      case .q4_k: .q4_k
      case .q5_k: .q5_k
      case .q6_k: .q6_k
      }
  }

  private var layout: (block: Int, bytes: Int) {
    if let block = blockType { return (block.elementCount, block.byteCount) }
    return switch self {
    case .f32, .i32: (1, 4)
    case .f16, .bf16, .i16: (1, 2)
    case .i8: (1, 1)
    case .i64, .f64: (1, 8)
    case .iq4_nl: (32, 18)
    case .q8_1: (32, 36)
    case .mxfp4: (32, 17)
    case .q2_k: (256, 84)
    case .q3_k, .iq3_s: (256, 110)
    case .q8_k: (256, 292)
    case .iq2_xxs, .tq2_0: (256, 66)
    case .iq2_xs: (256, 74)
    case .iq3_xxs: (256, 98)
    case .iq1_s: (256, 50)
    case .iq2_s: (256, 82)
    case .iq4_xs: (256, 136)
    case .iq1_m: (256, 56)
    case .tq1_0: (256, 54)
    case .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q4_k, .q5_k, .q6_k: preconditionFailure("a block type's layout is its own")
    }
  }

  /// The size in bytes of a tensor of these dimensions (outermost first), nil if a dimension is negative, the size overflows,
  /// or the innermost dimension does not fill whole blocks.
  public func byteCount(of dimensions: [Int]) -> Int? {
    guard (dimensions.last ?? 1) % blockSize == 0 else { return nil }
    var elements = 1
    for dimension in dimensions {
      // A 0 must not hide that the others overflow: whoever multiplies in another order would stumble over it.
      let (product, overflow) = elements.multipliedReportingOverflow(by: max(1, dimension))
      guard dimension >= 0, !overflow else { return nil }
      elements = product
    }
    if dimensions.contains(0) { elements = 0 }
    let (bytes, overflow) = (elements / blockSize).multipliedReportingOverflow(by: typeSize)
    return overflow ? nil : bytes
  }
}

/// A tensor of a GGUF file: what its header says about it.
public struct GGUFTensorInfo: Hashable, Sendable {
  /// The name.
  public var name: String
  /// The dimensions, outermost first: the reverse of the file's order.
  public var dimensions: [Int]
  /// The element type.
  public var type: GGUFType
  /// Where the elements start, in bytes from the start of the data section.
  public var offset: Int

  /// Describes a tensor.
  public init(name: String, dimensions: [Int], type: GGUFType, offset: Int = 0) {
    self.name = name
    self.dimensions = dimensions
    self.type = type
    self.offset = offset
  }

  /// The size in bytes; the reader and the writer have checked that it exists.
  public var byteCount: Int { type.byteCount(of: dimensions) ?? 0 }
}
