import MultiwayCore
import MultiwayGraph
import MultiwayKernels

extension Materializer {
  /// Quantizes a matrix per output channel, symmetric in −127…127: scale = max|w| / 127, q = round-half-even(w · 127 / max|w|).
  /// A channel below 2⁻¹⁰⁰ counts as zero: 127 / max|w| would overflow.
  mutating func quantize(_ matrix: QuantizedMatrix) throws -> QuantizedWeightPanels {
    if let quantized, quantized.matrix === matrix { return quantized.tensors }
    let context = try context()
    let (outputs, inputs) = (matrix.weight.shape[0], matrix.weight.shape[1])
    let (weights, columns) = try factors(of: matrix.weight)
    do throws(KernelError) {
      let tensors = try context.quantizeWeightPanels(
        weights, outputs: outputs, inputs: inputs, groups: matrix.groups, columnScales: columns)
      quantized = (matrix, tensors)
      return tensors
    } catch {
      throw QuantizationError(
        .nonFinite, error.diagnosis.found, expected: error.diagnosis.expected,
        remedy: "the checkpoint is damaged or its training diverged: check the source",
        tensor: matrix.weight.sources.first?.name)
    }
  }

  /// The kernels that do the work, with one thread a core: the results do not depend on how many there are.
  mutating func context() throws -> KernelContext {
    if let kernels { return kernels }
    let context = try KernelContext(isa: try ISA.selected(), threads: KernelContext.coreCount)
    kernels = context
    return context
  }

  /// A matrix as stored fp32 elements in place and factors of its columns, where it is no more than that; computed otherwise.
  private mutating func factors(of weight: TensorExpression) throws -> (weights: TensorBytes, columns: TensorBytes?) {
    if let (stored, factor, scales) = Materializer.product(weight), stored.dtype == .f32 {
      let elements = try stored.contiguousBytes()
      if elements.isAligned(to: 4) {
        guard factor != 1 || scales != nil else { return (elements, nil) }
        let columns = try scales.map { try floats(of: $0) } ?? [Float](repeating: 1, count: weight.shape[1])
        return (elements, TensorBytes(copying: columns.map { $0 * factor }))
      }
    }
    return (TensorBytes(copying: try floats(of: weight)), nil)
  }

  /// A stored matrix times a power of two times scales of its columns. For other factors the order of the roundings would matter.
  private static func product(
    _ expression: TensorExpression
  ) -> (stored: StoredTensor, factor: Float, scales: TensorExpression?)? {
    switch expression {
    case .columnsScaled(let source, let scales):
      guard case (let stored, let factor, nil)? = product(source) else { return nil }
      return (stored, factor, scales)
    case .scaled(let source, let factor):
      guard factor.significand == 1, factor.isNormal, case (let stored, 1, nil)? = product(source) else { return nil }
      return (stored, factor, nil)
    default: return view(of: expression).map { ($0, 1, nil) }
    }
  }
}
