/// A metadata value of a GGUF file.
public enum GGUFValue: Hashable, Sendable {
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case u8(UInt8), i8(Int8), u16(UInt16), i16(Int16), u32(UInt32), i32(Int32), u64(UInt64), i64(Int64)
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case f32(Float), f64(Double), bool(Bool), string(String)
  /// An array; all elements have one type, and an element is never an array.
  case array(GGUFArray)
}

/// The elements of a metadata array, kept as compactly as in the file.
public enum GGUFArray: Hashable, Sendable {
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case u8([UInt8]), i8([Int8]), u16([UInt16]), i16([Int16]), u32([UInt32]), i32([Int32]), u64([UInt64]), i64([Int64])
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case f32([Float]), f64([Double]), bool([Bool]), string([String])
}

/// The type numbers of metadata values.
public enum GGUFValueType: UInt32, Sendable {
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case u8 = 0, i8 = 1, u16 = 2, i16 = 3, u32 = 4, i32 = 5, f32 = 6, bool = 7, string = 8, array = 9
  // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
  case u64 = 10, i64 = 11, f64 = 12

  /// The least number of bytes that a value of the type takes in a file.
  var minimumSize: Int {
    switch self {
    case .u8, .i8, .bool: 1
    case .u16, .i16: 2
    case .u32, .i32, .f32: 4
    case .u64, .i64, .f64, .string: 8
    case .array: 12
    }
  }
}

extension GGUFArray {
  /// The type of the elements.
  public var elementType: GGUFValueType {
    switch self {
    case .u8: .u8
    case .i8: .i8
    case .u16: .u16
    case .i16: .i16
    case .u32: .u32
    case .i32: .i32
    case .u64: .u64
    case .i64: .i64
    case .f32: .f32
    case .f64: .f64
    case .bool: .bool
    case .string: .string
    }
  }

  /// The elements one by one, for those who do not mind the type.
  public var values: [GGUFValue] {
    switch self {
    case .u8(let elements): elements.map(GGUFValue.u8)
    case .i8(let elements): elements.map(GGUFValue.i8)
    case .u16(let elements): elements.map(GGUFValue.u16)
    case .i16(let elements): elements.map(GGUFValue.i16)
    case .u32(let elements): elements.map(GGUFValue.u32)
    case .i32(let elements): elements.map(GGUFValue.i32)
    case .u64(let elements): elements.map(GGUFValue.u64)
    case .i64(let elements): elements.map(GGUFValue.i64)
    case .f32(let elements): elements.map(GGUFValue.f32)
    case .f64(let elements): elements.map(GGUFValue.f64)
    case .bool(let elements): elements.map(GGUFValue.bool)
    case .string(let elements): elements.map(GGUFValue.string)
    }
  }

  /// The number of elements.
  public var count: Int {
    switch self {
    case .u8(let elements): elements.count
    case .i8(let elements): elements.count
    case .u16(let elements): elements.count
    case .i16(let elements): elements.count
    case .u32(let elements): elements.count
    case .i32(let elements): elements.count
    case .u64(let elements): elements.count
    case .i64(let elements): elements.count
    case .f32(let elements): elements.count
    case .f64(let elements): elements.count
    case .bool(let elements): elements.count
    case .string(let elements): elements.count
    }
  }
}

extension GGUFValue {
  /// The type of the value.
  public var type: GGUFValueType {
    switch self {
    case .u8: .u8
    case .i8: .i8
    case .u16: .u16
    case .i16: .i16
    case .u32: .u32
    case .i32: .i32
    case .u64: .u64
    case .i64: .i64
    case .f32: .f32
    case .f64: .f64
    case .bool: .bool
    case .string: .string
    case .array: .array
    }
  }

  /// The string, if it is one.
  public var string: String? { if case .string(let value) = self { value } else { nil } }

  /// The truth value, if it is one.
  public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }

  /// The integer, if it is one of any width that fits an `Int`.
  public var integer: Int? {
    switch self {
    case .u8(let value): Int(value)
    case .i8(let value): Int(value)
    case .u16(let value): Int(value)
    case .i16(let value): Int(value)
    case .u32(let value): Int(value)
    case .i32(let value): Int(value)
    case .u64(let value): Int(exactly: value)
    case .i64(let value): Int(value)
    default: nil
    }
  }

  /// The number, if it is a floating-point number or an integer.
  public var number: Double? {
    switch self {
    case .f32(let value): Double(value)
    case .f64(let value): value
    case .u64(let value): Double(value)
    default: integer.map { Double($0) }
    }
  }

  /// The elements, if it is an array.
  public var array: GGUFArray? { if case .array(let value) = self { value } else { nil } }

  /// The bytes, if it is an array of u8.
  public var bytes: [UInt8]? { if case .array(.u8(let value)) = self { value } else { nil } }

  /// The strings, if it is an array of strings (or empty).
  public var strings: [String]? {
    guard case .array(let array) = self else { return nil }
    if case .string(let value) = array { return value }
    return array.count == 0 ? [] : nil
  }

  /// The integers, if it is an array of them and all fit an `Int`.
  public var integers: [Int]? {
    guard case .array(let array) = self else { return nil }
    let integers = array.values.compactMap(\.integer)
    return integers.count == array.count ? integers : nil
  }

  /// The numbers, if it is an array of them.
  public var numbers: [Double]? {
    guard case .array(let array) = self else { return nil }
    let numbers = array.values.compactMap(\.number)
    return numbers.count == array.count ? numbers : nil
  }
}
