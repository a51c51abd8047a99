import MultiwayCore

/// Which row of VLMo's one table of relative position biases belongs to a pair of tokens. The table has rows for pairs of image tokens,
/// then one for text that looks at an image and one for an image that looks at text, then rows for pairs of text tokens.
///
/// Tokens are numbered as our graph orders them: class token and patches, then text. The original puts text first; attention does not
/// depend on the order of its keys, so the same rows at other places mean the same. Source: `build_relative_position_embed` in unilm
/// `vlmo/modules/vlmo_module.py`.
struct VLMoPositions: Sendable {
  /// Patches along a side.
  let grid: Int
  /// The most text tokens.
  let textTokens: Int
  /// The number of text tokens that the table was made for, at least `textTokens`: the original's `max_text_len_of_initckpt`.
  let tableTextTokens: Int

  private var images: RelativePositions { RelativePositions(grid: grid) }

  var visionTokens: Int { images.tokens }
  var tokens: Int { visionTokens + textTokens }
  var tableRows: Int { VLMoPositions.tableRows(grid: grid, textTokens: tableTextTokens) }

  /// Rows beside the (2 · grid − 1)² for pairs of patches and the two for each text token: three for the image's class token, and two
  /// for pairs of text and image.
  static let extraRows = 5

  /// The rows of a table for such sizes.
  static func tableRows(grid: Int, textTokens: Int) -> Int {
    (2 * grid - 1) * (2 * grid - 1) + extraRows + 2 * textTokens
  }

  /// The row for query token `a` and key token `b`.
  func row(_ a: Int, _ b: Int) -> Int {
    let imageRows = images.tableRows
    switch (a < visionTokens, b < visionTokens) {
    case (true, true): return images.row(a, b)
    case (false, true): return imageRows
    case (true, false): return imageRows + 1
    case (false, false): return textRow(a - visionTokens, b - visionTokens)
    }
  }

  /// Distances run from key to query in images and from query to key in texts. The first token of either has rows of its own.
  private func textRow(_ a: Int, _ b: Int) -> Int {
    if a == 0 { return b == 0 ? tableRows - 1 : tableRows - 3 }
    if b == 0 { return tableRows - 2 }
    return images.tableRows + 2 + (b - a) + tableTextTokens - 2
  }

  /// The index over a run of tokens, i16 [tokens, tokens], computed when it is asked for.
  func index(name: String, over range: Range<Int>) -> StoredTensor {
    let positions = self
    return .relativeIndex(name: name, dtype: .i16, tokens: range.count) { query, key in
      positions.row(range.lowerBound + query, range.lowerBound + key)
    }
  }

  /// The index buffers that released files hold, under the original's names and in its order: text first.
  var buffers: [StoredTensor] {
    let positions = self
    let (vision, text) = (visionTokens, textTokens)
    return [
      .relativeIndex(name: "relative_position_index", dtype: .i64, tokens: vision, row: positions.row),
      .relativeIndex(name: "text_relative_position_index", dtype: .i64, tokens: text) { query, key in
        positions.row(vision + query, vision + key)
      },
      .relativeIndex(name: "text_imag_relative_position_index", dtype: .i64, tokens: tokens) { query, key in
        positions.row(query < text ? vision + query : query - text, key < text ? vision + key : key - text)
      },
    ]
  }
}
