import MultiwayCore

/// The relative position index of a square grid of patches behind one class token: which row of the bias table belongs to a pair of
/// tokens. Source: `get_rel_pos`/`relative_position_index` of unilm, timm and transformers, which agree.
struct RelativePositions: Sendable {
  /// Patches along a side.
  let grid: Int

  /// The largest grid whose table rows an i16 can number.
  static let largestGrid = 91

  var tokens: Int { grid * grid + 1 }
  var tableRows: Int { VisionConfiguration.relativeRows(grid: grid) }

  /// The row for query token `a` and key token `b`; token 0 is the class token.
  func row(_ a: Int, _ b: Int) -> Int {
    if a == 0 { return b == 0 ? tableRows - 1 : tableRows - 3 }
    if b == 0 { return tableRows - 2 }
    let (ya, xa) = ((a - 1) / grid, (a - 1) % grid)
    let (yb, xb) = ((b - 1) / grid, (b - 1) % grid)
    return (ya - yb + grid - 1) * (2 * grid - 1) + (xa - xb + grid - 1)
  }

  /// The index [tokens, tokens] as a tensor that is computed when it is asked for.
  func tensor(name: String, dtype: DType) -> StoredTensor {
    .relativeIndex(name: name, dtype: dtype, tokens: tokens, row: row)
  }
}

extension StoredTensor {
  /// The row of a bias table for every pair of tokens, [tokens, tokens] in i16 or i64, computed when it is asked for.
  /// - Parameter row: the row for a query token and a key token.
  static func relativeIndex(
    name: String, dtype: DType, tokens: Int, row: @escaping @Sendable (_ query: Int, _ key: Int) -> Int
  ) -> StoredTensor {
    StoredTensor(
      name: name, dtype: dtype, shape: [tokens, tokens],
      storage: RelativeIndexStorage(tokens: tokens, dtype: dtype, row: row))
  }
}

/// Computes an index on demand: a table of a few kilobytes may stand for an index of a hundred megabytes.
private final class RelativeIndexStorage: TensorStorage {
  private let tokens: Int
  private let dtype: DType
  private let row: @Sendable (Int, Int) -> Int

  init(tokens: Int, dtype: DType, row: @escaping @Sendable (Int, Int) -> Int) {
    self.tokens = tokens
    self.dtype = dtype
    self.row = row
  }

  var byteCount: Int { tokens * tokens * dtype.bitWidth / 8 }

  func load() -> TensorBytes {
    var rows: [Int] = []
    rows.reserveCapacity(tokens * tokens)
    for query in 0..<tokens {
      for key in 0..<tokens { rows.append(row(query, key)) }
    }
    return dtype == .i16
      ? TensorBytes(copying: rows.map { Int16(truncatingIfNeeded: $0) })
      : TensorBytes(copying: rows.map { Int64($0) })
  }

  func discard() {}
}
