import MultiwayCore
import MultiwayGraph
import Testing

/// A small two-modality graph.
struct SmallModel {
  var graph = Graph()
  let image, text, mask, patches, words, vision, language: ValueID

  init() throws {
    let batch: Dimension = .symbol("batch")
    image = graph.addInput("image", ValueType(.f32, [batch, 3, 4, 6]))
    text = graph.addInput("text", ValueType(.i64, [batch, .symbol("text_tokens")]))
    mask = graph.addInput("padding_mask", ValueType(.u8, [batch, .symbol("text_tokens")]))
    patches = try graph.add(.patchify(size: 2), image, name: "patches", modality: .vision)
    let table = SmallModel.constant("table", [9, 12], .tokenEmbedding, .text, in: &graph)
    words = try graph.add(.embedding(table: table), text, name: "words", modality: .text)
    let attended = try graph.add(
      .attention(Attention(heads: 3, isPadded: true)), [patches, patches, patches, words, words, words, mask],
      names: ["vision", "language"], modality: .shared)
    (vision, language) = (attended[0], attended[1])
    let weight = SmallModel.constant("head.weight", [5, 12], .head, .shared, in: &graph)
    let bias = SmallModel.constant("head.bias", [5], .head, .shared, in: &graph)
    let mean = try graph.add(.meanTokens(first: 1), vision, name: "mean", modality: .vision)
    let logits = try graph.add(
      .linear(weight: weight, bias: bias), mean, name: "logits", role: .head, modality: .shared)
    let joined = try graph.add(.joinTokens, vision, language, name: "joined", modality: .shared)
    graph.outputs = [GraphOutput(name: "logits", value: logits), GraphOutput(name: "tokens", value: joined)]
  }

  @discardableResult
  static func constant(
    _ name: String, _ shape: Shape, _ role: Role, _ modality: Modality, dtype: DType = .f32, in graph: inout Graph
  ) -> ConstantID {
    let elements = [UInt8](repeating: 0, count: shape.byteCount(of: dtype) ?? 0)
    return graph.addConstant(
      Constant(
        name: name, role: role, modality: modality,
        data: .stored(StoredTensor(name: name, dtype: dtype, shape: shape, elements: elements))))
  }
}

@Suite struct GraphTests {
  @Test func thePrinterShowsANodeALine() throws {
    #expect(
      try SmallModel().graph.description == """
        graph(image: f32[batch, 3, 4, 6], text: i64[batch, text_tokens], padding_mask: u8[batch, text_tokens]) -> (logits, tokens)
          %patches = patchify %image, size=2 : f32[batch, 6, 12]
          %words = embedding %text, table=table:f32[9, 12] : f32[batch, text_tokens, 12]
          %vision, %language = attention %patches, %patches, %patches, %words, %words, %words, %padding_mask, heads=3, padded : \
        f32[batch, 6, 12], f32[batch, text_tokens, 12]
          %mean = mean_tokens %vision, first=1 : f32[batch, 12]
          %logits = linear %mean, weight=head.weight:f32[5, 12], bias=head.bias:f32[5] : f32[batch, 5]
          %joined = join_tokens %vision, %language : f32[batch, text_tokens+6, 12]
          return logits = %logits, tokens = %joined

        """)
  }

  @Test func aGoodGraphVerifies() throws { try SmallModel().graph.verify() }

  @Test func dimensionsResolve() {
    #expect(Dimension.fixed(3).resolved([:]) == 3)
    #expect(Dimension.symbol("batch").resolved([:]) == nil)
    #expect(Dimension.symbol("text_tokens", plus: 197).resolved(["text_tokens": 3]) == 200)
    #expect(Dimension.symbol("text_tokens", plus: 197).size == nil)
    #expect(Dimension.symbol("text_tokens", plus: 197).description == "text_tokens+197")
  }

  @Test func countsAndUses() throws {
    let model = try SmallModel()
    #expect(model.graph.parameterCount == 9 * 12 + 5 * 12 + 5)
    #expect(model.graph.constantByteCount == 4 * (9 * 12 + 5 * 12 + 5))
    #expect(model.graph.value(named: "words") == model.words && model.graph.value(named: "none") == nil)
    #expect(model.graph.consumers()[model.vision.index] == [3, 5])
    #expect(model.graph.producers()[model.language.index] == 2 && model.graph.producers()[model.image.index] == nil)
  }

  @Test func scalesAndSumsOfInt8AreNoParameters() throws {
    var graph = Graph()
    let x = graph.addInput("x", ValueType(.f32, [1, 6]))
    let linear = QuantizedLinear(
      panels: SmallModel.constant("p", [1, 2, 64, 4], .head, .shared, dtype: .i8, in: &graph),
      scales: SmallModel.constant("s", [1, 3], .head, .shared, in: &graph),
      sums: SmallModel.constant("z", [1, 3], .head, .shared, dtype: .i32, in: &graph), bias: nil, inputs: 6, outputs: 3)
    _ = try graph.add(.quantizedLinear(linear), x, name: "y", modality: .shared)
    #expect(graph.parameterCount == 18)
  }

  @Test func everyOpKeepsItsConstantsUnderMapping() throws {
    let graph = try SmallModel().graph
    for node in graph.nodes {
      let mapped = node.op.mappingConstants { ConstantID($0.index + 10) }
      #expect(mapped.constants.map(\.id.index) == node.op.constants.map { $0.id.index + 10 })
      #expect(mapped.mappingConstants { ConstantID($0.index - 10) } == node.op)
    }
  }
}

@Suite struct RewritingTests {
  @Test func deadCodeGoesWithItsConstantsAndInputs() throws {
    var graph = try SmallModel().graph
    // Nothing is dead at first, but for what is added here.
    let words = try #require(graph.value(named: "words"))
    _ = try graph.add(.gelu, words, name: "unread", modality: .text)
    #expect(graph.removeDeadCode() == 1)
    #expect(try graph.description == SmallModel().graph.description)
    #expect(graph.removeDeadCode() == 0)
  }

  @Test func constantsStandInTheOrderOfTheirUse() throws {
    var graph = try SmallModel().graph
    let text = graph.description
    graph.constants.append(graph.constants[0])
    graph.constants.reverse()
    let last = graph.constants.count - 1
    for position in graph.nodes.indices {
      graph.nodes[position].op = graph.nodes[position].op.mappingConstants { ConstantID(last - $0.index) }
    }
    graph.orderConstantsByUse()
    try graph.verify()
    #expect(graph.description == text)
    let used = graph.nodes.flatMap { $0.op.constants.map(\.id.index) }
    var seen: [Int] = []
    for index in used where !seen.contains(index) { seen.append(index) }
    #expect(seen == Array(graph.constants.indices))
  }

  @Test func droppingAModalityDropsItsExperts() throws {
    let model = try SmallModel()
    var graph = model.graph
    graph.nodes[2] = Node(
      op: .attention(Attention(heads: 3, isPadded: false)), inputs: [model.patches, model.patches, model.patches],
      outputs: [model.vision], role: nil, modality: .vision)
    graph.outputs.removeLast()
    #expect(graph.removeDeadCode() == 2)
    try graph.verify()
    #expect(
      graph.description == """
        graph(image: f32[batch, 3, 4, 6]) -> (logits)
          %patches = patchify %image, size=2 : f32[batch, 6, 12]
          %vision = attention %patches, %patches, %patches, heads=3 : f32[batch, 6, 12]
          %mean = mean_tokens %vision, first=1 : f32[batch, 12]
          %logits = linear %mean, weight=head.weight:f32[5, 12], bias=head.bias:f32[5] : f32[batch, 5]
          return logits = %logits

        """)
    #expect(graph.constants.map(\.name) == ["head.weight", "head.bias"])
  }

  @Test func usesAreReplacedInNodesAndOutputs() throws {
    let model = try SmallModel()
    var graph = model.graph
    graph.outputs.append(GraphOutput(name: "vision", value: model.vision))
    graph.replaceUses(of: model.vision, with: model.patches)
    #expect(graph.nodes[3].inputs == [model.patches] && graph.nodes[5].inputs == [model.patches, model.language])
    #expect(graph.outputs[2].value == model.patches)
    try graph.verify()
  }
}
