import MultiwayCore
import MultiwayKernels
import MultiwayTestSupport
import Testing

/// Sums over weights against plain loops, bit for bit.
@Suite struct WeightSumTests {
  /// Rows that fill the groups which are summed side by side, and that do not.
  private static let sizes = [(rows: 1, inputs: 1), (7, 5), (8, 16), (9, 33), (21, 100), (64, 3)]

  private func numbers(_ count: Int, seed: UInt64) -> [Float] {
    var generator = SeededGenerator(seed: seed)
    return generator.floats(count, in: -3...3)
  }

  @Test(arguments: sizes) func shiftedBias(rows: Int, inputs: Int) {
    let (matrix, vector) = (numbers(rows * inputs, seed: 1), numbers(inputs, seed: 2))
    for start in [numbers(rows, seed: 3), []] {
      let expected = (0..<rows).map { row in
        var sum = start.isEmpty ? 0 : Double(start[row])
        for input in 0..<inputs { sum += Double(matrix[row * inputs + input]) * Double(vector[input]) }
        return Float(sum)
      }
      #expect(WeightSums.shiftedBias(TensorBytes(copying: matrix), vector: vector, start: start) == expected)
    }
  }

  @Test(arguments: sizes) func moments(rows: Int, inputs: Int) {
    let matrix = numbers(rows * inputs, seed: 4)
    let squares = numbers(inputs, seed: 5).map { Double($0) * Double($0) }
    let shift = numbers(inputs, seed: 6)
    var (sums, means) = ([Double](repeating: 0, count: rows), [Double](repeating: 0, count: rows))
    for row in 0..<rows {
      for input in 0..<inputs {
        let element = Double(matrix[row * inputs + input])
        sums[row] += element * element * squares[input]
        means[row] += element * Double(shift[input])
      }
    }
    let found = WeightSums.moments(TensorBytes(copying: matrix), squares: squares, shift: shift)
    #expect(found.squares == sums && found.means == means)
    let without = WeightSums.moments(TensorBytes(copying: matrix), squares: squares, shift: [])
    #expect(without.squares == sums && without.means.allSatisfy { $0 == 0 })
  }

  @Test(arguments: sizes) func products(rows: Int, inputs: Int) {
    let (matrix, tokens) = (numbers(rows * inputs, seed: 7), numbers(3 * inputs, seed: 8))
    var expected: [Double] = []
    for token in 0..<3 {
      for row in 0..<rows {
        expected.append(
          (0..<inputs).reduce(0.0) { $0 + Double(matrix[row * inputs + $1]) * Double(tokens[token * inputs + $1]) })
      }
    }
    #expect(WeightSums.products(rows: matrix, tokens: tokens, inputs: inputs) == expected)
  }

  /// Rows that are zero, tiny, infinite or no numbers give what the quantization's definition says, or zeros.
  @Test(arguments: sizes) func quantizedProducts(rows: Int, inputs: Int) {
    var matrix = numbers(rows * inputs, seed: 9)
    for (row, value) in [(2, Float.nan), (3, .infinity), (4, 0), (5, 0x1p-120)] where row < rows {
      matrix[row * inputs] = value
      if value.isFinite { for input in 0..<inputs { matrix[row * inputs + input] = value } }
    }
    let factors = numbers(inputs, seed: 10)
    var generator = SeededGenerator(seed: 11)
    let tokens = generator.integers(2 * inputs, in: -255..<256).map { Int16($0) }
    let found = WeightSums.quantizedProducts(rows: matrix, factors: factors, tokens: tokens)
    for row in 0..<rows {
      let scaled = (0..<inputs).map { matrix[row * inputs + $0] * factors[$0] }
      let top = scaled.reduce(0) { max($0, abs($1)) }
      let inverse = top >= 0x1p-100 && top.isFinite ? 127 / top : 0
      let quantized = scaled.map { value in
        let rounded = (value * inverse).rounded(.toNearestOrEven)
        return rounded.isFinite ? Int32(max(-127, min(127, rounded))) : 0
      }
      #expect(found.scales[row].bitPattern == (top / 127).bitPattern)
      for token in 0..<2 {
        let sum = (0..<inputs).reduce(Int32(0)) { $0 + quantized[$1] * Int32(tokens[token * inputs + $1]) }
        #expect(found.sums[token * rows + row] == sum)
      }
    }
  }
}
