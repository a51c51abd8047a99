import CMultiwayKernels
public import MultiwayCore

/// Weights of one linear layer, quantized to int8.
public struct QuantizedWeightPanels: Sendable {
  /// s8 in the layout of `Int8Weights.panels`.
  public var panels: [UInt8]
  /// One scale an output.
  public var scales: [Float]
  /// The sum of the s8 weights of each output.
  public var sums: [Int32]
}

/// fp32 values stored in 16 bits each.
public struct NarrowedFloats: Sendable {
  /// Little-endian 16-bit values, as a file holds them.
  public var bytes: [UInt8]
  /// How many finite values were too large and became infinite.
  public var overflows: Int
}

extension KernelContext {
  /// Quantizes `weights` [outputs, inputs] symmetrically, −127…127, one scale an output: the largest magnitude / 127.
  ///
  /// Throws `.nonFinite` if a weight is NaN or infinite.
  public func quantizeWeightPanels(
    _ weights: borrowing Span<Float>, outputs: Int, inputs: Int
  ) throws(KernelError) -> QuantizedWeightPanels {
    precondition(weights.count == product(outputs, inputs), "the weights do not fill outputs × inputs")
    precondition(inputs <= Int8Weights.maximumInputs, "int32 sums could overflow")
    var scales: [Float] = []
    var sums: [Int32] = []
    var broken = 0
    let byteCount = Int8Weights.panelByteCount(outputs: outputs, inputs: inputs)
    let panels = unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { panels, filled in
      unsafe scales = [Float](unsafeUninitializedCapacity: outputs) { scales, scaleCount in
        unsafe sums = [Int32](unsafeUninitializedCapacity: outputs) { sums, sumCount in
          if let target = panels.baseAddress, let scale = scales.baseAddress, let sum = sums.baseAddress, byteCount > 0
          {
            unsafe weights.withUnsafeBufferPointer { source in
              guard let first = source.baseAddress else { return }
              let signed = unsafe UnsafeMutableRawPointer(target).assumingMemoryBound(to: Int8.self)
              unsafe check(mwk_quantize_weight_panels(pointer, outputs, inputs, first, signed, scale, sum, &broken))
            }
          } else {
            unsafe scales.initialize(repeating: 1)
            unsafe sums.initialize(repeating: 0)
          }
          sumCount = outputs
        }
        scaleCount = outputs
      }
      filled = byteCount
    }
    guard broken == 0 else {
      throw KernelError(
        .nonFinite, "\(broken) of \(outputs) rows of weights hold a NaN or an infinity", expected: "finite weights")
    }
    return QuantizedWeightPanels(panels: panels, scales: scales, sums: sums)
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
