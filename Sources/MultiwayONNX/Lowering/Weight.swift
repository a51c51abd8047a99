import MultiwayCore
import MultiwayGraph
import MultiwayQuantization

/// A tensor of the model as it is planned: its elements are computed when they are written.
struct Weight {
  /// Where the elements come from.
  enum Source {
    /// Numbers that are there already: shapes, axes.
    case bytes([UInt8])
    /// Floating-point elements; f32, f16 or bf16.
    case floats(TensorExpression)
    /// The index of a relative bias, i16 in the graph and int32 here, whose elements must be rows of a table of so many.
    case biasIndex(TensorExpression, rows: Int)
    /// A group of inputs of int8 panels, as a matrix [inputs, outputs].
    case panels(TensorExpression, inputs: Range<Int>, of: QuantizedLinear)
  }

  var name: String
  var type: ONNXElementType
  var dimensions: [Int]
  var source: Source

  /// The tensors of files that the elements are computed from.
  var sources: [StoredTensor] {
    switch source {
    case .bytes: []
    case .floats(let expression), .biasIndex(let expression, _), .panels(let expression, _, _):
      expression.sources.flatMap(\.sources)
    }
  }

  /// The size in bytes; nil on overflow.
  var byteCount: Int? {
    guard let shape = Shape(checking: dimensions) else { return nil }
    let (count, overflow) = shape.elementCount.multipliedReportingOverflow(by: type.byteWidth)
    return overflow ? nil : count
  }

  /// How much memory `forEachPiece` takes at the most.
  func workingByteCount(pieceSize: Int) -> Int {
    let own = byteCount ?? .max / 8
    func sum(_ sizes: Int...) -> Int { sizes.reduce(0) { $0.addingReportingOverflow($1).overflow ? .max : $0 + $1 } }
    switch source {
    case .bytes: return sum(own, own)
    case .floats(let expression):
      guard expression.isExchanged, expression.sources.allSatisfy({ $0.workingByteCount == 0 }) else {
        return sum(Materializer.workingByteCount(of: expression, pieceSize: pieceSize), pieceSize)
      }
      // Each piece of an exchanged matrix, which is gathered and computed with, reads from all of its pages.
      let piece = max(pieceSize, own / max(1, dimensions.first ?? 1))
      return sum(expression.sources.reduce(0) { sum($0, $1.storage.byteCount) }, 4 * piece)
    case .biasIndex: return sum(own, own, own)
    case .panels(let expression, _, let linear):
      let matrix = linear.inputs.multipliedReportingOverflow(by: linear.outputs)
      let size = matrix.overflow ? .max / 16 : matrix.partialValue
      // All weights with what quantizes them at once, the panels and a copy, and the group twice.
      return sum(Materializer.workingByteCount(of: expression, pieceSize: size * 4), size, size, own, own)
    }
  }

  /// Calls `body` with the elements in pieces of at most about `pieceSize`, so that a large tensor passes through bounded memory.
  func forEachPiece(
    _ materializer: inout Materializer, pieceSize: Int, _ body: (borrowing RawSpan) throws -> Void
  ) throws {
    switch source {
    case .bytes(let bytes):
      let content = TensorBytes(copying: bytes)
      try body(content.span)
    case .floats(let expression): try materializer.forEachPiece(of: expression, pieceBytes: pieceSize, body)
    case .biasIndex(let expression, let rows):
      let index = try materializer.biasIndex(of: expression, rows: rows)
      let wide = TensorBytes(copying: index.array(of: Int16.self).map { Int32($0) })
      try body(wide.span)
    case .panels(let expression, let inputs, let linear):
      let panels = try materializer.bytes(of: expression).array(of: Int8.self)
      var matrix: [Int8] = []
      matrix.reserveCapacity(inputs.count * linear.outputs)
      for input in inputs {
        for output in 0..<linear.outputs {
          matrix.append(panels[Int8Panels.offset(output: output, input: input, inputs: linear.inputs)])
        }
      }
      let transposed = TensorBytes(copying: matrix)
      try body(transposed.span)
    }
  }
}

extension TensorExpression {
  /// True where axes of a stored tensor are exchanged, and then rows computed one by one.
  fileprivate var isExchanged: Bool {
    switch self {
    case .permuted(let source, _): source.isStored
    case .cast(let source, _), .scaled(let source, _), .rowsScaled(let source, _), .columnsScaled(let source, _),
      .rows(let source, _), .columns(let source, _), .reshaped(let source, _):
      source.isExchanged
    default: false
    }
  }

  /// True for a stored tensor in whatever shape.
  private var isStored: Bool {
    switch self {
    case .stored: true
    case .reshaped(let source, _): source.isStored
    default: false
    }
  }

  /// The matrix with its axes exchanged, the exchange done before the arithmetic, so that it can be cut into pieces.
  var transposed: TensorExpression {
    switch self {
    case .cast(let source, let dtype): .cast(source.transposed, dtype)
    case .scaled(let source, let factor): .scaled(source.transposed, by: factor)
    case .rowsScaled(let source, let scales): .columnsScaled(source.transposed, by: scales)
    case .columnsScaled(let source, let scales): .rowsScaled(source.transposed, by: scales)
    case .rows(let source, let range): .columns(source.transposed, range)
    case .columns(let source, let range): .rows(source.transposed, range)
    default: .permuted(self, axes: [1, 0])
    }
  }
}
