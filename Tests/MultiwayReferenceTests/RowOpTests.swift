import Glibc
import MultiwayCore
import MultiwayGraph
import MultiwayTestSupport
import Testing

@Suite struct RowOpTests {
  @Test func layerNormOfAHandComputedRow() throws {
    var small = SmallGraph()
    let tokens = small.floats("x", [1, 1, 4], [1, 2, 3, 4])
    let weight = small.constant("weight", [4], [1, 2, 1, 1])
    let bias = small.constant("bias", [4], [0, 0, 0, 10])
    let plain = try small.add(.layerNorm(weight: nil, bias: nil, epsilon: 0.75), tokens, name: "plain")
    let affine = try small.add(.layerNorm(weight: weight, bias: bias, epsilon: 0.75), tokens, name: "affine")
    let results = try small.run(plain, affine)
    // The biased variance is 1.25, so that the deviation with epsilon is √2.
    let root = 2.0.squareRoot()
    #expect(largestDifference(results[0].floats, [-1.5 / root, -0.5 / root, 0.5 / root, 1.5 / root]) < 1e-7)
    #expect(largestDifference(results[1].floats, [-1.5 / root, -1 / root, 0.5 / root, 10 + 1.5 / root]) < 1e-6)
  }

  @Test func layerNormOfLargeOffsetsKeepsItsDigits() throws {
    var generator = SeededGenerator(seed: 1)
    let values = generator.floats(2 * 700).map { 4096 + ($0 * 1024).rounded() / 1024 }
    var small = SmallGraph()
    let tokens = small.floats("x", [2, 700], values)
    let result = try small.run(try small.add(.layerNorm(weight: nil, bias: nil, epsilon: 1e-5), tokens))[0]
    var expected: [Double] = []
    for row in 0..<2 {
      let part = values[row * 700..<(row + 1) * 700].map(Double.init)
      let mean = part.reduce(0, +) / 700
      let variance = part.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 700
      expected += part.map { ($0 - mean) / (variance + Double(Float(1e-5))).squareRoot() }
    }
    #expect(largestDifference(result.floats, expected) < 1e-6)
  }

  @Test func scaleChannelsAndRelu() throws {
    var small = SmallGraph()
    let tokens = small.floats("x", [1, 2, 3], [1, -2, 3, -4, 5, 6])
    let factors = small.constant("factors", [3], [2, 3, -1])
    let scaled = try small.add(.scaleChannels(factors), tokens, name: "scaled")
    let rectified = try small.add(.relu, tokens, name: "rectified")
    let results = try small.run(scaled, rectified)
    #expect(results[0].floats == [2, -6, -3, -8, 15, -6])
    #expect(results[1].floats == [1, 0, 3, 0, 5, 6])
  }

  @Test func elementwiseOps() throws {
    let values: [Float] = [-3, -0.5, 0, 1e-8, 0.5, 3, 40, -40]
    var small = SmallGraph()
    let x = small.floats("x", [2, 4], values)
    let gelu = try small.add(.gelu, x, name: "gelu")
    let tanh = try small.add(.tanh, x, name: "tanh")
    let scale = try small.add(.scale(by: 0.125), x, name: "scale")
    let sum = try small.add(.add, x, scale, name: "sum")
    let results = try small.run(gelu, tanh, scale, sum)
    let phi = values.map { Double($0) * 0.5 * erfc(-Double($0) / 2.0.squareRoot()) }
    #expect(largestDifference(results[0].floats, phi) < 1e-6)
    #expect(results[0].floats[6] == 40 && results[0].floats[7] == 0)
    #expect(abs(results[0].floats[5] - 2.9959502) < 1e-6)
    #expect(largestDifference(results[1].floats, values.map { 1 - 2 / (exp(2 * Double($0)) + 1) }) < 1e-6)
    #expect(results[2].floats == values.map { $0 * 0.125 })
    #expect(results[3].floats == values.map { $0 + $0 * 0.125 })
  }

  @Test func normalizedRowsHaveLengthOne() throws {
    var small = SmallGraph()
    let x = small.floats("x", [3, 2], [3, 4, 0, 0, 1e-20, 0])
    let result = try small.run(try small.add(.normalizeL2, x))[0]
    #expect(largestDifference(result.floats, [0.6, 0.8, 0, 0, 1e-8, 0]) < 1e-7)
    #expect(abs(result.floats[4] - 1e-8) < 1e-14)
  }
}
