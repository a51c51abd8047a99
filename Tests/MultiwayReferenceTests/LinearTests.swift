import MultiwayCore
import MultiwayGraph
import MultiwayQuantization
import MultiwayTestSupport
import Testing

@Suite struct LinearTests {
  @Test(arguments: [DType.f32, .f16, .bf16])
  func linearAgreesWithDoublePrecision(dtype: DType) throws {
    var generator = SeededGenerator(seed: 7)
    let (rows, inputs, outputs) = (5, 33, 19)
    // Multiples of 1/64 below 2 are exact in every dtype.
    let weights = generator.integers(outputs * inputs, in: -127..<128).map { Float($0) / 64 }
    let x = generator.floats(rows * inputs)
    let bias = generator.floats(outputs)
    var small = SmallGraph()
    let tokens = small.floats("x", [1, rows, inputs], x)
    let weight = small.constant("weight", [outputs, inputs], weights, as: dtype)
    let offset = small.constant("bias", [outputs], bias)
    let with = try small.add(.linear(weight: weight, bias: offset), tokens, name: "with")
    let without = try small.add(.linear(weight: weight, bias: nil), tokens, name: "without")
    let results = try small.run(with, without)
    var expected: [Double] = []
    for row in 0..<rows {
      for output in 0..<outputs {
        expected.append(
          (0..<inputs).reduce(0) { sum, input in
            sum + Double(x[row * inputs + input]) * Double(weights[output * inputs + input])
          })
      }
    }
    #expect(results[1].shape == [1, rows, outputs])
    #expect(largestDifference(results[1].floats, expected) < 1e-5)
    for index in expected.indices { expected[index] += Double(bias[index % outputs]) }
    #expect(largestDifference(results[0].floats, expected) < 1e-5)
  }

  /// A quantized layer whose matrix becomes whole numbers: every row holds a 127, so that the scale is 1.
  private func quantizedGraph(
    _ weights: [Float], outputs: Int, inputs: Int, groups: Int = 1, x: [Float], bias: [Float]?
  ) throws -> TensorValue {
    var small = SmallGraph()
    let rows = x.count / inputs
    let tokens = small.floats("x", [rows, inputs], x)
    let matrix = QuantizedMatrix(
      .stored(StoredTensor(name: "w", dtype: .f32, shape: [outputs, inputs], elements: weights)), groups: groups)
    let ids = QuantizedMatrix.Component.allCases.map { component in
      small.graph.addConstant(
        Constant(name: component.rawValue, role: .head, modality: .shared, data: .quantized(matrix, component)))
    }
    let offset = bias.map { small.constant("bias", [outputs], $0) }
    let linear = QuantizedLinear(
      panels: ids[0], scales: ids[1], sums: ids[2], bias: offset, inputs: inputs, outputs: outputs,
      groups: groups)
    return try small.run(try small.add(.quantizedLinear(linear), tokens))[0]
  }

  @Test func quantizedLinearByHand() throws {
    // low −85, high 170: scale 1, zero 85, and every whole number is exact.
    let x: [Float] = [-85, 170, 3, 0, 0, 0]
    let result = try quantizedGraph(
      [127, 1, 2, 127, -127, 5], outputs: 2, inputs: 3, x: x, bias: [0.5, -0.5])
    let sums: [Float] = [-85 * 127 + 170 + 6, -85 * 127 - 170 * 127 + 15]
    #expect(result.floats == [sums[0] + 0.5, sums[1] - 0.5, 0.5, -0.5])
  }

  @Test func groupsHaveScalesOfTheirOwn() throws {
    // The first group has scale 1 and weights of scale 1, the second 2 and 3: what lies between their steps rounds in each by itself.
    let x: [Float] = [-85, 170, 3, 0, 510, 3, 5, 0]
    let weights: [Float] = [127, 1, 2, 0, 381, 3, 6, 0]
    let result = try quantizedGraph(weights, outputs: 1, inputs: 8, groups: 2, x: x, bias: [0.5])
    let first: Float = -85 * 127 + 170 + 6
    // 3 / 2 and 5 / 2 are halfway and become 2 and 2.
    let second: Float = (255 * 127 + 2 * 1 + 2 * 2) * (2 * 3)
    #expect(result.floats == [0.5 + first + second])
  }

  @Test func roundingIsHalfToEven() throws {
    // low 0, high 255: scale 1, zero 0; 0.5 → 0, 1.5 → 2, 2.5 → 2.
    let result = try quantizedGraph([127, 127, 127, 127], outputs: 1, inputs: 4, x: [255, 0.5, 1.5, 2.5], bias: nil)
    #expect(result.floats == [127 * (255 + 0 + 2 + 2)])
  }

  @Test func quantizedLinearAgreesWithIntegerLoops() throws {
    var generator = SeededGenerator(seed: 9)
    let (rows, inputs, outputs) = (3, 150, 1100)
    var weights = generator.integers(outputs * inputs, in: -126..<127).map { Float($0) }
    for output in 0..<outputs { weights[output * inputs + output % inputs] = 127 }
    let x = generator.floats(rows * inputs, in: -3...5)
    let bias = generator.floats(outputs)
    let result = try quantizedGraph(weights, outputs: outputs, inputs: inputs, x: x, bias: bias)
    var expected: [Float] = []
    for row in 0..<rows {
      let token = x[row * inputs..<(row + 1) * inputs]
      let low = min(0, token.min() ?? 0)
      let range = max(0, token.max() ?? 0) - low
      let zero = Int32((-low * (255 / range)).rounded(.toNearestOrEven))
      let quantized = token.map { value in
        min(255, max(0, Int32((value * (255 / range)).rounded(.toNearestOrEven)) + zero))
      }
      for output in 0..<outputs {
        var sum: Int32 = 0
        for input in 0..<inputs { sum += (quantized[input] - zero) * Int32(weights[output * inputs + input]) }
        expected.append(Float(sum) * (range / 255 * 1) + bias[output])
      }
    }
    #expect(result.floats == expected)
  }

  @Test func tokensThatCannotBeQuantized() throws {
    let tiny = try quantizedGraph([127, 1], outputs: 1, inputs: 2, x: [0x1p-130, -0x1p-130], bias: [2])
    #expect(tiny.floats == [2])
    for broken: [Float] in [[.nan, 1], [.infinity, 1], [3e38, -3e38]] {
      let result = try quantizedGraph([127, 1], outputs: 1, inputs: 2, x: broken + [255, 0], bias: nil)
      #expect(result.floats[0].isNaN && result.floats[1] == 255 * 127)
    }
  }
}
