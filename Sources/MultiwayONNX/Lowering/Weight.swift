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

  /// Calls `body` with the elements in pieces, so that a large tensor passes through bounded memory.
  func forEachPiece(_ materializer: inout Materializer, _ body: (borrowing RawSpan) throws -> Void) throws {
    switch source {
    case .bytes(let bytes):
      let content = TensorBytes(copying: bytes)
      try body(content.span)
    case .floats(let expression): try materializer.forEachPiece(of: expression, body)
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
