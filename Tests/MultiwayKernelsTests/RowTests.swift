import CMultiwayKernels
import MultiwayKernels
import Testing

@Suite struct RowTests {
  static let rows = 7

  /// Rows of ordinary numbers, with every kind of difficult row among them.
  static func input(_ width: Int) -> [Float] {
    var numbers = Numbers(seed: width)
    var x = numbers.floats(rows * width, scale: 3)
    guard width > 0 else { return x }
    for i in 0..<width { x[width + i] = 0 }
    x[2 * width + width / 2] = .nan
    x[3 * width] = .infinity
    for i in 0..<width { x[4 * width + i] = (i % 2 == 0 ? 1 : -1) * 3e38 }
    for i in 0..<width { x[5 * width + i] = 0x1p-130 * Float(i % 3) }
    return x
  }

  static func layerNorm(_ context: RawContext, _ x: [Float], width: Int, weight: [Float]?, bias: [Float]?) -> [Float] {
    let (input, output) = (GuardedBuffer(x), GuardedBuffer<Float>(count: x.count))
    let (w, b) = (weight.map { GuardedBuffer($0) }, bias.map { GuardedBuffer($0) })
    unsafe _ = mwk_layer_norm_f32(
      context.pointer, rows, width, input.pointer, w?.pointer, b?.pointer, 1e-5, output.pointer)
    withExtendedLifetime((w, b)) {}
    return output.values
  }

  static func quantize(
    _ context: RawContext, _ x: [Float], width: Int, groups: Int = 1
  ) -> ([UInt8], [Float], [Int32]) {
    let input = GuardedBuffer(x)
    let q = GuardedBuffer<UInt8>(count: rows * QuantizedRows.stride(width: width))
    let (scale, zero) = (GuardedBuffer<Float>(count: groups * rows), GuardedBuffer<Int32>(count: groups * rows))
    unsafe _ = mwk_quantize_rows(
      context.pointer, rows, width, groups, input.pointer, q.pointer, scale.pointer, zero.pointer)
    return (q.values, scale.values, zero.values)
  }

  @Test(arguments: lengths) func layerNormVariantsAgree(width: Int) {
    var numbers = Numbers(seed: width + 1)
    let (weight, bias, x) = (numbers.floats(width), numbers.floats(width), Self.input(width))
    for (w, b) in [(weight, bias), (weight, nil), (nil, bias), (nil, nil)] as [([Float]?, [Float]?)] {
      checkVariants { Self.layerNorm($0, x, width: width, weight: w, bias: b).bits }
    }
  }

  @Test(arguments: [1, 15, 88, 768]) func layerNormIsCloseToExact(width: Int) {
    var numbers = Numbers(seed: width)
    let (weight, bias) = (numbers.floats(width), numbers.floats(width))
    let x = numbers.floats(Self.rows * width, scale: 3)
    let y = Self.layerNorm(RawContext(.best), x, width: width, weight: weight, bias: bias)
    for r in 0..<Self.rows {
      let row = x[(r * width)..<((r + 1) * width)].map(Double.init)
      let mean = row.reduce(0, +) / Double(width)
      let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(width)
      for i in 0..<width {
        let exact = (row[i] - mean) / (variance + 1e-5).squareRoot() * Double(weight[i]) + Double(bias[i])
        // A few roundings of numbers below 2, and of a sum of `width` terms.
        #expect(abs(Double(y[r * width + i]) - exact) <= 4e-6)
      }
    }
  }

  @Test(arguments: lengths) func quantizeVariantsAgree(width: Int) {
    let x = Self.input(width)
    checkVariants { context in
      let (q, scale, zero) = Self.quantize(context, x, width: width)
      return q.map(UInt32.init) + scale.bits + zero.map { UInt32(bitPattern: $0) }
    }
  }

  static func bits(_ quantized: ([UInt8], [Float], [Int32])) -> [UInt32] {
    var bits = quantized.0.map { UInt32($0) }
    bits += quantized.1.bits
    bits += quantized.2.map { UInt32(bitPattern: $0) }
    return bits
  }

  /// A row in groups is as many rows of a group's width, but for where their values lie.
  @Test(arguments: [(8, 2), (12, 3), (768, 3), (3072, 4)]) func groupsAreRowsOfTheirOwn(width: Int, groups: Int) {
    let x = Self.input(width)
    let part = width / groups
    let result = checkVariants { Self.bits(Self.quantize($0, x, width: width, groups: groups)) }
    let context = RawContext(.best)
    var q = [UInt8](repeating: 0, count: x.count)
    var (scale, zero): ([Float], [Int32]) = ([], [])
    for g in 0..<groups {
      var slice: [Float] = []
      for r in 0..<Self.rows { slice += x[(r * width + g * part)..<(r * width + (g + 1) * part)] }
      let own = Self.quantize(context, slice, width: part)
      scale += own.1
      zero += own.2
      for r in 0..<Self.rows {
        for i in 0..<part { q[r * width + g * part + i] = own.0[r * part + i] }
      }
    }
    #expect(result == Self.bits((q, scale, zero)))
  }

  @Test(arguments: lengths) func fusedNormalizationGivesTheSameBits(width: Int) {
    var numbers = Numbers(seed: width + 1)
    let (weight, bias, x) = (numbers.floats(width), numbers.floats(width), Self.input(width))
    let expected = checkVariants { context in
      let y = Self.layerNorm(context, x, width: width, weight: weight, bias: bias)
      let (q, scale, zero) = Self.quantize(context, y, width: width)
      return q.map(UInt32.init) + scale.bits + zero.map { UInt32(bitPattern: $0) }
    }
    let fused = checkVariants { context in
      let (input, w, b) = (GuardedBuffer(x), GuardedBuffer(weight), GuardedBuffer(bias))
      let q = GuardedBuffer<UInt8>(count: Self.rows * QuantizedRows.stride(width: width))
      let (scale, zero) = (GuardedBuffer<Float>(count: Self.rows), GuardedBuffer<Int32>(count: Self.rows))
      unsafe _ = mwk_layer_norm_quantize(
        context.pointer, Self.rows, width, 1, input.pointer, w.pointer, b.pointer, 1e-5, q.pointer, scale.pointer,
        zero.pointer)
      return q.values.map(UInt32.init) + scale.values.bits + zero.values.map { UInt32(bitPattern: $0) }
    }
    #expect(fused == expected)
  }

  @Test(arguments: [1, 5, 88, 768]) func quantizationFollowsItsDefinition(width: Int) {
    let x = Self.input(width)
    let (q, scale, zero) = Self.quantize(RawContext(.best), x, width: width)
    let stride = QuantizedRows.stride(width: width)
    for r in 0..<Self.rows {
      let row = Array(x[(r * width)..<((r + 1) * width)])
      let low = min(0, row.min() ?? 0), range = max(0, row.max() ?? 0) - low
      guard row.allSatisfy(\.isFinite), range.isFinite else {
        #expect(scale[r].isNaN && zero[r] == 0)
        continue
      }
      guard range >= 0x1p-100 else {
        #expect(scale[r] == 1 && zero[r] == 0 && q[(r * stride)..<((r + 1) * stride)].allSatisfy { $0 == 0 })
        continue
      }
      let inverse = 255 / range
      #expect(scale[r] == range / 255)
      #expect(Float(zero[r]) == (-low * inverse).rounded(.toNearestOrEven))
      for i in 0..<width {
        let value = Int32((row[i] * inverse).rounded(.toNearestOrEven)) + zero[r]
        #expect(Int32(q[r * stride + i]) == min(255, max(0, value)))
      }
    }
  }

  @Test(arguments: lengths) func l2NormalizeVariantsAgree(width: Int) {
    let x = Self.input(width)
    let y = checkVariants { context in
      let (input, output) = (GuardedBuffer(x), GuardedBuffer<Float>(count: x.count))
      unsafe _ = mwk_l2_normalize_f32(context.pointer, Self.rows, width, input.pointer, output.pointer)
      return output.values.bits
    }.floats
    guard width > 0 else { return }
    let length = y[0..<width].reduce(0) { $0 + Double($1) * Double($1) }
    #expect(abs(length - 1) < 1e-6)
    #expect(y[width..<(2 * width)].allSatisfy { $0 == 0 })
  }
}
