import MultiwayCore
import MultiwayGraph
import MultiwayPasses
import MultiwayTestSupport
import Testing

@Suite struct QuantizeWeightsTests {
  private let roles = Set(Role.allCases.filter(\.isBlockLinear))

  /// Weights of the roles, and of a head that reads tokens; not a head that reads one vector, a table that is looked up, or what does not
  /// fill blocks.
  @Test func snapshot() throws {
    var sketch = GraphSketch(seed: 4)
    let ids = sketch.graph.addInput("text", ValueType(.i64, [.symbol("batch"), .symbol("text_tokens")]))
    let table = sketch.constant("table", [6, 32], role: .tokenEmbedding)
    let words = try sketch.add(.embedding(table: table), ids, name: "words")
    let hidden = try sketch.add(
      sketch.linear("in", outputs: 40, inputs: 32), words, name: "hidden", role: .feedForwardIn)
    let result = try sketch.add(
      sketch.linear("out", outputs: 32, inputs: 40), hidden, name: "result", role: .feedForwardOut)
    sketch.output(
      "tied", try sketch.add(.linear(weight: table, bias: nil), result, name: "tied_logits", role: .head))
    sketch.output(
      "words", try sketch.add(sketch.linear("vocabulary", outputs: 7, inputs: 32), result, name: "logits", role: .head))
    let first = try sketch.add(.selectToken(0), result, name: "first")
    sketch.output(
      "class", try sketch.add(sketch.linear("classes", outputs: 3, inputs: 32), first, name: "scores", role: .head))
    let before = sketch.graph
    var after = before
    let pipeline = try PassPipeline([QuantizeWeights(.q8_0, roles: roles), CastStorage(.f16, keepsBlocks: true)])
    let reports = try pipeline.run(on: &after)
    let types = Dictionary(uniqueKeysWithValues: after.constants.map { ($0.name, $0.data.typeName) })
    #expect(types["in.weight"] == "q8_0" && types["vocabulary.weight"] == "q8_0")
    for name in ["out.weight", "table", "classes.weight"] { #expect(types[name] == "f16") }
    #expect(reports[0].statistics.rewrites == 2)
    #expect(
      reports[0].statistics.notes == [
        "1 of 3 matrices stay as they are, their inputs fill no whole blocks of 32: out.weight [32, 40]"
      ])
    #expect(after.description.contains("weight=in.weight:q8_0[40, 32]"))
    let inputs = randomInputs(for: before, batch: 2)
    let (expected, found) = (try Engine.reference.run(before, inputs), try Engine.runtime.run(after, inputs))
    for (name, value) in expected { #expect(decibels(value, try #require(found[name])) > 38) }
  }

  /// Running it again finds nothing to do, another type is another encoding, and a plain cast leaves the blocks.
  @Test func blocksStayUnlessAnotherTypeIsAsked() throws {
    var sketch = GraphSketch(seed: 4)
    let x = sketch.graph.addInput("x", ValueType(.f32, [.symbol("batch"), .fixed(64)]))
    sketch.output(
      "y", try sketch.add(sketch.linear("w", outputs: 8, inputs: 64), x, name: "y", role: .attentionQuery))
    var graph = sketch.graph
    _ = try PassPipeline([QuantizeWeights(.q4_1, roles: roles)]).run(on: &graph)
    let again = try PassPipeline([QuantizeWeights(.q4_1, roles: roles)]).run(on: &graph)
    #expect(again[0].statistics.rewrites == 0)
    _ = try PassPipeline([QuantizeWeights(.q8_0, roles: roles)]).run(on: &graph)
    #expect(graph.constants[0].data.typeName == "q8_0")
    _ = try PassPipeline([CastStorage(.f32)]).run(on: &graph)
    #expect(graph.constants[0].data.typeName == "f32")
  }

  @Test func aModelWithoutSuchLayersIsRefused() throws {
    var sketch = GraphSketch(seed: 4)
    let x = sketch.graph.addInput("x", ValueType(.f32, [.symbol("batch"), .fixed(64)]))
    sketch.output("y", try sketch.add(sketch.linear("w", outputs: 8, inputs: 64), x, name: "y", role: .patchEmbedding))
    var graph = sketch.graph
    let error = #expect(throws: PassError.self) {
      _ = try PassPipeline([QuantizeWeights(.q8_0, roles: roles)]).run(on: &graph)
    }
    #expect(error?.code == .notApplicable)
  }
}
