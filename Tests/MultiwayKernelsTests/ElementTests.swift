import CMultiwayKernels
import Glibc
import MultiwayKernels
import Testing

@Suite struct ElementTests {
  static let specials: [Float] = [
    0, -0.0, .infinity, -.infinity, .nan, .signalingNaN, .leastNonzeroMagnitude, -.leastNormalMagnitude,
    .greatestFiniteMagnitude, -.greatestFiniteMagnitude, 88.7, 88.8, -87.3, -103.9, -104.1, 0.625, -0.625, 14.5, 1, -1,
  ]

  typealias Unary = (OpaquePointer?, Int, UnsafePointer<Float>?, UnsafeMutablePointer<Float>?) -> mwk_status

  @unsafe static func apply(_ kernel: Unary, _ context: RawContext, _ x: [Float]) -> [Float] {
    let input = GuardedBuffer(x)
    let output = GuardedBuffer<Float>(count: x.count)
    #expect(unsafe kernel(context.pointer, x.count, input.pointer, output.pointer) == mwk_ok)
    return output.values
  }

  @Test(arguments: lengths) func unaryVariantsAgree(count: Int) {
    var numbers = Numbers(seed: count)
    let x = Array((numbers.floats(count, scale: 20) + Self.specials).suffix(count))
    checkVariants { unsafe Self.apply(mwk_gelu_f32, $0, x).bits }
    checkVariants { unsafe Self.apply(mwk_tanh_f32, $0, x).bits }
    checkVariants { unsafe Self.apply(mwk_exp_f32, $0, x.map { $0 * 6 }).bits }
    let rectified = checkVariants { unsafe Self.apply(mwk_relu_f32, $0, x).bits }
    #expect(rectified == x.map { $0 < 0 ? 0 : $0 }.bits)
  }

  private func exponentialSums(_ context: RawContext, _ x: [Float], rows: Int) -> [Double] {
    let (input, largest, sums) = (
      GuardedBuffer(x), GuardedBuffer<Float>(count: rows), GuardedBuffer<Double>(count: rows)
    )
    let status = unsafe mwk_exp_sums(
      context.pointer, rows, x.count / max(1, rows), input.pointer, largest.pointer, sums.pointer)
    #expect(status == mwk_ok)
    return largest.values.map(Double.init) + sums.values
  }

  /// Around the block of 1024 and at the size of a vocabulary: the same bits, and close to the exact sums.
  @Test(arguments: [1, 15, 17, 1023, 1024, 1025, 2048, 64010]) func exponentialSumsAreClose(width: Int) {
    var numbers = Numbers(seed: width)
    let x = numbers.floats(3 * width, scale: 12)
    let found = checkVariants { self.exponentialSums($0, x, rows: 3).map(\.bitPattern) }.map(Double.init(bitPattern:))
    for row in 0..<3 {
      let elements = x[row * width..<(row + 1) * width].map(Double.init)
      let largest = elements.reduce(-.infinity, max)
      #expect(found[row] == largest)
      let sum = elements.reduce(0) { $0 + exp($1 - largest) }
      // Each term within an ulp and a half, each fp32 sum of at most 64 + 4 additions: a few roundings gather.
      #expect(abs(found[3 + row] - sum) < 1e-6 * sum)
    }
  }

  @Test func exponentialSumsOfOddRows() {
    let rows: [[Float]] = [
      [.nan, 1, 1], [-.infinity, -.infinity, -.infinity], [.infinity, 0, 1], [-200, 0, -.infinity],
    ]
    let found = exponentialSums(RawContext(.best), rows.flatMap { $0 }, rows: 4)
    #expect(found[0] == 1 && found[4].isNaN)
    #expect(found[1] == -.infinity && found[2] == .infinity)
    #expect(found[3] == 0 && found[7] == 1)
  }

  @Test(arguments: lengths) func binaryVariantsAgree(count: Int) {
    var numbers = Numbers(seed: count)
    let a = numbers.floats(count)
    let b = Array((numbers.floats(count) + Self.specials).suffix(count))
    let expected = checkVariants { context in
      let (x, z, y) = (GuardedBuffer(a), GuardedBuffer(b), GuardedBuffer<Float>(count: count))
      unsafe _ = mwk_add_f32(context.pointer, count, x.pointer, z.pointer, y.pointer)
      let sum = y.values
      unsafe _ = mwk_scale_f32(context.pointer, count, 0.3, z.pointer, y.pointer)
      return sum.bits + y.values.bits
    }
    #expect(expected == zip(a, b).map { $0 + $1 }.bits + b.map { $0 * 0.3 }.bits)
  }

  @Test func largeArraysAreSplitAmongThreads() {
    var numbers = Numbers(seed: 1)
    let x = numbers.floats(100_003, scale: 8)
    checkVariants { unsafe Self.apply(mwk_gelu_f32, $0, x).bits }
  }

  @Test func expIsWithinTwoUlp() {
    let x = (0...200_000).map { Float(-104 + 192 * Double($0) / 200_000) }
    let y = unsafe Self.apply(mwk_exp_f32, RawContext(.best), x)
    var worst = 0.0
    for (x, y) in zip(x, y) {
      let exact = Glibc.exp(Double(x))
      let ulp = max(Double(Float(exact).ulp), 0x1p-149)
      worst = max(worst, abs(Double(y) - exact) / ulp)
    }
    #expect(worst <= 1.1)
  }

  @Test func geluIsWithinOneTenMillionth() {
    let x = (0...200_000).map { Float(-20 + 40 * Double($0) / 200_000) } + [1e-30, -1e-30, 1e30, -1e30]
    let y = unsafe Self.apply(mwk_gelu_f32, RawContext(.best), x)
    var worst = 0.0
    for (x, y) in zip(x, y) {
      let exact = Double(x) * 0.5 * erfc(-Double(x) / 2.0.squareRoot())
      worst = max(worst, abs(Double(y) - exact) / max(1, abs(Double(x))))
    }
    #expect(worst <= 1e-7)
  }

  @Test func tanhIsWithinFourTenMillionths() {
    let x = (0...200_000).map { Float(-12 + 24 * Double($0) / 200_000) }
    let y = unsafe Self.apply(mwk_tanh_f32, RawContext(.best), x)
    let worst = zip(x, y).map { abs(Double($1) - Glibc.tanh(Double($0))) }.max() ?? 1
    #expect(worst <= 1.5e-7)
  }

  @Test(arguments: ISA.supported) func limits(isa: ISA) {
    let context = RawContext(isa)
    let exp = unsafe Self.apply(mwk_exp_f32, context, [0, .infinity, -.infinity, -104, 88.8, .nan])
    #expect(exp.bits == [1, .infinity, 0, 0, .infinity, .nan].bits)
    let gelu = unsafe Self.apply(mwk_gelu_f32, context, [0, .infinity, -.infinity, 100, -100, .nan])
    #expect(gelu.bits == [0, .infinity, 0, 100, 0, .nan].bits)
    let tanh = unsafe Self.apply(mwk_tanh_f32, context, [0, -0.0, .infinity, -.infinity, .nan])
    #expect(tanh.bits == [0, -0.0, 1, -1, .nan].bits)
  }
}
