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
