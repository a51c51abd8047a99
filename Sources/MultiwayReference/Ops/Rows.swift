import Glibc
import MultiwayCore
import MultiwayGraph

/// The ops that treat every element or every row by itself.
extension NodeEvaluation {
  mutating func layerNorm(_ weight: ConstantID?, _ bias: ConstantID?, epsilon: Float) throws -> [Float] {
    let factors = try weight.map { id throws in try weights(id) }
    let offsets = try bias.map { id throws in try weights(id) }
    let values = input
    let width = width
    return rows { row in
      var sum = 0.0
      for value in values[row] { sum += Double(value) }
      let mean = sum / Double(width)
      var squares = 0.0
      for value in values[row] { squares += (Double(value) - mean) * (Double(value) - mean) }
      let deviation = (squares / Double(width) + Double(epsilon)).squareRoot()
      return (0..<width).map { column in
        let normalized = (Double(values[row.lowerBound + column]) - mean) / deviation
        return Float(normalized * Double(factors?[column] ?? 1) + Double(offsets?[column] ?? 0))
      }
    }
  }

  mutating func scaleChannels(_ factors: ConstantID) throws -> [Float] {
    let factors = try weights(factors)
    let values = input
    return rows { row in zip(values[row], factors).map { $0 * $1 } }
  }

  func normalizeL2() -> [Float] {
    let values = input
    return rows { row in
      var squares = 0.0
      for value in values[row] { squares += Double(value) * Double(value) }
      let norm = max(squares.squareRoot(), 1e-12)
      return values[row].map { Float(Double($0) / norm) }
    }
  }

  /// x · Φ(x), Φ by the error function.
  func gelu() -> [Float] {
    input.map { value in
      let x = Double(value)
      return Float(0.5 * x * (1 + erf(x * 0.5.squareRoot())))
    }
  }

  func tanh() -> [Float] { input.map { Float(Glibc.tanh(Double($0))) } }

  /// What `body` makes of every row of the first input, after one another.
  private func rows(_ body: (Range<Int>) -> [Float]) -> [Float] {
    var result: [Float] = []
    let count = inputs[0].shape.elementCount
    result.reserveCapacity(count)
    for start in stride(from: 0, to: count, by: max(1, width)) { result += body(start..<start + width) }
    return result
  }
}
