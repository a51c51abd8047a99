/// The element type of a tensor: every dtype of the safetensors format and of PyTorch's dense storages.
public enum DType: String, CaseIterable, Hashable, Sendable {
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case bool = "BOOL"
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case f4 = "F4", f6e2m3 = "F6_E2M3", f6e3m2 = "F6_E3M2"
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case u8 = "U8", i8 = "I8"
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case f8e5m2 = "F8_E5M2", f8e4m3 = "F8_E4M3", f8e8m0 = "F8_E8M0"
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case f8e4m3fnuz = "F8_E4M3FNUZ", f8e5m2fnuz = "F8_E5M2FNUZ"
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case i16 = "I16", u16 = "U16", f16 = "F16", bf16 = "BF16"
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case i32 = "I32", u32 = "U32", f32 = "F32"
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case c64 = "C64", f64 = "F64", i64 = "I64", u64 = "U64"
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case c128 = "C128"

  /// The size of one element in bits; 4 and 6 for the packed types.
  public var bitWidth: Int {
    switch self {
    case .f4: 4
    case .f6e2m3, .f6e3m2: 6
    case .bool, .u8, .i8, .f8e5m2, .f8e4m3, .f8e8m0, .f8e4m3fnuz, .f8e5m2fnuz: 8
    case .i16, .u16, .f16, .bf16: 16
    case .i32, .u32, .f32: 32
    case .c64, .f64, .i64, .u64: 64
    case .c128: 128
    }
  }

  /// The size of one element in bytes, nil where elements share bytes.
  public var byteWidth: Int? { bitWidth % 8 == 0 ? bitWidth / 8 : nil }

  /// The unit that a change of byte order swaps, in bytes: a component for complex types.
  public var swapWidth: Int {
    switch self {
    case .c64: 4
    case .c128: 8
    default: max(1, bitWidth / 8)
    }
  }

  /// True for real floating-point types.
  public var isFloatingPoint: Bool {
    switch self {
    case .f64, .f32, .f16, .bf16, .f8e5m2, .f8e4m3, .f8e8m0, .f8e4m3fnuz, .f8e5m2fnuz, .f4, .f6e2m3, .f6e3m2: true
    default: false
    }
  }

  /// True for the types whose values `StoredTensor.floats()` can decode.
  public var isDecodable: Bool {
    switch self {
    case .f4, .f6e2m3, .f6e3m2, .f8e8m0, .f8e4m3fnuz, .f8e5m2fnuz, .c64, .c128: false
    default: true
    }
  }

  /// The lower-case name that the command line and the graph use: `f32`, `bf16`, `i8`.
  public var shortName: String { rawValue.lowercased() }

  /// Finds a dtype by the name that `shortName` gives.
  public init?(shortName: String) {
    self.init(rawValue: shortName.uppercased())
  }
}
