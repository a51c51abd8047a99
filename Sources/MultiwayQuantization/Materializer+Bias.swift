public import MultiwayCore
public import MultiwayGraph

extension Materializer {
  /// The table of a relative bias transposed to [heads, rows], so that the numbers of one head lie together.
  public mutating func biasTable(of expression: TensorExpression) throws -> [Float] {
    let (rows, heads) = (expression.shape[0], expression.shape[1])
    let table = try floats(of: expression)
    return (0..<heads).flatMap { head in (0..<rows).map { table[$0 * heads + head] } }
  }

  /// The index of a relative bias, i16 in C order, each of whose elements is a row of a table of `rows`: an artifact may hold
  /// anything, and nothing reads outside the table.
  public mutating func biasIndex(of expression: TensorExpression, rows: Int) throws -> TensorBytes {
    let elements = try bytes(of: expression)
    let indices = elements.array(of: Int16.self)
    if let place = indices.firstIndex(where: { $0 < 0 || Int($0) >= rows }) {
      throw QuantizationError(
        .indexOutOfRange, "element \(place) of a relative position index is \(indices[place])",
        expected: "0 to \(rows - 1), the rows of its table",
        remedy: "the file is damaged: convert the checkpoint again",
        tensor: expression.sources.first?.name)
    }
    return elements
  }
}
