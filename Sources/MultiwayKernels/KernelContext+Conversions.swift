import CMultiwayKernels
public import MultiwayCore

/// Weights of one linear layer, quantized to int8.
public struct QuantizedWeightPanels: Sendable {
  /// s8 in the layout of `Int8Weights.panels`.
  public var panels: TensorBytes
  /// f32, [groups, outputs].
  public var scales: TensorBytes
  /// i32, [groups, outputs]: the sum of the s8 weights.
  public var sums: TensorBytes

  /// Groups the three tensors.
  public init(panels: TensorBytes, scales: TensorBytes, sums: TensorBytes) {
    self.panels = panels
    self.scales = scales
    self.sums = sums
  }
}

/// fp32 values stored in 16 bits each.
public struct NarrowedFloats: Sendable {
  /// Little-endian 16-bit values, as a file holds them.
  public var bytes: [UInt8]
  /// How many finite values were too large and became infinite.
  public var overflows: Int
}

extension KernelContext {
  /// Quantizes f32 `weights` [outputs, inputs] symmetrically, −127…127, with one scale for each output and group of inputs: the
  /// largest magnitude / 127.
  ///
  /// Column k is multiplied with `columnScales[k]` first, where they are given.
  /// Throws `.nonFinite` if a weight is NaN or infinite.
  public func quantizeWeightPanels(
    _ weights: TensorBytes, outputs: Int, inputs: Int, groups: Int = 1, columnScales: TensorBytes? = nil
  ) throws(KernelError) -> QuantizedWeightPanels {
    let (panels, broken) = quantizeRows(
      weights, outputs: outputs, inputs: inputs, groups: groups, columnScales: columnScales)
    if broken > 0 { throw KernelContext.nonFinite(broken, of: outputs) }
    return panels
  }

  /// The error for rows that cannot be quantized.
  public static func nonFinite(_ broken: Int, of outputs: Int) -> KernelError {
    KernelError(
      .nonFinite, "\(broken) of \(outputs) rows of weights hold a NaN or an infinity", expected: "finite weights")
  }

  /// Does what `quantizeWeightPanels` does for some of a matrix's rows, and counts those that hold a NaN or an infinity; what is given
  /// for them means nothing.
  public func quantizeRows(
    _ weights: TensorBytes, outputs: Int, inputs: Int, groups: Int, columnScales: TensorBytes?
  ) -> (panels: QuantizedWeightPanels, broken: Int) {
    precondition(weights.byteCount == product(outputs, inputs, 4), "the weights do not fill outputs × inputs")
    Int8Weights.check(inputs: inputs, groups: groups)
    defer { withExtendedLifetime((weights, columnScales)) {} }
    let source = unsafe weights.pointer(count: product(outputs, inputs), of: Float.self)
    let columns = unsafe columnScales?.pointer(count: inputs, of: Float.self)
    let panels = AlignedBuffer(byteCount: Int8Weights.panelByteCount(outputs: outputs, inputs: inputs))
    let scales = AlignedBuffer(byteCount: groups * outputs * 4)
    let sums = AlignedBuffer(byteCount: groups * outputs * 4)
    var broken = 0
    unsafe check(
      mwk_quantize_weight_panels(
        pointer, outputs, inputs, groups, source, columns, panels.mutablePointer(to: Int8.self),
        scales.mutablePointer(to: Float.self), sums.mutablePointer(to: Int32.self), &broken))
    return (QuantizedWeightPanels(panels: panels.bytes, scales: scales.bytes, sums: sums.bytes), broken)
  }

  /// Decodes `bytes` of IEEE binary16, bfloat16 or binary32 values; trailing bytes that fill no value are left out.
  public func floats(_ bytes: borrowing RawSpan, type: WeightType) -> [Float] {
    let count = bytes.byteCount / type.byteWidth
    return unsafe [Float](unsafeUninitializedCapacity: count) { target, filled in
      unsafe bytes.withUnsafeBytes { source in
        guard count > 0, let first = source.baseAddress, let out = target.baseAddress else { return }
        switch type {
        case .f32: unsafe UnsafeMutableRawPointer(out).copyMemory(from: first, byteCount: 4 * count)
        case .f16: unsafe check(mwk_f16_to_f32(pointer, count, first, out))
        case .bf16: unsafe check(mwk_bf16_to_f32(pointer, count, first, out))
        }
      }
      filled = count
    }
  }

  /// Decodes a constant of IEEE binary16, bfloat16 or binary32 values.
  public func floats(_ bytes: TensorBytes, type: WeightType) -> [Float] { floats(bytes.span, type: type) }

  /// Rounds `values` to IEEE binary16, half to even. NaN stays NaN, subnormals are kept.
  public func f16(_ values: borrowing Span<Float>) -> NarrowedFloats {
    unsafe narrowed(values, mwk_f32_to_f16)
  }

  /// Rounds `values` to bfloat16, half to even. NaN stays NaN.
  public func bf16(_ values: borrowing Span<Float>) -> NarrowedFloats {
    unsafe narrowed(values, mwk_f32_to_bf16)
  }

  @unsafe private func narrowed(
    _ values: borrowing Span<Float>,
    _ encode: (OpaquePointer?, Int, UnsafePointer<Float>?, UnsafeMutableRawPointer?, UnsafeMutablePointer<Int>?) ->
      mwk_status
  ) -> NarrowedFloats {
    var overflows = 0
    let byteCount = 2 * values.count
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { target, filled in
      unsafe values.withUnsafeBufferPointer { source in
        guard let first = source.baseAddress, let out = target.baseAddress else { return }
        unsafe check(encode(pointer, source.count, first, out, &overflows))
      }
      filled = byteCount
    }
    return NarrowedFloats(bytes: bytes, overflows: overflows)
  }
}
