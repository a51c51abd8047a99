import CMultiwayKernels
public import MultiwayCore

extension ISA {
  /// Whether these kernels and this CPU multiply pairs of bfloat16 numbers. The sums have the bits of the CPU's instruction, which other
  /// CPUs need not give.
  public var multipliesBFloat16: Bool { mwk_supports_bf16(code) }

  /// Whether this CPU has a bfloat16 multiplier that kernels exist for, whichever set is chosen.
  public static var cpuMultipliesBFloat16: Bool { mwk_cpu_has_bf16() }
}

/// The weights of a linear layer rounded to bfloat16, in the layout that the kernels read: packed once, two bytes a weight.
public struct BFloat16Weights: Sendable {
  /// The number of outputs.
  public let outputs: Int
  /// The number of inputs.
  public let inputs: Int
  /// [⌈outputs/64⌉][⌈inputs/2⌉][64][2], zero padded.
  let panels: TensorBytes

  /// The bytes that the panels of a layer take.
  public static func panelByteCount(outputs: Int, inputs: Int) -> Int {
    product((outputs + 63) / 64 * 64, rowByteCount(width: inputs))
  }

  /// The bytes of a row of `width` activations, rounded up to whole pairs.
  public static func rowByteCount(width: Int) -> Int { product((width + 1) / 2, 4) }
}

extension KernelContext {
  /// Rounds weights to bfloat16, half to even, and packs them. The instruction set must multiply bfloat16.
  /// - Returns: the weights, and how many finite ones became infinite.
  public func bfloat16Weights(_ weights: FloatWeights) -> (weights: BFloat16Weights, overflows: Int) {
    defer { withExtendedLifetime(weights) {} }
    let panels = AlignedBuffer(
      byteCount: BFloat16Weights.panelByteCount(outputs: weights.outputs, inputs: weights.inputs))
    var overflows = 0
    let source = unsafe weights.bytes.pointer(
      count: product(weights.outputs, weights.inputs, weights.type.byteWidth), of: UInt8.self)
    unsafe check(
      mwk_pack_bf16_panels(
        pointer, weights.outputs, weights.inputs, weights.type.code, source, panels.mutablePointer(to: UInt16.self),
        &overflows))
    return (BFloat16Weights(outputs: weights.outputs, inputs: weights.inputs, panels: panels.bytes), overflows)
  }

  /// Rounds rows [rows, width] of f32 to bfloat16, half to even; those of `y` are `BFloat16Weights.rowByteCount` bytes apart.
  public func roundRows(_ arena: inout Arena, rows: Int, width: Int, x: Region, into y: Region) {
    unsafe check(
      mwk_round_rows_bf16(
        pointer, rows, width, arena.pointer(x, count: product(rows, width)),
        arena.pairs(y, rows: rows, width: width)))
  }

  /// `layerNorm` and then `roundRows`, with the same bits, without storing the rows in between.
  public func layerNormRound(
    _ arena: inout Arena, rows: Int, width: Int, x: Region, weight: TensorBytes?, bias: TensorBytes?, epsilon: Float,
    into y: Region
  ) {
    defer { withExtendedLifetime((weight, bias)) {} }
    unsafe check(
      mwk_layer_norm_round_bf16(
        pointer, rows, width, arena.pointer(x, count: product(rows, width)),
        weight?.pointer(count: width, of: Float.self), bias?.pointer(count: width, of: Float.self), epsilon,
        arena.pairs(y, rows: rows, width: width)))
  }

  /// y [rows, outputs] = epilogue(x · weightsᵀ) on rounded rows, summed in fp32 by the CPU's instruction.
  public func linear(
    _ arena: inout Arena, rows: Int, rounded x: Region, weights: BFloat16Weights, epilogue: Epilogue = Epilogue(),
    into y: Region
  ) {
    defer { withExtendedLifetime((weights, epilogue)) {} }
    precondition(!y.overlaps(x) || rows == 0, "the result overlaps its input")
    let count = product(rows, weights.outputs)
    var job = unsafe mwk_linear_bf16_job()
    unsafe job.rows = rows
    unsafe job.inputs = weights.inputs
    unsafe job.outputs = weights.outputs
    unsafe job.x = UnsafePointer(arena.pairs(x, rows: rows, width: weights.inputs))
    unsafe job.panels = weights.panels.pointer(
      count: BFloat16Weights.panelByteCount(outputs: weights.outputs, inputs: weights.inputs) / 2, of: UInt16.self)
    unsafe job.bias = epilogue.bias?.pointer(count: weights.outputs, of: Float.self)
    unsafe job.residual = epilogue.residual.map { unsafe UnsafePointer(arena.pointer($0, count: count)) }
    unsafe job.activation = epilogue.activation.code
    unsafe job.y = arena.pointer(y, count: count)
    unsafe job.y_stride = weights.outputs
    unsafe check(mwk_linear_bf16(pointer, &job))
  }
}

extension Arena {
  /// The checked address of rounded rows.
  @unsafe fileprivate func pairs(_ region: Region, rows: Int, width: Int) -> UnsafeMutablePointer<UInt16> {
    unsafe pointer(region, count: product(rows, BFloat16Weights.rowByteCount(width: width) / 2), of: UInt16.self)
  }
}
