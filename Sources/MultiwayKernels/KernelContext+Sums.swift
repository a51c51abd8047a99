import CMultiwayKernels
public import MultiwayCore

/// Sums over rows of weights in double precision, in one shape: the same bits on every machine (CMultiwayKernels.h). All run on the
/// calling thread.
extension KernelContext {
  /// `start + matrix · vector` for fp32 rows [rows, inputs], each sum rounded once; `start` is empty for zeros.
  public func shiftedBias(_ matrix: TensorBytes, vector: [Float], start: ArraySlice<Float>) -> [Float] {
    let rows = rowCount(matrix, inputs: vector.count)
    precondition(start.isEmpty || start.count == rows, "one start a row")
    return unsafe [Float](unsafeUninitializedCapacity: rows) { target, filled in
      unsafe vector.withUnsafeBufferPointer { vector in
        unsafe start.withUnsafeBufferPointer { start in
          unsafe mwk_shifted_bias(
            pointer, rows, vector.count, matrix.pointer(count: rows * vector.count, of: Float.self),
            vector.baseAddress, start.isEmpty ? nil : start.baseAddress, target.baseAddress)
        }
      }
      filled = rows
    }
  }

  /// Σ element² · squares of each fp32 row [rows, inputs], and Σ element · shift; zeros where `shift` is empty.
  public func moments(
    _ matrix: TensorBytes, squares: [Double], shift: [Float]
  ) -> (squares: [Double], means: [Double]) {
    let rows = rowCount(matrix, inputs: squares.count)
    precondition(shift.isEmpty || shift.count == squares.count, "one shift a column")
    var (sums, means) = ([Double](repeating: 0, count: rows), [Double](repeating: 0, count: rows))
    unsafe squares.withUnsafeBufferPointer { squares in
      unsafe shift.withUnsafeBufferPointer { shift in
        unsafe mwk_row_moments(
          pointer, rows, squares.count, matrix.pointer(count: rows * squares.count, of: Float.self),
          squares.baseAddress, shift.isEmpty ? nil : shift.baseAddress, &sums, &means)
      }
    }
    return (sums, means)
  }

  /// Σ element² of each column of fp32 rows [rows, inputs].
  public func columnSquares(rows: [Float], inputs: Int) -> [Double] {
    var squares = [Double](repeating: 0, count: inputs)
    unsafe mwk_column_squares(pointer, count(rows.count, of: inputs), inputs, rows, &squares)
    return squares
  }

  /// The products of fp32 rows [rows, inputs] with tokens [tokens, inputs], [tokens, rows].
  public func products(rows: [Float], tokens: [Float], inputs: Int) -> [Double] {
    let (rowCount, tokenCount) = (count(rows.count, of: inputs), count(tokens.count, of: inputs))
    var products = [Double](repeating: 0, count: rowCount * tokenCount)
    unsafe mwk_row_products(pointer, rowCount, inputs, tokenCount, rows, tokens, &products)
    return products
  }

  /// Tokens [tokens, inputs] divided by factors of their columns, quantized as `quantizeRows` does, and without the zero point: at most 255
  /// in magnitude. A token that holds a value which is not finite has the scale NaN.
  public func quantizedTokens(_ tokens: [Float], dividedBy factors: [Float]) -> (values: [Int16], scales: [Float]) {
    let inputs = factors.count
    let tokenCount = count(tokens.count, of: inputs)
    var values = [Int16](repeating: 0, count: tokens.count)
    var scales = [Float](repeating: 0, count: tokenCount)
    var divided = [Float](repeating: 0, count: inputs)
    var bytes = [UInt8](repeating: 0, count: QuantizedRows.stride(width: inputs))
    unsafe mwk_quantize_tokens(pointer, tokenCount, inputs, tokens, factors, &divided, &bytes, &values, &scales)
    return (values, scales)
  }

  /// Rows times factors of their columns, quantized to −127…127, times integers of at most 255 in magnitude.
  /// - Parameters:
  ///   - rows: fp32 [rows, inputs].
  ///   - factors: one for each column.
  ///   - tokens: [tokens, inputs].
  /// - Returns: the sums of products, [tokens, rows], and each row's scale.
  public func quantizedProducts(
    rows: [Float], factors: [Float], tokens: [Int16]
  ) -> (sums: [Int32], scales: [Float]) {
    let inputs = factors.count
    let (rowCount, tokenCount) = (count(rows.count, of: inputs), count(tokens.count, of: inputs))
    var sums = [Int32](repeating: 0, count: rowCount * tokenCount)
    var scales = [Float](repeating: 0, count: rowCount)
    var quantized = [Int16](repeating: 0, count: inputs)
    unsafe mwk_quantized_row_products(
      pointer, rowCount, inputs, tokenCount, rows, factors, tokens, &quantized, &sums, &scales)
    return (sums, scales)
  }

  private func rowCount(_ matrix: TensorBytes, inputs: Int) -> Int {
    precondition(matrix.isAligned(to: 4), "rows of fp32 at an odd address")
    return count(matrix.byteCount / 4, of: inputs)
  }

  private func count(_ elements: Int, of inputs: Int) -> Int {
    precondition(inputs > 0 && elements % inputs == 0, "the elements do not fill rows")
    return elements / inputs
  }
}
