import CMultiwayKernels
import MultiwayCore
import MultiwayKernels
import Testing

/// One fp32 linear layer.
struct FloatCase: CustomTestStringConvertible {
  var rows: Int, inputs: Int, outputs: Int, type: WeightType
  var x: [Float], weights: [Float], weightBytes: [UInt8], bias: [Float], residual: [Float]
  /// Extra elements between rows.
  let gap = 3

  var testDescription: String { "\(rows)×\(inputs)→\(outputs) \(type)" }

  init(_ rows: Int, _ inputs: Int, _ outputs: Int, _ type: WeightType) {
    (self.rows, self.inputs, self.outputs, self.type) = (rows, inputs, outputs, type)
    var numbers = Numbers(seed: rows * 31 + inputs * 7 + outputs)
    x = numbers.floats(max(0, rows * (inputs + gap) - gap))
    let values = numbers.floats(outputs * inputs, scale: 0.3)
    (bias, residual) = (numbers.floats(outputs), numbers.floats(max(0, rows * (outputs + gap) - gap)))
    switch type {
    case .f32:
      weights = values
      weightBytes = values.flatMap { value in
        (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * $0)) }
      }
    case .f16:
      let halves = values.map(HalfPrecision.f16(from:))
      weights = halves.map(HalfPrecision.float(fromF16:))
      weightBytes = halves.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }
    case .bf16:
      let halves = values.map(HalfPrecision.bf16(from:))
      weights = halves.map(HalfPrecision.float(fromBF16:))
      weightBytes = halves.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }
    }
  }

  /// `odd` puts the weights at an odd address, as a safetensors file may.
  func run(_ context: RawContext, odd: Bool = true, epilogue: Bool, gelu: Bool = false) -> [Float] {
    let (x, w) = (GuardedBuffer(x), GuardedBuffer(weightBytes, misalignedBy: odd ? 1 : 0))
    let (b, r) = (GuardedBuffer(bias), GuardedBuffer(residual))
    let y = GuardedBuffer([Float](repeating: 7, count: residual.count))
    var job = unsafe mwk_linear_f32_job(
      rows: rows, inputs: inputs, outputs: outputs, x: x.pointer, x_stride: inputs + gap, weight: w.pointer,
      weight_type: type == .f32 ? mwk_weight_f32 : type == .f16 ? mwk_weight_f16 : mwk_weight_bf16,
      bias: epilogue ? UnsafePointer(b.pointer) : nil, residual: epilogue ? UnsafePointer(r.pointer) : nil,
      activation: gelu ? mwk_activation_gelu : mwk_activation_none, y: y.pointer, y_stride: outputs + gap)
    #expect(unsafe mwk_linear_f32(context.pointer, &job) == mwk_ok)
    withExtendedLifetime((x, w, b, r)) {}
    return y.values
  }

  /// The definition: one chain of fma a sum.
  func reference(epilogue: Bool) -> [Float] {
    var y = [Float](repeating: 7, count: residual.count)
    for r in 0..<rows {
      for o in 0..<outputs {
        var sum: Float = 0
        for i in 0..<inputs { sum = sum.addingProduct(x[r * (inputs + gap) + i], weights[o * inputs + i]) }
        let at = r * (outputs + gap) + o
        y[at] = epilogue ? sum + bias[o] + residual[at] : sum
      }
    }
    return y
  }
}

@Suite struct LinearFloatTests {
  static let cases = WeightType.allCases.flatMap { type in
    [
      FloatCase(0, 8, 8, type), FloatCase(1, 1, 1, type), FloatCase(2, 3, 17, type), FloatCase(6, 16, 64, type),
      FloatCase(7, 33, 65, type), FloatCase(13, 88, 100, type), FloatCase(4, 515, 70, type), FloatCase(3, 0, 5, type),
    ]
  }

  @Test(arguments: cases) func variantsAgreeWithTheDefinition(layer: FloatCase) {
    for epilogue in [true, false] {
      let y = checkVariants { layer.run($0, epilogue: epilogue).bits }
      #expect(y == layer.reference(epilogue: epilogue).bits)
    }
    checkVariants { layer.run($0, odd: false, epilogue: true, gelu: true).bits }
  }

  @Test(arguments: [FloatCase(197, 64, 192, .f32), FloatCase(800, 16, 66, .bf16), FloatCase(20, 1100, 64, .f16)])
  func modelShapes(layer: FloatCase) {
    checkVariants { layer.run($0, epilogue: true).bits }
  }

  /// Up to six rows go another way through the weights than more of them do.
  @Test(arguments: WeightType.allCases) func fewRowsHaveTheBitsOfMany(type: WeightType) {
    for (inputs, outputs) in [(1, 1), (15, 16), (16, 17), (17, 63), (31, 64), (32, 65), (33, 130), (530, 80)] {
      let many = FloatCase(7, inputs, outputs, type)
      let expected = many.run(RawContext(.scalar), epilogue: true, gelu: true).bits
      checkVariants(threads: [1, 2]) { context in
        (1...6).flatMap { rows in
          var few = many
          few.rows = rows
          few.x = Array(many.x.prefix(rows * (inputs + many.gap) - many.gap))
          few.residual = Array(many.residual.prefix(rows * (outputs + many.gap) - many.gap))
          let y = few.run(context, epilogue: true, gelu: true).bits
          #expect(y == Array(expected.prefix(y.count)), "\(rows)×\(inputs)→\(outputs)")
          return y
        }
      }
    }
  }

  @Test func nanReachesItsRowOnly() {
    var layer = FloatCase(8, 20, 70, .f32)
    layer.x[3 * 23] = .nan
    let y = checkVariants { layer.run($0, epilogue: true, gelu: true).bits }.floats
    for r in 0..<8 { #expect((0..<70).allSatisfy { y[r * 73 + $0].isNaN == (r == 3) }) }
  }
}
