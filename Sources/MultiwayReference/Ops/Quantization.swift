/// The roundings to 8 bits that the runtime's kernels make, in the plainest way. `Docs/Numerics.md` defines them.

/// A token in 8 bits: x ≈ scale · (q − zero) with q in 0…255.
struct QuantizedToken {
  /// NaN where the token holds a NaN or an infinity or its range is infinite: then every output that it feeds is NaN.
  let scale: Float
  /// q − zero, whole numbers.
  let values: [Double]

  init(_ token: ArraySlice<Float>) {
    var (low, high) = (Float(0), Float(0))
    for value in token {
      low = min(low, value)
      high = max(high, value)
    }
    let range = high - low
    guard range.isFinite, token.allSatisfy(\.isFinite) else {
      scale = .nan
      values = [Double](repeating: 0, count: token.count)
      return
    }
    // What is smaller than any activation can be counts as zero, or the inverse would overflow.
    guard range >= 0x1p-100 else {
      scale = 1
      values = [Double](repeating: 0, count: token.count)
      return
    }
    let inverse = 255 / range
    let zero = (-low * inverse).rounded(.toNearestOrEven)
    scale = range / 255
    values = token.map { value in
      let quantized = (value * inverse).rounded(.toNearestOrEven) + zero
      return Double(max(0, min(255, quantized)) - zero)
    }
  }
}

/// A token in 8 bits: x ≈ scale · q with q in −127…127.
struct SymmetricToken {
  /// NaN where the token holds a NaN or an infinity.
  let scale: Float
  /// Whole numbers.
  let values: [Float]

  init(_ token: ArraySlice<Float>) {
    let largest = token.reduce(Float(0)) { max($0, $1.magnitude) }
    guard token.allSatisfy(\.isFinite), largest >= 0x1p-100 else {
      scale = token.allSatisfy(\.isFinite) ? 1 : .nan
      values = [Float](repeating: 0, count: token.count)
      return
    }
    let inverse = 127 / largest
    scale = largest / 127
    values = token.map { max(-127, min(127, ($0 * inverse).rounded(.toNearestOrEven))) }
  }
}

extension NodeEvaluation {
  /// The weights of a row times what the values are worth, in steps of 1/65535 of the largest.
  static func quantizeWeights(_ row: inout ArraySlice<Float>, steps: ArraySlice<Float>) {
    // A weight of 0 is a key that the query may not attend to, or one that does not count: its value may be anything.
    for (place, step) in zip(row.indices, steps) where row[place] != 0 { row[place] *= step }
    guard row.allSatisfy(\.isFinite) else {
      for place in row.indices { row[place] = .nan }
      return
    }
    guard let largest = row.max(), largest > 0 else { return }
    for place in row.indices {
      row[place] = (row[place] * (65535 / largest)).rounded(.toNearestOrEven) * (largest / 65535)
    }
  }
}
