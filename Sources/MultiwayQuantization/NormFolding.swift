internal import MultiwayCore
public import MultiwayGraph

/// Decides whether a LayerNorm's weight should move into the linear layers behind it when those become int8.
///
/// Both ways are quantized and run on a sample: a few tokens of standard normal values, which is what the normalised vector looks
/// like by construction, and evenly spaced output channels. The way with the smaller squared error wins.
public enum NormFolding {
  private static let sampleTokens = 8
  private static let sampleRows = 48

  /// True where folding `normWeight` [in] into all `matrices` [out, in] leaves at most the error that it has unfolded.
  public static func errorDoesNotGrow(
    matrices: [TensorExpression], normWeight: TensorExpression
  ) throws -> Bool {
    var materializer = Materializer(discardsSources: false)
    let gamma = try materializer.floats(of: normWeight)
    let tokens = sample(width: gamma.count)
    let scaledTokens = tokens.map { token in zip(token, gamma).map { $0 * $1 } }
    let folded = tokens.map(QuantizedToken.init)
    let unfolded = scaledTokens.map(QuantizedToken.init)
    var errors = (folded: 0.0, unfolded: 0.0)
    for matrix in matrices {
      let outputs = matrix.shape[0]
      let count = min(sampleRows, outputs)
      for index in 0..<count {
        let row = try materializer.floats(of: .rows(matrix, index * outputs / count..<index * outputs / count + 1))
        let foldedRow = QuantizedRow(zip(row, gamma).map { $0 * $1 })
        let unfoldedRow = QuantizedRow(row)
        for token in tokens.indices {
          let exact = dot(row, scaledTokens[token])
          errors.folded += square(foldedRow.dot(folded[token]) - exact)
          errors.unfolded += square(unfoldedRow.dot(unfolded[token]) - exact)
        }
      }
    }
    return errors.folded <= errors.unfolded
  }

  /// Standard normal values from a fixed seed: the sum of twelve uniform numbers less 6 needs no library function, so it is the
  /// same everywhere.
  private static func sample(width: Int) -> [[Float]] {
    var state: UInt64 = 0x9E37_79B9_7F4A_7C15
    func uniform() -> Double {
      state &+= 0x9E37_79B9_7F4A_7C15
      var bits = state
      bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
      bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
      return Double((bits ^ (bits >> 31)) >> 11) * 0x1p-53
    }
    return (0..<sampleTokens).map { _ in
      (0..<width).map { _ in
        var sum = -6.0
        for _ in 0..<12 { sum += uniform() }
        return Float(sum)
      }
    }
  }

  private static func dot(_ left: [Float], _ right: [Float]) -> Double {
    var sum = 0.0
    for index in left.indices { sum += Double(left[index]) * Double(right[index]) }
    return sum
  }

  private static func square(_ value: Double) -> Double { value * value }
}

/// A token as the int8 recipe quantizes it (Docs/Numerics.md), with the zero point taken off again.
private struct QuantizedToken {
  var values: [Int32]
  var scale: Double

  init(_ token: [Float]) {
    let low = token.reduce(0) { min($0, $1) }
    let high = token.reduce(0) { max($0, $1) }
    // Infinite and undefined weights are reported where the weights are quantized; here they only must not trap.
    guard high > low, (high - low).isFinite, token.allSatisfy(\.isFinite) else {
      values = [Int32](repeating: 0, count: token.count)
      scale = 1
      return
    }
    let inverse = 255 / (high - low)
    let zero = (-low * inverse).rounded(.toNearestOrEven)
    values = token.map { Int32(max(0, min(255, ($0 * inverse).rounded(.toNearestOrEven) + zero)) - zero) }
    scale = Double((high - low) / 255)
  }
}

/// A row of weights as the int8 recipe quantizes it.
private struct QuantizedRow {
  var values: [Int32]
  var scale: Double

  init(_ row: [Float]) {
    let largest = row.reduce(0) { max($0, abs($1)) }
    let inverse = largest > 0 && largest.isFinite ? 127 / largest : 0
    values = row.map { weight in
      let scaled = (weight * inverse).rounded(.toNearestOrEven)
      return scaled.isFinite ? Int32(max(-127, min(127, scaled))) : 0
    }
    scale = Double(largest / 127)
  }

  func dot(_ token: QuantizedToken) -> Double {
    var sum: Int32 = 0
    for index in values.indices { sum &+= values[index] &* token.values[index] }
    return Double(sum) * scale * token.scale
  }
}
