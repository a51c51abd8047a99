import MultiwayCore
import MultiwayGraph
import MultiwayPasses
import MultiwayTestSupport
import Testing

@Suite struct KeepModalityTests {
  private func kept(_ modality: Modality, of graph: Graph) throws -> Graph {
    var graph = graph
    _ = try PassPipeline([KeepModality(modality)]).run(on: &graph)
    return graph
  }

  @Test func snapshot() throws {
    var sketch = GraphSketch(seed: 1)
    let image = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 2, 4]))
    let text = sketch.graph.addInput("text", ValueType(.i64, [.symbol("batch"), .symbol("text_tokens")]))
    let mask = sketch.graph.addInput("padding_mask", ValueType(.u8, [.symbol("batch"), .symbol("text_tokens")]))
    let table = sketch.constant("table", [6, 4])
    let words = try sketch.add(.embedding(table: table), text, name: "words")
    let attended = try sketch.graph.add(
      .attention(Attention(heads: 2, isPadded: true)), [image, image, image, words, words, words, mask],
      names: ["vision.attention", "text.attention"], modality: .shared)
    sketch.output("features", try sketch.add(.joinTokens, attended[0], attended[1], name: "features"))
    sketch.output("pooled", try sketch.add(.selectToken(0), attended[1], name: "pooled"))
    #expect(
      sketch.graph.description == """
        graph(image: f32[batch, 2, 4], text: i64[batch, text_tokens], padding_mask: u8[batch, text_tokens]) -> (features, pooled)
          %words = embedding %text, table=table:f32[6, 4] : f32[batch, text_tokens, 4]
          %vision.attention, %text.attention = attention %image, %image, %image, %words, %words, %words, %padding_mask, \
        heads=2, padded : f32[batch, 2, 4], f32[batch, text_tokens, 4]
          %features = join_tokens %vision.attention, %text.attention : f32[batch, text_tokens+2, 4]
          %pooled = select_token %text.attention, index=0 : f32[batch, 4]
          return features = %features, pooled = %pooled

        """)
    #expect(
      try printed(sketch.graph, after: KeepModality(.vision)) == """
        graph(image: f32[batch, 2, 4]) -> (features)
          %vision.attention = attention %image, %image, %image, heads=2 : f32[batch, 2, 4]
          return features = %vision.attention

        """)
    #expect(
      try printed(sketch.graph, after: KeepModality(.text)) == """
        graph(text: i64[batch, text_tokens], padding_mask: u8[batch, text_tokens]) -> (features, pooled)
          %words = embedding %text, table=table:f32[6, 4] : f32[batch, text_tokens, 4]
          %text.attention = attention %words, %words, %words, %padding_mask, heads=2, padded : f32[batch, text_tokens, 4]
          %pooled = select_token %text.attention, index=0 : f32[batch, 4]
          return features = %text.attention, pooled = %pooled

        """)
  }

  @Test(arguments: [Modality.vision, .text])
  func nothingOfTheOtherModalityIsLeft(modality: Modality) throws {
    let whole = try Fixtures.graph("tiny/features")
    let graph = try kept(modality, of: whole)
    let other = modality == .vision ? Modality.text : .vision
    #expect(!graph.constants.contains { $0.modality == other })
    #expect(!graph.nodes.contains { $0.modality == other })
    #expect(
      !graph.values.contains {
        $0.name.contains(other.rawValue) || $0.name.contains(other == .vision ? "image" : "mask")
      })
    #expect(graph.inputs.map { graph[$0].name } == (modality == .vision ? ["image"] : ["text", "padding_mask"]))
    #expect(graph.outputs.map(\.name) == ["features"])
    #expect(Set(graph.constants.map(\.name)) == Set(whole.constants.filter { $0.modality == modality }.map(\.name)))
    #expect(try kept(modality, of: graph).description == graph.description, "a second time there is nothing to do")
  }

  /// Retrieval sends image and text through the encoder apart, so either half must stay what it was to the last bit.
  @Test(arguments: [(Modality.vision, "image_embedding"), (.text, "text_embedding")], Engine.allCases)
  func retrievalKeepsTheEmbeddingsOfOneSide(side: (modality: Modality, output: String), engine: Engine) throws {
    let whole = try Fixtures.graph("tiny/heads/retrieval")
    let graph = try kept(side.modality, of: whole)
    #expect(graph.outputs.map(\.name) == [side.output])
    let inputs = try Fixtures.inputs("tiny/heads/retrieval")
    let names = Set(graph.inputs.map { graph[$0].name })
    let expected = try engine.run(whole, inputs)
    let found = try engine.run(graph, inputs.filter { names.contains($0.key) })
    #expect(found.bits == expected.filter { $0.key == side.output }.bits)
  }

  @Test func aModelWithoutTheModalityIsRefused() throws {
    for (name, modality) in [("tiny/classification", Modality.text), ("tiny/heads/vqa", .text)] {
      let graph = try Fixtures.graph(name)
      let error = #expect(throws: PassError.self) { _ = try kept(modality, of: graph) }
      #expect(error?.code == .notApplicable)
      #expect(error?.diagnosis.found.contains("no output") == true)
    }
  }

  /// Where there is nothing to drop nothing changes.
  @Test func visionAloneStays() throws {
    let graph = try Fixtures.graph("tiny/classification")
    try checkPass(KeepModality(.vision), on: graph, atLeast: .infinity)
  }
}
