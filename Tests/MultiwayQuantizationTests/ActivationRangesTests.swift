import MultiwayCore
import MultiwayGraph
import MultiwayQuantization
import MultiwayTestSupport
import Testing

@Suite struct ActivationRangesTests {
  /// The mean square error of rounding to a step.
  private func error(_ elements: [Float], _ step: ActivationRanges.Step) -> Double {
    elements.reduce(0) { sum, element in
      let rounded = (element / step.scale).rounded(.toNearestOrEven) + Float(step.zeroPoint)
      let difference = Double((max(-128, min(127, rounded)) - Float(step.zeroPoint)) * step.scale - element)
      return sum + difference * difference
    } / Double(elements.count)
  }

  private func step(_ elements: [Float], isSymmetric: Bool) throws -> ActivationRanges.Step {
    var ranges = ActivationRanges()
    for start in stride(from: 0, to: elements.count, by: 100) {
      ranges.add(Array(elements[start..<min(elements.count, start + 100)]), of: "value")
    }
    #expect(ranges.step(of: "other", isSymmetric: isSymmetric) == nil)
    return try #require(ranges.step(of: "value", isSymmetric: isSymmetric))
  }

  /// No worse than the whole range, and nearly as good as the best of many steps.
  @Test(arguments: [true, false]) func theStepHasASmallError(isSymmetric: Bool) throws {
    var numbers = SeededGenerator(seed: 4)
    var elements = numbers.floats(4000).map { $0 * $0 * $0 }
    elements[7] = 40
    let found = try step(elements, isSymmetric: isSymmetric)
    if isSymmetric { #expect(found.zeroPoint == 0) }
    #expect(error(elements, found) <= error(elements, .init(scale: 40 / 127, zeroPoint: 0)))
    let best = (1...200).map { error(elements, .init(scale: 40 / 127 * Float($0) / 200, zeroPoint: 0)) }.min() ?? 0
    #expect(error(elements, found) <= best * 1.3)
  }

  @Test func aRangeOnOneSideOfZeroUsesAllSteps() throws {
    let elements = (0..<1000).map { Float($0) / 1000 }
    let found = try step(elements, isSymmetric: false)
    #expect(found.zeroPoint == -128)
    #expect(abs(found.scale * 255 - 1) < 0.05)
  }

  /// Zeros, infinities, and numbers at both ends of what fp32 holds.
  @Test func oddNumbersDoNoHarm() throws {
    let zeros = try step([0, 0, -0.0], isSymmetric: true)
    #expect(zeros == ActivationRanges.Step(scale: 1, zeroPoint: 0))
    for isSymmetric in [true, false] {
      for elements: [Float] in [
        [.infinity, .nan, 1, -2], [.leastNonzeroMagnitude, 0], [.greatestFiniteMagnitude, -.greatestFiniteMagnitude],
        [1e-30, -1e-30],
      ] {
        let found = try step(elements, isSymmetric: isSymmetric)
        #expect(found.scale.isFinite && found.scale > 0)
      }
    }
  }

  /// What int8 layers stand for is near the matrix that they were made of, and one scale for each output is what is left of groups.
  @Test func int8LayersBecomeNumbersAgain() throws {
    var sketch = GraphSketch(seed: 9)
    let tokens = sketch.graph.addInput("tokens", ValueType(.f32, [.symbol("batch"), 3, 16]))
    let value = try sketch.add(
      sketch.quantizedLinear("layer", outputs: 5, inputs: 16, groups: 2), tokens, name: "value")
    sketch.output("result", value)
    let plain = sketch.graph.dequantized()
    try plain.verify()
    let whole = sketch.graph.withoutGroups()
    try whole.verify()
    guard case .quantizedLinear(let grouped) = sketch.graph.nodes[0].op,
      case .quantizedLinear(let linear) = whole.nodes[0].op, case .linear(let weight, _) = plain.nodes[0].op
    else {
      Issue.record("other ops")
      return
    }
    #expect(linear.groups == 1 && whole[linear.panels].name == sketch.graph[grouped.panels].name)
    #expect(plain[weight].data.shape == [5, 16])
    let inputs = randomInputs(for: plain, batch: 2)
    let exact = try #require(try referenceValues(plain, inputs)["value"])
    for graph in [sketch.graph, whole] {
      let found = try #require(try referenceValues(graph, inputs)["value"])
      #expect(decibels(exact, found) > 30)
    }
  }
}
