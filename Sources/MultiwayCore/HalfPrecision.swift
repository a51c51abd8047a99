/// Conversions between fp32 and the 16-bit and 8-bit storage types, one value at a time: the definition that the vectorised
/// kernels are tested against. Rounding is to nearest even (IEEE 754), subnormals are kept, NaN stays NaN.
public enum HalfPrecision {
  /// Decodes an IEEE 754 binary16 value.
  public static func float(fromF16 bits: UInt16) -> Float {
    let sign = UInt32(bits & 0x8000) << 16
    let exponent = UInt32(bits >> 10) & 0x1F
    let fraction = UInt32(bits & 0x3FF)
    switch exponent {
    case 0:
      // A subnormal is fraction × 2⁻²⁴, which fp32 holds exactly.
      let magnitude = Float(fraction) * 0x1p-24
      return Float(bitPattern: magnitude.bitPattern | sign)
    case 31:
      return Float(bitPattern: sign | 0x7F80_0000 | fraction << 13)
    default:
      return Float(bitPattern: sign | (exponent + 112) << 23 | fraction << 13)
    }
  }

  /// Encodes as binary16; 65520 and above become infinite, as IEEE 754 says.
  public static func f16(from value: Float) -> UInt16 {
    let bits = value.bitPattern
    let sign = UInt16(truncatingIfNeeded: bits >> 16) & 0x8000
    let magnitude = bits & 0x7FFF_FFFF
    if magnitude > 0x7F80_0000 { return sign | 0x7E00 | UInt16(truncatingIfNeeded: magnitude >> 13) & 0x3FF }
    if magnitude >= 0x477F_F000 { return sign | 0x7C00 }
    if magnitude < 0x3880_0000 {
      // Below 2⁻¹⁴ the result is subnormal: adding 0.5 makes the unit of the sum 2⁻²⁴, so that the hardware's own
      // round-to-nearest-even does the rounding.
      let sum = Float(bitPattern: magnitude) + 0.5
      return sign | UInt16(truncatingIfNeeded: sum.bitPattern &- 0x3F00_0000)
    }
    let odd = (magnitude >> 13) & 1
    let rounded = magnitude &+ 0xFFF &+ odd
    return sign | UInt16(truncatingIfNeeded: (rounded &- 0x3800_0000) >> 13)
  }

  /// Decodes a bfloat16 value.
  public static func float(fromBF16 bits: UInt16) -> Float {
    Float(bitPattern: UInt32(bits) << 16)
  }

  /// Encodes as bfloat16.
  public static func bf16(from value: Float) -> UInt16 {
    let bits = value.bitPattern
    if value.isNaN { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
    let odd = (bits >> 16) & 1
    return UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ odd) >> 16)
  }

  /// Decodes an 8-bit float with 5 exponent bits (OCP E5M2): the upper half of a binary16.
  public static func float(fromF8E5M2 bits: UInt8) -> Float { float(fromF16: UInt16(bits) << 8) }

  /// Decodes an 8-bit float with 4 exponent bits (OCP E4M3FN): no infinities, 0x7F and 0xFF are NaN.
  public static func float(fromF8E4M3 bits: UInt8) -> Float {
    let sign: Float = bits & 0x80 == 0 ? 1 : -1
    let exponent = Int(bits >> 3) & 0xF
    let fraction = Float(bits & 0x7)
    if bits & 0x7F == 0x7F { return .nan }
    if exponent == 0 { return sign * fraction * 0x1p-9 }
    return sign * Float(sign: .plus, exponent: exponent - 7, significand: 1 + fraction / 8)
  }
}
