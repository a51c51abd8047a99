import MultiwayCore
import Testing

@Suite struct HalfPrecisionTests {
  @Test func everyF16Decodes() {
    for bits in UInt16.min...UInt16.max {
      let expected = Float(Float16(bitPattern: bits))
      let actual = HalfPrecision.float(fromF16: bits)
      if expected.isNaN ? !actual.isNaN : expected.bitPattern != actual.bitPattern {
        Issue.record("\(String(bits, radix: 16)): \(actual), not \(expected)")
      }
    }
  }

  @Test func everyF16ComesBack() {
    for bits in UInt16.min...UInt16.max {
      let back = HalfPrecision.f16(from: HalfPrecision.float(fromF16: bits))
      let isNaN = bits & 0x7FFF > 0x7C00
      if isNaN ? back & 0x7FFF <= 0x7C00 || back & 0x8000 != bits & 0x8000 : back != bits {
        Issue.record("\(String(bits, radix: 16)) came back as \(String(back, radix: 16))")
      }
    }
  }

  /// The hardware's conversion is the oracle, at every half, at every midpoint, and one step to each side of both.
  @Test func f16RoundsToNearestEven() {
    for bits in UInt16(0)..<0x7C00 {
      let low = HalfPrecision.float(fromF16: bits)
      let next = bits == 0x7BFF ? Float(65536) : HalfPrecision.float(fromF16: bits + 1)
      let middle = (low + next) / 2
      for center in [low, middle] {
        for value in [center, center.nextUp, center.nextDown] {
          for signed in [value, -value] where HalfPrecision.f16(from: signed) != Float16(signed).bitPattern {
            Issue.record("\(signed) became \(HalfPrecision.f16(from: signed)), not \(Float16(signed).bitPattern)")
          }
        }
      }
    }
  }

  @Test(arguments: [
    (Float(65504), UInt16(0x7BFF)), (65519.996, 0x7BFF), (65520, 0x7C00), (1e30, 0x7C00), (.infinity, 0x7C00),
    (-.infinity, 0xFC00), (0x1p-25, 0), (0x1.000002p-25, 1), (6e-8, 1), (-0.0, 0x8000), (.leastNonzeroMagnitude, 0),
  ])
  func f16AtTheEdges(value: Float, bits: UInt16) {
    #expect(HalfPrecision.f16(from: value) == bits)
  }

  @Test func everyBF16ComesBack() {
    for bits in UInt16.min...UInt16.max {
      let value = HalfPrecision.float(fromBF16: bits)
      let back = HalfPrecision.bf16(from: value)
      if value.isNaN ? !HalfPrecision.float(fromBF16: back).isNaN : back != bits {
        Issue.record("\(String(bits, radix: 16)) came back as \(String(back, radix: 16))")
      }
    }
  }

  @Test func bf16RoundsToNearestEven() {
    for bits in UInt16(0)..<0x7F80 {
      let middle = UInt32(bits) << 16 | 0x8000
      let even = bits + (bits & 1)
      let cases = [(middle, even), (middle + 1, bits + 1), (middle - 1, bits), (middle | 0x8000_0000, even | 0x8000)]
      for (pattern, expected) in cases where HalfPrecision.bf16(from: Float(bitPattern: pattern)) != expected {
        Issue.record("\(String(pattern, radix: 16)) did not become \(String(expected, radix: 16))")
      }
    }
  }

  @Test func bf16KeepsNaNAndInfinity() {
    #expect(HalfPrecision.float(fromBF16: HalfPrecision.bf16(from: Float(bitPattern: 0x7F80_0001))).isNaN)
    #expect(HalfPrecision.bf16(from: .infinity) == 0x7F80)
    #expect(HalfPrecision.bf16(from: 3.4e38) == 0x7F80)
  }

  @Test func everyF8Decodes() {
    for bits in UInt8.min...UInt8.max {
      let e5m2 = HalfPrecision.float(fromF8E5M2: bits)
      let half = HalfPrecision.float(fromF16: UInt16(bits) << 8)
      #expect(e5m2 == half || (e5m2.isNaN && half.isNaN))
      let value = HalfPrecision.float(fromF8E4M3: bits)
      #expect(value.isNaN == (bits & 0x7F == 0x7F))
      #expect(value.sign == (bits & 0x80 == 0 ? .plus : .minus) || value.isNaN)
    }
    #expect(HalfPrecision.float(fromF8E4M3: 0x7E) == 448)
    #expect(HalfPrecision.float(fromF8E4M3: 0x38) == 1)
    #expect(HalfPrecision.float(fromF8E4M3: 0x01) == 0x1p-9)
    #expect(HalfPrecision.float(fromF8E4M3: 0x08) == 0x1p-6)
  }
}
