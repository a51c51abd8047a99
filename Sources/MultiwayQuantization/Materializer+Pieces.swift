public import MultiwayCore
public import MultiwayGraph
import MultiwayKernels

/// Tensors of any size in pieces, so that they pass through bounded memory.
extension Materializer {
  /// Calls `body` with the elements in order, in pieces of at most about `pieceBytes`, so that a table of any size passes
  /// through bounded memory.
  public mutating func forEachPiece(
    of expression: TensorExpression, pieceBytes: Int = 16 << 20, _ body: (borrowing RawSpan) throws -> Void
  ) throws {
    let discards = discardsSources
    try stream(expression, pieceSize: pieceBytes) { piece, stored in
      try body(piece.span)
      if discards { stored?.discard() }
    }
    if discardsSources { for source in expression.sources { source.discard() } }
  }

  /// Calls `body` with the elements in order, in pieces of at most about `pieceSize` bytes.
  /// - Parameter body: takes a piece and, where it lies in place in a source, the tensor there, whose pages may go when the piece is done with.
  public mutating func stream(
    _ expression: TensorExpression, pieceSize: Int,
    _ body: (_ piece: TensorBytes, _ stored: StoredTensor?) throws -> Void
  ) throws {
    if peeks, let stored = Materializer.view(of: expression) {
      return try stored.stream(pieceSize: pieceSize, noting: claim) { try body($0, stored) }
    }
    if case .quantized(let matrix, .panels) = expression {
      let tensors = try quantize(matrix, pieceSize: pieceSize) { try body($0, nil) }
      quantized = (matrix, tensors)
      return
    }
    guard let step = Materializer.rowStep(of: expression, pieceSize: pieceSize) else {
      let elements = try bytes(of: expression)
      let stored = Materializer.view(of: expression)
      for start in stride(from: 0, to: elements.byteCount, by: pieceSize) {
        try body(elements.extracting(start..<min(elements.byteCount, start + pieceSize)), stored)
      }
      return discard(expression)
    }
    let stored = Materializer.view(of: expression)
    let rows = expression.shape[0]
    for first in stride(from: 0, to: rows, by: step) {
      try body(try bytes(of: Materializer.rows(first..<min(rows, first + step), of: expression)), stored)
      if stored == nil { discard(expression) }
    }
  }

  /// Calls `body` with the rows of a floating-point matrix as fp32, some at a time.
  mutating func forEachRows(
    of matrix: TensorExpression, pieceSize: Int = StoredTensor.pieceSize,
    _ body: (_ rows: Range<Int>, _ elements: TensorBytes) throws -> Void
  ) throws {
    let rows = matrix.shape[0]
    let step = Materializer.rowStep(of: matrix, pieceSize: pieceSize) ?? max(1, rows)
    for first in stride(from: 0, to: rows, by: step) {
      let range = first..<min(rows, first + step)
      let part = range.count == rows ? matrix : Materializer.rows(range, of: matrix)
      if let stored = Materializer.view(of: part), stored.dtype == .f32 {
        let bytes = try elements(of: stored)
        try body(range, bytes.isAligned(to: 4) ? bytes : TensorBytes(copying: bytes.span))
        discard(matrix)
      } else {
        try body(range, TensorBytes(copying: try floats(of: part)))
      }
    }
  }

  /// Lets the pages of an expression's sources go, of those that can be read in parts: others would be unpacked again.
  func discard(_ expression: TensorExpression) {
    guard discardsSources else { return }
    for source in expression.sources where !peeks || source.workingByteCount == 0 { source.discard() }
  }

  /// How many rows of an expression make a piece; nil where it is computed as a whole.
  static func rowStep(of expression: TensorExpression, pieceSize: Int) -> Int? {
    let shape = expression.shape
    guard shape.rank > 1, shape[0] > 1, isRowwise(expression),
      expression.sources.allSatisfy({ $0.workingByteCount == 0 })
    else { return nil }
    // What is computed passes through fp32 on its way.
    let bits = max(expression.dtype.bitWidth, view(of: expression) == nil ? 32 : 0)
    var elements = shape.elementCount / shape[0]
    if case .blockBytes(let source, _) = expression { elements = source.shape.elementCount / shape[0] }
    let (width, overflow) = elements.multipliedReportingOverflow(by: bits)
    guard !overflow, width > 0 else { return nil }
    let step = max(1, pieceSize / max(1, (width + 7) / 8))
    // Packed elements are cut between bytes only.
    guard width % 8 == 0, step < shape[0] else { return nil }
    return step
  }

  /// How much memory `stream` takes for an expression at the most, its pieces not counted.
  public static func workingByteCount(of expression: TensorExpression, pieceSize: Int) -> Int {
    func sum(_ sizes: [Int]) -> Int { sizes.reduce(0) { $0.addingReportingOverflow($1).overflow ? .max : $0 + $1 } }
    func floats(_ expression: TensorExpression) -> Int { expression.shape.byteCount(of: .f32) ?? .max / 8 }
    if let stored = view(of: expression) { return sum([stored.workingByteCount, pieceSize]) }
    let sources = sum(expression.sources.map(\.workingByteCount))
    switch expression {
    case .quantized(let matrix, _):
      let panel = QuantizedMatrix.panelOutputs * matrix.weight.shape[1] * 4
      // The weights, with factors of their columns, and the panels of a piece; scales and sums of all.
      let piece = sum([max(panel, pieceSize) / 4 * 9, matrix.groups * matrix.weight.shape[0] * 8])
      let isInPlace = product(matrix.weight).map { $0.stored.dtype == .f32 && $0.stored.workingByteCount == 0 } ?? false
      let whole = rowStep(of: matrix.weight, pieceSize: panel) == nil && !isInPlace
      return sum([sources, piece, whole ? sum([floats(matrix.weight), floats(matrix.weight)]) : 0])
    case .shiftedBias(_, let weight, _):
      let rows = rowStep(of: weight, pieceSize: pieceSize) ?? weight.shape[0]
      let width = weight.shape[1] * 4
      let (matrix, overflow) = rows.multipliedReportingOverflow(by: width * 2)
      return sum([sources, overflow ? .max : matrix, floats(expression), floats(expression)])
    default:
      if let step = rowStep(of: expression, pieceSize: pieceSize) {
        var elements = expression.shape.elementCount / expression.shape[0]
        if case .blockBytes(let source, _) = expression { elements = source.shape.elementCount / expression.shape[0] }
        // Views, their numbers, and what is made of them.
        return sum([sources, step * elements * 12])
      }
      let all = sum(expression.sources.map { $0.shape.byteCount(of: .f32) ?? .max / 8 })
      return sum([sources, all, all, floats(expression), floats(expression)])
    }
  }
}
