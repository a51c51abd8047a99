import MultiwayCore
import MultiwayKernels
import MultiwayTestSupport
import Testing

/// Sums over weights against their definition on every instruction set, bit for bit.
@Suite struct WeightSumTests {
  /// Rows that fill the 16 partial sums, and that do not.
  private static let sizes = [(rows: 1, inputs: 1), (7, 5), (8, 16), (9, 33), (21, 100), (64, 3)]

  private func numbers(_ count: Int, seed: UInt64) -> [Float] {
    var generator = SeededGenerator(seed: seed)
    return generator.floats(count, in: -3...3)
  }

  private func contexts() throws -> [KernelContext] { try ISA.supported.map { try KernelContext(isa: $0) } }

  /// Element j to partial sum j mod 16; then +8, +4, +2, +1.
  private func sum(_ terms: [Double]) -> Double {
    var sums = [Double](repeating: 0, count: 16)
    for (index, term) in terms.enumerated() { sums[index % 16] += term }
    for width in [8, 4, 2, 1] {
      for index in 0..<width { sums[index] += sums[index + width] }
    }
    return sums[0]
  }

  private func row(_ index: Int, of matrix: [Float], _ inputs: Int) -> [Double] {
    matrix[index * inputs..<(index + 1) * inputs].map(Double.init)
  }

  @Test(arguments: sizes) func shiftedBias(rows: Int, inputs: Int) throws {
    let (matrix, vector) = (numbers(rows * inputs, seed: 1), numbers(inputs, seed: 2))
    for start in [numbers(rows, seed: 3), []] {
      let expected = (0..<rows).map { index in
        let sum = sum(zip(row(index, of: matrix, inputs), vector).map { $0 * Double($1) })
        return Float(start.isEmpty ? sum : Double(start[index]) + sum)
      }
      for context in try contexts() {
        #expect(context.shiftedBias(TensorBytes(copying: matrix), vector: vector, start: start[...]) == expected)
      }
    }
  }

  @Test(arguments: sizes) func moments(rows: Int, inputs: Int) throws {
    let matrix = numbers(rows * inputs, seed: 4)
    let squares = numbers(inputs, seed: 5).map { Double($0) * Double($0) }
    let shift = numbers(inputs, seed: 6)
    let sums = (0..<rows).map { sum(zip(row($0, of: matrix, inputs), squares).map { $0 * $0 * $1 }) }
    let means = (0..<rows).map { sum(zip(row($0, of: matrix, inputs), shift).map { $0 * Double($1) }) }
    for context in try contexts() {
      let found = context.moments(TensorBytes(copying: matrix), squares: squares, shift: shift)
      #expect(found.squares == sums && found.means == means)
      let without = context.moments(TensorBytes(copying: matrix), squares: squares, shift: [])
      #expect(without.squares == sums && without.means.allSatisfy { $0 == 0 })
    }
  }

  @Test(arguments: sizes) func columnSquares(rows: Int, inputs: Int) throws {
    let matrix = numbers(rows * inputs, seed: 4)
    var expected = [Double](repeating: 0, count: inputs)
    for index in 0..<rows {
      for (column, element) in row(index, of: matrix, inputs).enumerated() { expected[column] += element * element }
    }
    for context in try contexts() { #expect(context.columnSquares(rows: matrix, inputs: inputs) == expected) }
  }

  @Test(arguments: sizes) func products(rows: Int, inputs: Int) throws {
    let (matrix, tokens) = (numbers(rows * inputs, seed: 7), numbers(3 * inputs, seed: 8))
    let expected = (0..<3).flatMap { token in
      (0..<rows).map { sum(zip(row($0, of: matrix, inputs), row(token, of: tokens, inputs)).map { $0 * $1 }) }
    }
    for context in try contexts() {
      #expect(context.products(rows: matrix, tokens: tokens, inputs: inputs) == expected)
    }
  }

  /// Tokens that are zero or hold no number among ordinary ones.
  @Test(arguments: sizes) func quantizedTokens(rows: Int, inputs: Int) throws {
    var tokens = numbers(rows * inputs, seed: 12)
    let factors = numbers(inputs, seed: 13).map { abs($0) + 0.5 }
    if rows > 3 {
      for input in 0..<inputs { tokens[inputs + input] = 0 }
      tokens[2 * inputs] = .nan
      tokens[3 * inputs] = .infinity
    }
    for context in try contexts() {
      let found = context.quantizedTokens(tokens, dividedBy: factors)
      for token in 0..<rows {
        let divided = zip(tokens[token * inputs..<(token + 1) * inputs], factors).map { $0 / $1 }
        let values = Array(found.values[token * inputs..<(token + 1) * inputs])
        let (low, high) = (divided.reduce(0) { min($0, $1) }, divided.reduce(0) { max($0, $1) })
        guard divided.allSatisfy(\.isFinite), high > low else {
          #expect(values.allSatisfy { $0 == 0 })
          #expect(divided.allSatisfy(\.isFinite) ? found.scales[token] == 1 : found.scales[token].isNaN)
          continue
        }
        let (inverse, scale) = (255 / (high - low), (high - low) / 255)
        let zero = (-low * inverse).rounded(.toNearestOrEven)
        #expect(found.scales[token] == scale)
        #expect(
          values
            == divided.map {
              Int16(max(0, min(255, ($0 * inverse).rounded(.toNearestOrEven) + zero)) - zero)
            })
      }
    }
  }

  /// Rows that are zero, tiny, infinite or no numbers give what the quantization's definition says, or zeros.
  @Test(arguments: sizes) func quantizedProducts(rows: Int, inputs: Int) throws {
    var matrix = numbers(rows * inputs, seed: 9)
    for (row, value) in [(2, Float.nan), (3, .infinity), (4, 0), (5, 0x1p-120)] where row < rows {
      matrix[row * inputs] = value
      if value.isFinite { for input in 0..<inputs { matrix[row * inputs + input] = value } }
    }
    let factors = numbers(inputs, seed: 10)
    var generator = SeededGenerator(seed: 11)
    let tokens = generator.integers(2 * inputs, in: -255..<256).map { Int16($0) }
    let found = try contexts().map { $0.quantizedProducts(rows: matrix, factors: factors, tokens: tokens) }
    for row in 0..<rows {
      let scaled = (0..<inputs).map { matrix[row * inputs + $0] * factors[$0] }
      let top = scaled.reduce(0) { max($0, abs($1)) }
      let inverse = top >= 0x1p-100 && top.isFinite ? 127 / top : 0
      let quantized = scaled.map { value in
        let rounded = (value * inverse).rounded(.toNearestOrEven)
        return rounded.isFinite ? Int32(max(-127, min(127, rounded))) : 0
      }
      #expect(found.allSatisfy { $0.scales[row].bitPattern == (top / 127).bitPattern })
      for token in 0..<2 {
        let sum = (0..<inputs).reduce(Int32(0)) { $0 + quantized[$1] * Int32(tokens[token * inputs + $1]) }
        #expect(found.allSatisfy { $0.sums[token * rows + row] == sum })
      }
    }
  }
}
