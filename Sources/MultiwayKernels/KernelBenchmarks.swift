import CMultiwayKernels
public import MultiwayCore

/// Speeds of the kernels on this machine, in operations a second; a multiply-add counts as two.
public enum KernelBenchmarks {
  /// What the int8 multipliers of one core do at most, measured on registers only; nil where there is no such loop.
  public static func peakInt8(isa: ISA, milliseconds: Int = 100) -> Double? {
    var sink: Int32 = 1
    return peak(milliseconds) { unsafe mwk_peak_i8(isa.code, $0, &sink) }
  }

  /// What the fp32 multipliers of one core do at most, measured on registers only; nil where there is no such loop.
  public static func peakFloat32(isa: ISA, milliseconds: Int = 100) -> Double? {
    var sink: Float = 1
    return peak(milliseconds) { unsafe mwk_peak_f32(isa.code, $0, &sink) }
  }

  /// What the bfloat16 multipliers of one core do at most, measured on registers only; nil where there are none.
  public static func peakBFloat16(isa: ISA, milliseconds: Int = 100) -> Double? {
    var sink: Float = 1
    return peak(milliseconds) { unsafe mwk_peak_bf16(isa.code, $0, &sink) }
  }

  /// The int8 linear layer on rows × inputs → outputs, the best of `repetitions`.
  public static func linearInt8(
    _ context: KernelContext, rows: Int, inputs: Int, outputs: Int, activation: Activation = .none,
    repetitions: Int = 20
  ) throws(KernelError) -> Double {
    let values = pattern(outputs * inputs)
    let weights = try context.quantizeWeightPanels(TensorBytes(copying: values), outputs: outputs, inputs: inputs)
    let constants = Int8Weights(
      outputs: outputs, inputs: inputs, panels: weights.panels,
      scales: weights.scales, sums: weights.sums)
    var layout = RegionLayout()
    let x = layout.floats(rows * inputs)
    let y = layout.floats(rows * outputs)
    let quantized = QuantizedRows(
      values: layout.bytes(rows * QuantizedRows.stride(width: inputs)), scales: layout.floats(rows),
      zeros: layout.floats(rows))
    var arena = try Arena(byteCount: layout.byteCount)
    arena.write(pattern(rows * inputs), at: x)
    context.quantizeRows(&arena, rows: rows, width: inputs, x: x, into: quantized)
    let seconds = best(repetitions) {
      context.linear(
        &arena, rows: rows, x: quantized, weights: constants, epilogue: Epilogue(activation: activation), into: y)
    }
    return 2 * Double(rows) * Double(inputs) * Double(outputs) / seconds
  }

  /// The quantization of fp32 weights to int8 panels, in bytes of weights a second, the best of `repetitions`.
  public static func quantizeWeights(
    _ context: KernelContext, outputs: Int, inputs: Int, groups: Int = 1, repetitions: Int = 5
  ) -> Double {
    let weights = TensorBytes(copying: pattern(outputs * inputs))
    let seconds = best(repetitions) {
      _ = context.quantizeRows(weights, outputs: outputs, inputs: inputs, groups: groups, columnScales: nil)
    }
    return Double(weights.byteCount) / seconds
  }

  /// The fp32 linear layer on rows × inputs → outputs with fp32 weights, the best of `repetitions`.
  public static func linearFloat32(
    _ context: KernelContext, rows: Int, inputs: Int, outputs: Int, repetitions: Int = 5
  ) throws(KernelError) -> Double {
    let weights = FloatWeights(
      outputs: outputs, inputs: inputs, bytes: TensorBytes(copying: pattern(outputs * inputs)), type: .f32)
    var layout = RegionLayout()
    let x = layout.floats(rows * inputs)
    let y = layout.floats(rows * outputs)
    var arena = try Arena(byteCount: layout.byteCount)
    arena.write(pattern(rows * inputs), at: x)
    let seconds = best(repetitions) { context.linear(&arena, rows: rows, x: x, weights: weights, into: y) }
    return 2 * Double(rows) * Double(inputs) * Double(outputs) / seconds
  }

  /// The linear layer on rows × inputs → outputs in bfloat16, the best of `repetitions`; nil where the instruction set has no such
  /// multiplier.
  public static func linearBFloat16(
    _ context: KernelContext, rows: Int, inputs: Int, outputs: Int, repetitions: Int = 20
  ) throws(KernelError) -> Double? {
    guard context.isa.multipliesBFloat16 else { return nil }
    let source = FloatWeights(
      outputs: outputs, inputs: inputs, bytes: TensorBytes(copying: pattern(outputs * inputs)), type: .f32)
    let weights = context.bfloat16Weights(source).weights
    var layout = RegionLayout()
    let x = layout.floats(rows * inputs)
    let rounded = layout.bytes(rows * BFloat16Weights.rowByteCount(width: inputs))
    let y = layout.floats(rows * outputs)
    var arena = try Arena(byteCount: layout.byteCount)
    arena.write(pattern(rows * inputs), at: x)
    context.roundRows(&arena, rows: rows, width: inputs, x: x, into: rounded)
    let seconds = best(repetitions) {
      context.linear(&arena, rows: rows, rounded: rounded, weights: weights, into: y)
    }
    return 2 * Double(rows) * Double(inputs) * Double(outputs) / seconds
  }

  /// Attention of one image, in operations a second of its two products, the best of `repetitions`.
  public static func attention(
    _ context: KernelContext, tokens: Int, heads: Int, headSize: Int, arithmetic: AttentionArithmetic = .float,
    repetitions: Int = 10
  ) throws(KernelError) -> Double {
    let width = heads * headSize
    var layout = RegionLayout()
    let qkv = layout.floats(tokens * 3 * width)
    let y = layout.floats(tokens * width)
    var arena = try Arena(byteCount: layout.byteCount)
    arena.write(pattern(tokens * 3 * width), at: qkv)
    let segment = AttentionSegment(
      query: qkv, key: qkv.dropping(elements: width), value: qkv.dropping(elements: 2 * width), output: y,
      tokens: tokens, stride: 3 * width)
    let seconds = best(repetitions) {
      context.attention(
        &arena, batch: 1, heads: heads, headSize: headSize, scale: 0.125, segments: [segment], arithmetic: arithmetic)
    }
    return 4 * Double(tokens) * Double(tokens) * Double(width) / seconds
  }

  private static func peak(_ milliseconds: Int, _ loop: (Int) -> Double) -> Double? {
    guard loop(1) > 0 else { return nil }
    var fastest = 0.0
    let clock = ContinuousClock()
    let end = clock.now.advanced(by: .milliseconds(milliseconds))
    repeat {
      var operations = 0.0
      let time = clock.measure { operations = loop(20_000) }
      fastest = max(fastest, operations / (time / .seconds(1)))
    } while clock.now < end
    return fastest
  }

  static func best(_ repetitions: Int, _ body: () -> Void) -> Double {
    (0..<max(1, repetitions)).map { _ in ContinuousClock().measure(body) / .seconds(1) }.min() ?? 0
  }

  /// Numbers in −1 ..< 1 that repeat on every machine.
  static func pattern(_ count: Int) -> [Float] {
    (0..<count).map { Float(($0 &* 7919) % 2003) / 1001.5 - 1 }
  }
}
