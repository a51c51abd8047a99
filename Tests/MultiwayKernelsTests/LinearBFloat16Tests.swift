import CMultiwayKernels
import MultiwayCore
import MultiwayKernels
import Testing

/// The multiply-add of bfloat16 pairs, as Intel's manual defines it and Zen 4 does it: the odd product first, each by fma rounded to
/// nearest even; subnormal operands and results count as zeros of their sign.
private func dotPair(_ sum: Float, _ x: (UInt16, UInt16), _ w: (UInt16, UInt16)) -> Float {
  func flushed(_ value: Float) -> Float {
    value.isSubnormal ? Float(sign: value.sign, exponent: 0, significand: 0) : value
  }
  func decoded(_ bits: UInt16) -> Float { flushed(HalfPrecision.float(fromBF16: bits)) }
  let odd = flushed(flushed(sum).addingProduct(decoded(x.1), decoded(w.1)))
  return flushed(odd.addingProduct(decoded(x.0), decoded(w.0)))
}

/// One linear layer in bfloat16.
struct BFloat16Case: CustomTestStringConvertible {
  var rows: Int, inputs: Int, outputs: Int, type: WeightType
  var x: [Float], weights: FloatCase, bias: [Float], residual: [Float]

  var testDescription: String { "\(rows)×\(inputs)→\(outputs) of \(type)" }

  init(_ rows: Int, _ inputs: Int, _ outputs: Int, _ type: WeightType = .f32) {
    (self.rows, self.inputs, self.outputs, self.type) = (rows, inputs, outputs, type)
    var numbers = Numbers(seed: rows * 31 + inputs * 7 + outputs)
    weights = FloatCase(rows, inputs, outputs, type)
    x = numbers.floats(rows * inputs, scale: 3)
    (bias, residual) = (numbers.floats(outputs), numbers.floats(rows * outputs))
  }

  private var pairs: Int { (inputs + 1) / 2 }

  func rounded(_ context: RawContext) -> [UInt16] {
    let (x, y) = (GuardedBuffer(x), GuardedBuffer([UInt16](repeating: 7, count: rows * 2 * pairs)))
    #expect(unsafe mwk_round_rows_bf16(context.pointer, rows, inputs, x.pointer, y.pointer) == mwk_ok)
    return y.values
  }

  func panels(_ context: RawContext) -> [UInt16] {
    let w = GuardedBuffer(weights.weightBytes, misalignedBy: 1)
    let panels = GuardedBuffer([UInt16](repeating: 7, count: (outputs + 63) / 64 * pairs * 128))
    var overflows = 0
    let status = unsafe mwk_pack_bf16_panels(
      context.pointer, outputs, inputs, type == .f32 ? mwk_weight_f32 : type == .f16 ? mwk_weight_f16 : mwk_weight_bf16,
      w.pointer, panels.pointer, &overflows)
    #expect(status == mwk_ok && overflows == 0)
    return panels.values
  }

  func run(_ context: RawContext, epilogue: Bool, gelu: Bool = false) -> [Float] {
    let (x, w) = (GuardedBuffer(rounded(context)), GuardedBuffer(panels(context)))
    let (b, r) = (GuardedBuffer(bias), GuardedBuffer(residual))
    let y = GuardedBuffer<Float>(count: rows * outputs)
    var job = unsafe mwk_linear_bf16_job(
      rows: rows, inputs: inputs, outputs: outputs, x: x.pointer, panels: w.pointer,
      bias: epilogue ? UnsafePointer(b.pointer) : nil, residual: epilogue ? UnsafePointer(r.pointer) : nil,
      activation: gelu ? mwk_activation_gelu : mwk_activation_none, y: y.pointer, y_stride: outputs)
    #expect(unsafe mwk_linear_bf16(context.pointer, &job) == mwk_ok)
    withExtendedLifetime((x, w, b, r)) {}
    return y.values
  }

  /// The definition, on operands rounded without the kernels.
  func reference(epilogue: Bool) -> [Float] {
    func bits(_ values: [Float], _ row: Int, _ pair: Int) -> (UInt16, UInt16) {
      let at = row * inputs + 2 * pair
      return (
        HalfPrecision.bf16(from: values[at]), 2 * pair + 1 < inputs ? HalfPrecision.bf16(from: values[at + 1]) : 0
      )
    }
    return (0..<rows).flatMap { row in
      (0..<outputs).map { output in
        let sum = (0..<pairs).reduce(Float(0)) { sum, pair in
          dotPair(sum, bits(x, row, pair), bits(weights.weights, output, pair))
        }
        return epilogue ? sum + bias[output] + residual[row * outputs + output] : sum
      }
    }
  }
}

@Suite(.enabled(if: ISA.avx512.isSupported && ISA.avx512.multipliesBFloat16)) struct LinearBFloat16Tests {
  static let cases = [
    BFloat16Case(0, 8, 8), BFloat16Case(1, 1, 1), BFloat16Case(2, 3, 17), BFloat16Case(5, 16, 64),
    BFloat16Case(7, 33, 65, .f16), BFloat16Case(13, 88, 100, .bf16), BFloat16Case(4, 515, 70), BFloat16Case(3, 0, 5),
    BFloat16Case(100, 40, 130, .f16),
  ]

  @Test(arguments: cases) func kernelsAgreeWithTheModelOfTheInstruction(layer: BFloat16Case) {
    for epilogue in [true, false] {
      let expected = layer.reference(epilogue: epilogue).bits
      for threads in [1, 2, 3, 8] {
        #expect(layer.run(RawContext(.avx512, threads: threads), epilogue: epilogue).bits == expected)
      }
    }
  }

  /// Products that lie near the smallest normal number, and sums that pass it.
  @Test func subnormalsAreZeros() {
    var layer = BFloat16Case(6, 64, 64)
    var numbers = Numbers(seed: 5)
    for index in layer.x.indices {
      layer.x[index] *= Float(sign: .plus, exponent: -Int(numbers.next() % 130), significand: 1)
    }
    layer.x[3] = 0x1p-127
    layer.x[70] = -0x1p-133
    var bytes: [UInt8] = []
    for index in layer.weights.weights.indices {
      layer.weights.weights[index] *= 0x1p-60
      let bits = layer.weights.weights[index].bitPattern
      bytes += (0..<4).map { UInt8(truncatingIfNeeded: bits >> (8 * $0)) }
    }
    layer.weights.weightBytes = bytes
    #expect(layer.run(RawContext(.avx512), epilogue: false).bits == layer.reference(epilogue: false).bits)
  }

  @Test func nanAndInfinityReachTheirRowsOnly() {
    var layer = BFloat16Case(8, 20, 70)
    layer.x[3 * 20] = .nan
    layer.x[5 * 20 + 1] = .infinity
    let y = layer.run(RawContext(.avx512, threads: 2), epilogue: true, gelu: true)
    for row in 0..<8 {
      let values = y[row * 70..<(row + 1) * 70]
      #expect(values.allSatisfy { $0.isFinite } == (row != 3 && row != 5))
      if row == 3 { #expect(values.allSatisfy { $0.isNaN }) }
    }
  }

  /// Both ways to make rounded rows, and what the face makes of them.
  @Test func theFacePassesOn() throws {
    var numbers = Numbers(seed: 3)
    let (values, weight) = (numbers.floats(5 * 21), numbers.floats(21))
    let context = try KernelContext(isa: .avx512, threads: 2)
    var layout = RegionLayout()
    let (x, y, z) = (layout.floats(105), layout.floats(105), layout.floats(5 * 30))
    let rounded = (0..<2).map { _ in layout.bytes(5 * BFloat16Weights.rowByteCount(width: 21)) }
    var arena = try Arena(byteCount: layout.byteCount)
    arena.write(values, at: x)
    let scale = TensorBytes(copying: weight)
    context.layerNorm(&arena, rows: 5, width: 21, x: x, weight: scale, bias: nil, epsilon: 1e-6, into: y)
    context.roundRows(&arena, rows: 5, width: 21, x: y, into: rounded[0])
    context.layerNormRound(&arena, rows: 5, width: 21, x: x, weight: scale, bias: nil, epsilon: 1e-6, into: rounded[1])
    #expect(arena.read(rounded[0], as: UInt16.self) == arena.read(rounded[1], as: UInt16.self))
    let exact = FloatWeights(outputs: 30, inputs: 21, bytes: TensorBytes(copying: numbers.floats(630)), type: .f32)
    let (packed, overflows) = context.bfloat16Weights(exact)
    #expect(overflows == 0)
    context.linear(
      &arena, rows: 5, rounded: rounded[0], weights: packed, epilogue: Epilogue(activation: .gelu), into: z)
    let found = arena.read(z)
    context.linear(&arena, rows: 5, x: y, weights: exact, epilogue: Epilogue(activation: .gelu), into: z)
    // 21 products of numbers below 3 and 1, both off by 2⁻⁹ of themselves at most.
    #expect(zip(found, arena.read(z)).allSatisfy { abs($0 - $1) < 0.2 })
    #expect(found != arena.read(z))
  }

  @Test func weightsThatBecomeInfiniteAreCounted() throws {
    let context = try KernelContext(isa: .avx512)
    let largest = TensorBytes(copying: [Float.greatestFiniteMagnitude, 1, .infinity, -3.4e38])
    let weights = FloatWeights(outputs: 2, inputs: 2, bytes: largest, type: .f32)
    #expect(context.bfloat16Weights(weights).overflows == 2)
  }
}

@Suite struct BFloat16SupportTests {
  @Test func kernelsWithoutTheMultiplierSayNo() {
    for isa in ISA.supported where !isa.multipliesBFloat16 {
      let layer = BFloat16Case(1, 4, 4)
      let (x, y) = (GuardedBuffer(layer.x), GuardedBuffer<UInt16>(count: 4))
      let context = RawContext(isa)
      let status = withExtendedLifetime(context) {
        unsafe mwk_round_rows_bf16(context.pointer, 1, 4, x.pointer, y.pointer)
      }
      #expect(status == mwk_unsupported)
      #expect(y.values == [0, 0, 0, 0])
    }
    #expect(!ISA.scalar.multipliesBFloat16)
  }
}
