import CMultiwayKernels
import MultiwayCore
import MultiwayKernels
import Testing

@Suite struct ConversionTests {
  static let allPatterns = (0...UInt16.max).map { $0 }

  @Test func everyHalfDecodesAsDefined() {
    let f16 = checkVariants { context in
      let (x, y) = (GuardedBuffer(Self.allPatterns), GuardedBuffer<Float>(count: 65536))
      unsafe _ = mwk_f16_to_f32(context.pointer, 65536, x.pointer, y.pointer)
      return y.values.map(\.bitPattern)
    }
    #expect(f16.floats.bits == Self.allPatterns.map { HalfPrecision.float(fromF16: $0) }.bits)
    let bf16 = checkVariants { context in
      let (x, y) = (GuardedBuffer(Self.allPatterns), GuardedBuffer<Float>(count: 65536))
      unsafe _ = mwk_bf16_to_f32(context.pointer, 65536, x.pointer, y.pointer)
      return y.values.map(\.bitPattern)
    }
    #expect(bf16 == Self.allPatterns.map { UInt32($0) << 16 })
  }

  /// Every 16-bit value, its neighbours in fp32, and the ties between it and the next.
  static func hardCases(_ decode: (UInt16) -> Float) -> [Float] {
    allPatterns.flatMap { pattern -> [Float] in
      let value = decode(pattern)
      guard value.isFinite, pattern & 0x7FFF < 0x7FFF else { return [value] }
      let tie = (value + decode(pattern + 1)) / 2
      return [value, value.nextUp, tie, tie.nextUp, tie.nextDown]
    } + [65519.99, 65520, -65520, 1e30, 3.4e38, .greatestFiniteMagnitude, .leastNonzeroMagnitude, .signalingNaN]
  }

  @Test func everyFloatRoundsAsDefined() {
    let x = Self.hardCases(HalfPrecision.float(fromF16:))
    let result = checkVariants(threads: [2]) { context in
      let (input, output) = (GuardedBuffer(x), GuardedBuffer<UInt16>(count: x.count))
      var overflows = 0
      unsafe _ = mwk_f32_to_f16(context.pointer, x.count, input.pointer, output.pointer, &overflows)
      return output.values.map(UInt32.init) + [UInt32(overflows)]
    }
    #expect(result.dropLast().elementsEqual(x.map { UInt32(HalfPrecision.f16(from: $0)) }))
    #expect(result.last == UInt32(x.count { $0.isFinite && HalfPrecision.f16(from: $0) & 0x7FFF == 0x7C00 }))
  }

  @Test func everyFloatRoundsToBF16AsDefined() {
    let x = Self.hardCases(HalfPrecision.float(fromBF16:))
    let result = checkVariants(threads: [2]) { context in
      let (input, output) = (GuardedBuffer(x), GuardedBuffer<UInt16>(count: x.count))
      var overflows = 0
      unsafe _ = mwk_f32_to_bf16(context.pointer, x.count, input.pointer, output.pointer, &overflows)
      return output.values.map(UInt32.init) + [UInt32(overflows)]
    }
    #expect(result.dropLast().elementsEqual(x.map { UInt32(HalfPrecision.bf16(from: $0)) }))
    #expect(result.last == UInt32(x.count { $0.isFinite && HalfPrecision.bf16(from: $0) & 0x7FFF == 0x7F80 }))
  }

  @Test(arguments: lengths) func tailsAndOddAddresses(count: Int) {
    let patterns = Array(Self.allPatterns.prefix(count).map { $0 &* 911 })
    checkVariants { context in
      let (x, y) = (GuardedBuffer(patterns, misalignedBy: 1), GuardedBuffer<Float>(count: count))
      unsafe _ = mwk_f16_to_f32(context.pointer, count, x.pointer, y.pointer)
      var overflows = 0
      unsafe _ = mwk_f32_to_bf16(context.pointer, count, y.pointer, x.pointer, &overflows)
      return y.values.bits + x.values.map(UInt32.init)
    }
  }

  @Test func swiftFace() throws {
    let context = try KernelContext(threads: 2)
    let values: [Float] = [1, -2.5, 65504, 65520, .greatestFiniteMagnitude, .infinity, .nan]
    let f16 = context.f16(values.span)
    let bf16 = context.bf16(values.span)
    #expect(f16.overflows == 2 && bf16.overflows == 1)
    let back = context.floats(TensorBytes(copying: f16.bytes), type: .f16)
    #expect(back.bits == [1, -2.5, 65504, .infinity, .infinity, .infinity, .nan].bits)
    #expect(context.floats(TensorBytes(copying: bf16.bytes), type: .bf16)[1] == -2.5)
    #expect(context.f16([Float]().span).bytes.isEmpty)
  }
}
