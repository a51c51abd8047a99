import MultiwayCore
import MultiwayGraph
import MultiwayPasses
import MultiwayQuantization
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
    for (name, modality) in [
      ("tiny/classification", Modality.text), ("tiny/heads/vqa", .text), ("tiny/heads/captioning", .vision),
      ("tiny/heads/nlvr2", .vision), ("tiny/heads/nlvr2", .text),
    ] {
      let graph = try Fixtures.graph(name)
      let error = #expect(throws: PassError.self) { _ = try kept(modality, of: graph) }
      #expect(error?.code == .notApplicable)
      #expect(error?.diagnosis.found.contains("no output") == true)
    }
  }

  /// The tokens that stay keep their part of a relative bias, wherever their stream stands.
  @Test(arguments: [(Modality.vision, 3, [Int16](arrayLiteral: 0, 1, 2, 2, 0, 1, 1, 2, 0)), (.text, 2, [3, 4, 4, 3])])
  func aRelativeBiasIsCut(kept modality: Modality, tokens: Int, expected: [Int16]) throws {
    var sketch = GraphSketch(seed: 2)
    let image = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 3, 4]))
    let text = sketch.graph.addInput("text", ValueType(.f32, [.symbol("batch"), .symbol("text_tokens"), 4]))
    let index: [Int16] = [0, 1, 2, 5, 5, 2, 0, 1, 5, 5, 1, 2, 0, 5, 5, 6, 6, 6, 3, 4, 6, 6, 6, 4, 3]
    let bias = RelativeBias(
      table: sketch.constant("table", [7, 2], role: .relativePositionBias),
      index: sketch.graph.addConstant(
        Constant(
          name: "index", role: .relativePositionIndex, modality: .shared,
          data: .stored(StoredTensor(name: "index", dtype: .i16, shape: [5, 5], elements: index)))))
    var streams = [image, text]
    for layer in 0..<2 {
      streams = try sketch.graph.add(
        .attention(Attention(heads: 2, mask: .caption, bias: bias)), streams.flatMap { [$0, $0, $0] },
        names: ["vision.\(layer)", "text.\(layer)"], modality: .shared)
    }
    sketch.output("features", try sketch.add(.joinTokens, streams[0], streams[1], name: "features"))
    let graph = try kept(modality, of: sketch.graph)
    let (cut, inputs) = (graph.constants[1], randomInputs(for: graph, batch: 2, textTokens: 2))
    #expect(graph.constants.count == 2 && cut.role == .relativePositionIndex && cut.data.shape == [tokens, tokens])
    var materializer = Materializer(discardsSources: false)
    #expect(try materializer.bytes(of: cut.data).array(of: Int16.self) == expected)
    let masks = graph.nodes.compactMap { node -> AttentionMask? in
      if case .attention(let attention) = node.op { return attention.mask }
      return nil
    }
    #expect(masks == (modality == .text ? [.caption, .caption] : [.none, .none]))
    let engines = try Engine.allCases.map { try $0.run(graph, inputs) }
    #expect(decibels(try #require(engines[0]["features"]), try #require(engines[1]["features"])) > 110)
  }

  /// A memory of the other modality goes with it.
  @Test func aMemoryIsDropped() throws {
    var sketch = GraphSketch(seed: 2)
    let image = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 3, 4]))
    let text = sketch.graph.addInput("text", ValueType(.f32, [.symbol("batch"), .symbol("text_tokens"), 4]))
    let written = try sketch.add(
      .attention(Attention(heads: 2, mask: .caption, memories: 2)), image, image, text, text, text, text, text,
      name: "written")
    sketch.output("features", written)
    let graph = try kept(.text, of: sketch.graph)
    #expect(
      graph.description.contains("attention %text, %text, %text, %text, %text, heads=2, mask=caption, memories=1 "))
  }

  /// A captioning model keeps its text alone, which then is a causal model of it; a pretrained one keeps what each modality makes.
  @Test func headsKeepWhatTheyCan() throws {
    let captioning = try kept(.text, of: try Fixtures.graph("tiny/heads/captioning"))
    #expect(captioning.inputs.map { captioning[$0].name } == ["text", "padding_mask"])
    #expect(captioning.description.contains("padded, mask=caption"))
    let pretrained = try Fixtures.graph("tiny/heads/pretraining")
    #expect(try kept(.vision, of: pretrained).outputs.map(\.name) == ["features", "mim_logits"])
    #expect(try kept(.text, of: pretrained).outputs.map(\.name) == ["features", "mlm_logits"])
  }

  /// Where there is nothing to drop nothing changes.
  @Test func visionAloneStays() throws {
    let graph = try Fixtures.graph("tiny/classification")
    try checkPass(KeepModality(.vision), on: graph, atLeast: .infinity)
  }
}
