import MultiwayCore
import MultiwayGraph
import MultiwayKernels

extension Materializer {
  /// Quantizes a matrix per output channel, symmetric in −127…127: scale = max|w| / 127, q = round-half-even(w · 127 / max|w|).
  /// A channel below 2⁻¹⁰⁰ counts as zero: 127 / max|w| would overflow.
  mutating func quantize(_ matrix: QuantizedMatrix) throws -> QuantizedWeightPanels {
    if let quantized, quantized.matrix === matrix { return quantized.tensors }
    let shape = QuantizedMatrix.panelShape(outputs: matrix.weight.shape[0], inputs: matrix.weight.shape[1])
    let panels = AlignedBuffer(byteCount: shape.elementCount)
    var offset = 0
    var tensors = try quantize(matrix, pieceSize: peeks ? StoredTensor.pieceSize : .max) { piece in
      panels.copy(piece.span, at: offset)
      offset += piece.byteCount
    }
    tensors.panels = panels.bytes
    quantized = (matrix, tensors)
    return tensors
  }

  /// Quantizes some panels at a time and hands them on; scales and sums come back whole, the panels do not.
  /// - Parameter inspect: is shown the weights of each piece, without the factors of their columns where these are rows of a stored matrix.
  mutating func quantize(
    _ matrix: QuantizedMatrix, pieceSize: Int,
    inspect: (_ rows: Range<Int>, _ weights: TensorBytes) -> Void = { _, _ in },
    _ emit: (TensorBytes) throws -> Void
  ) throws -> QuantizedWeightPanels {
    let context = try context()
    let (outputs, inputs, groups) = (matrix.weight.shape[0], matrix.weight.shape[1], matrix.groups)
    let source = try int8Source(matrix.weight)
    let panelSize = QuantizedMatrix.panelOutputs * inputs * MemoryLayout<Float>.size
    let step = max(1, pieceSize / max(1, panelSize)) * QuantizedMatrix.panelOutputs
    let (scales, sums) = (
      AlignedBuffer(byteCount: groups * outputs * 4), AlignedBuffer(byteCount: groups * outputs * 4)
    )
    var broken = 0
    for first in stride(from: 0, to: outputs, by: min(step, outputs)) {
      let rows = first..<min(outputs, first + min(step, outputs))
      let weights = try rowsToQuantize(rows, source, matrix.weight)
      inspect(rows, weights)
      let (part, brokenRows) = context.quantizeRows(
        weights, outputs: rows.count, inputs: inputs, groups: groups, columnScales: source.columns)
      broken += brokenRows
      for group in 0..<groups {
        let (from, to) = (group * rows.count * 4, (group * outputs + first) * 4)
        let groupScales = part.scales.extracting(from..<from + rows.count * 4)
        let groupSums = part.sums.extracting(from..<from + rows.count * 4)
        scales.copy(groupScales.span, at: to)
        sums.copy(groupSums.span, at: to)
      }
      try emit(part.panels)
      if rows.count < outputs || peeks { discard(matrix.weight) }
    }
    if broken > 0 {
      let error = KernelContext.nonFinite(broken, of: outputs)
      throw QuantizationError(
        .nonFinite, error.diagnosis.found, expected: error.diagnosis.expected,
        remedy: "the checkpoint is damaged or its training diverged: check the source",
        tensor: matrix.weight.sources.first?.name)
    }
    return QuantizedWeightPanels(panels: AlignedBuffer(byteCount: 0).bytes, scales: scales.bytes, sums: sums.bytes)
  }

  /// Where the rows of a matrix come from: in place where it is no more than a stored fp32 matrix with factors of its columns.
  private struct Int8Source {
    var stored: StoredTensor?
    var columns: TensorBytes?
    /// All elements, where they cannot be computed row by row.
    var whole: TensorBytes?
  }

  private mutating func int8Source(_ weight: TensorExpression) throws -> Int8Source {
    if let (stored, factor, scales) = Materializer.product(weight), stored.dtype == .f32, stored.workingByteCount == 0 {
      guard factor != 1 || scales != nil else { return Int8Source(stored: stored) }
      let columns = try scales.map { try floats(of: $0) } ?? [Float](repeating: 1, count: weight.shape[1])
      return Int8Source(stored: stored, columns: TensorBytes(copying: columns.map { $0 * factor }))
    }
    if Materializer.rowStep(of: weight, pieceSize: 1) != nil { return Int8Source() }
    return Int8Source(whole: TensorBytes(copying: try floats(of: weight)))
  }

  private mutating func rowsToQuantize(
    _ rows: Range<Int>, _ source: Int8Source, _ weight: TensorExpression
  ) throws -> TensorBytes {
    let width = weight.shape[1] * MemoryLayout<Float>.size
    if let whole = source.whole { return whole.extracting(rows.lowerBound * width..<rows.upperBound * width) }
    let matrix = source.stored.map { TensorExpression.stored($0) } ?? weight
    let part = rows.count == weight.shape[0] ? matrix : Materializer.rows(rows, of: matrix)
    if source.stored != nil, let stored = Materializer.view(of: part) {
      let bytes = try elements(of: stored)
      return bytes.isAligned(to: 4) ? bytes : TensorBytes(copying: bytes.span)
    }
    return TensorBytes(copying: try floats(of: part))
  }

  /// A stored matrix times a power of two times scales of its columns. For other factors the order of the roundings would matter.
  static func product(
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
