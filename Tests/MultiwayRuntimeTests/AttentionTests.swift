import MultiwayCore
import MultiwayGraph
import MultiwayQuantization
import MultiwayRuntime
import MultiwayTestSupport
import Testing

/// Memories and biases as a session handles them.
@Suite struct AttentionTests {
  /// A text that attends to a prefix, whose batch may be smaller.
  private func remembering() throws -> Graph {
    var sketch = GraphSketch(seed: 6)
    let prefix = sketch.graph.addInput("prefix", ValueType(.f32, [.symbol("images"), .symbol("prefix_tokens"), 8]))
    let text = sketch.graph.addInput("text", ValueType(.f32, [.symbol("batch"), .symbol("text_tokens"), 8]))
    let key = try sketch.add(sketch.linear("key", outputs: 8, inputs: 8), prefix, name: "key")
    sketch.output(
      "features",
      try sketch.add(
        .attention(Attention(heads: 2, mask: .caption, memories: 1)), key, prefix, text, text, text, name: "written"))
    return sketch.graph
  }

  private func inputs(images: Int, batch: Int) -> [String: TensorValue] {
    var numbers = SeededGenerator(seed: 3)
    return [
      "prefix": TensorValue([images, 5, 8], numbers.floats(images * 5 * 8)),
      "text": TensorValue([batch, 3, 8], numbers.floats(batch * 3 * 8)),
    ]
  }

  /// One prefix for three texts is the prefix three times.
  @Test(arguments: Engine.allCases)
  func aSharedMemoryIsTheSameAsCopies(engine: Engine) throws {
    let graph = try remembering()
    var inputs = inputs(images: 2, batch: 6)
    let shared = try engine.run(graph, inputs)
    let prefix = try #require(inputs["prefix"])
    inputs["prefix"] = TensorValue([6, 5, 8], (0..<6).flatMap { prefix.rows($0 / 3..<$0 / 3 + 1).floats })
    let copied = try engine.run(graph, inputs)
    #expect(engine.isTheSame(copied["features"], inAnotherBatch: shared["features"]))
    #expect(
      decibels(try #require(shared["features"]), try #require(try Engine.reference.run(graph, inputs)["features"]))
        > 110)
  }

  @Test(arguments: Engine.allCases)
  func aMemoryThatDoesNotDivideTheBatchIsRefused(engine: Engine) throws {
    let graph = try remembering()
    let error = #expect(throws: GraphError.self) { _ = try engine.run(graph, inputs(images: 4, batch: 6)) }
    #expect(error?.diagnosis.found.contains("key has 4 examples, which do not divide a batch of 6") == true)
  }

  /// A bias for texts of up to five tokens: shorter ones use its corner, longer ones are refused.
  @Test(arguments: Engine.allCases)
  func aTextLongerThanTheBiasIsRefused(engine: Engine) throws {
    var sketch = GraphSketch(seed: 6)
    let text = sketch.graph.addInput("text", ValueType(.f32, [.symbol("batch"), .symbol("text_tokens"), 8]))
    func bias(_ side: Int) -> RelativeBias {
      let index = (0..<side * side).map { Int16(($0 / side * 3 + $0 % side) % 7) }
      return RelativeBias(
        table: sketch.constant("table.\(side)", [7, 2]),
        index: sketch.graph.addConstant(
          Constant(
            name: "index.\(side)", role: .relativePositionIndex, modality: .text,
            data: .stored(StoredTensor(name: "index", dtype: .i16, shape: [side, side], elements: index)))))
    }
    sketch.output(
      "features", try sketch.add(.attention(Attention(heads: 2, bias: bias(5))), text, text, text, name: "attended"))
    func run(_ tokens: Int) throws -> [String: TensorValue] {
      var numbers = SeededGenerator(seed: 1)
      return try engine.run(sketch.graph, ["text": TensorValue([2, tokens, 8], numbers.floats(16 * tokens))])
    }
    for tokens in 1...5 { #expect(try run(tokens)["features"]?.floats.allSatisfy(\.isFinite) == true) }
    let error = #expect(throws: GraphError.self) { _ = try run(6) }
    #expect(error?.diagnosis.found.contains("6 tokens, but index.5 has only 5") == true)
  }
}
