import MultiwayCore
import MultiwayGraph
import Testing

@Suite struct VerifierTests {
  private func expectError(
    _ code: GraphErrorCode, _ text: String, sourceLocation: SourceLocation = #_sourceLocation,
    _ change: (inout SmallModel) throws -> Void
  ) throws {
    var model = try SmallModel()
    do {
      try change(&model)
      try model.graph.verify()
      Issue.record("no error", sourceLocation: sourceLocation)
    } catch let error as GraphError {
      #expect(error.code == code, "\(error)", sourceLocation: sourceLocation)
      #expect(error.description.contains(text), "\(error)", sourceLocation: sourceLocation)
      #expect(error.category == .data, sourceLocation: sourceLocation)
    }
  }

  @Test func references() throws {
    try expectError(.invalidReference, "value 99, which does not exist") { $0.graph.nodes[3].inputs = [ValueID(99)] }
    try expectError(.invalidReference, "value -1") { $0.graph.nodes[3].inputs = [ValueID(-1)] }
    try expectError(.invalidReference, "value -1") { $0.graph.nodes[3].outputs = [ValueID(-1)] }
    try expectError(.invalidReference, "value 99") { $0.graph.outputs[0].value = ValueID(99) }
    try expectError(.invalidReference, "value 99") { $0.graph.inputs[0] = ValueID(99) }
    try expectError(.invalidReference, "reads a value before it is made") { $0.graph.nodes.swapAt(2, 3) }
    try expectError(.invalidReference, "is never made") { $0.graph.nodes.removeLast() }
    try expectError(.invalidReference, "makes a value a second time") { $0.graph.nodes.append($0.graph.nodes[5]) }
    try expectError(.invalidReference, "constant 7 does not exist") {
      $0.graph.nodes[1].op = .embedding(table: ConstantID(7))
    }
    try expectError(.invalidReference, "constant -1 does not exist") {
      $0.graph.nodes[4].op = .linear(weight: ConstantID(-1), bias: nil)
    }
  }

  @Test func names() throws {
    try expectError(.duplicateName, "two values") { $0.graph.values[4].name = "image" }
    try expectError(.duplicateName, "two constants") { $0.graph.constants[1].name = "table" }
    try expectError(.duplicateName, "two outputs") { $0.graph.outputs[1].name = "logits" }
    try expectError(.duplicateName, "an input twice") { $0.graph.inputs.append($0.image) }
  }

  @Test func types() throws {
    try expectError(.typeMismatch, "mean_tokens makes") {
      $0.graph.values[$0.graph.nodes[3].outputs[0].index].type.dimensions[1] = 13
    }
    try expectError(.typeMismatch, "the input is") {
      $0.graph.values[$0.image.index].type.dimensions[2] = .fixed(.max)
    }
    try expectError(.typeMismatch, "the input is") {
      $0.graph.values[$0.text.index].type.dimensions[1].offset = -1
    }
    try expectError(.typeMismatch, "with 2 outputs; expected 1") {
      _ = try $0.graph.add(.gelu, [$0.words], names: ["a", "b"], modality: .text)
    }
  }

  /// Adds one node that must not fit.
  private func expectMisfit(
    _ text: String, sourceLocation: SourceLocation = #_sourceLocation,
    _ node: (inout SmallModel) -> (op: Op, inputs: [ValueID])
  ) throws {
    try expectError(.typeMismatch, text, sourceLocation: sourceLocation) { model in
      let (op, inputs) = node(&model)
      _ = try model.graph.add(op, inputs, names: ["new"], modality: .shared)
    }
  }

  private func constant(_ shape: Shape, _ dtype: DType = .f32, _ model: inout SmallModel) -> ConstantID {
    SmallModel.constant("c\(model.graph.constants.count)", shape, .head, .shared, dtype: dtype, in: &model.graph)
  }

  @Test func tokenOps() throws {
    try expectMisfit("0 inputs") { _ in (.gelu, []) }
    try expectMisfit("3 inputs") { (.add, [$0.vision, $0.vision, $0.vision]) }
    try expectMisfit("patches of 5") { (.patchify(size: 5), [$0.image]) }
    try expectMisfit("patches of 0") { (.patchify(size: 0), [$0.image]) }
    try expectMisfit("f32 with 4 dimensions") { (.patchify(size: 2), [$0.words]) }
    try expectMisfit("i64 with 2 dimensions") { (.embedding(table: ConstantID(0)), [$0.words]) }
    try expectMisfit("a floating-point matrix") { (.embedding(table: ConstantID(2)), [$0.text]) }
    try expectMisfit("floating-point[12]") { (.prependToken(ConstantID(2)), [$0.words]) }
    try expectMisfit("row 9 as the first of a table [9, 12]") {
      (.addPositions(table: ConstantID(0), firstRow: 9), [$0.words])
    }
    try expectMisfit("row -9223372036854775808") {
      (.addPositions(table: ConstantID(0), firstRow: .min), [$0.words])
    }
    try expectMisfit("at most 5 tokens of width 12") {
      (.addPositions(table: ConstantID(0), firstRow: 4), [$0.patches])
    }
    try expectMisfit("a mask for each token") { (.zeroPadding, [$0.patches, $0.mask]) }
    try expectMisfit("u8 with 2 dimensions") { (.zeroPadding, [$0.words, $0.text]) }
    try expectMisfit("a first token inside the stream") { (.meanTokens(first: 6), [$0.patches]) }
    try expectMisfit("a token inside the stream") { (.selectToken(-1), [$0.words]) }
    try expectMisfit("same batch and width") { (.joinTokens, [$0.words, $0.words]) }
  }

  @Test func rowOps() throws {
    try expectMisfit("f32 with 2 or 3 dimensions") { (.gelu, [$0.text]) }
    try expectMisfit("two values of the same type") { (.add, [$0.vision, $0.words]) }
    try expectMisfit("floating-point[12]") {
      (.layerNorm(weight: constant([11], .f32, &$0), bias: nil, epsilon: 1e-5), [$0.words])
    }
    try expectMisfit("a last dimension of 11") {
      (.linear(weight: constant([5, 11], .f32, &$0), bias: nil), [$0.words])
    }
    try expectMisfit("floating-point[5]") {
      (.linear(weight: ConstantID(1), bias: constant([5], .i32, &$0)), [$0.words])
    }
    try expectMisfit("a floating-point matrix") {
      (.linear(weight: constant([5, 12], .i8, &$0), bias: nil), [$0.words])
    }
  }

  private func quantized(
    _ model: inout SmallModel, panels: Shape = [1, 3, 64, 4], scales: DType = .f32, sums: Shape = [1, 5],
    inputs: Int = 12,
    outputs: Int = 5, groups: Int = 1
  ) -> (op: Op, inputs: [ValueID]) {
    let linear = QuantizedLinear(
      panels: constant(panels, .i8, &model), scales: constant([groups, 5], scales, &model),
      sums: constant(sums, .i32, &model), bias: ConstantID(2), inputs: inputs, outputs: outputs, groups: groups)
    return (.quantizedLinear(linear), [model.words])
  }

  @Test func quantizedLinear() throws {
    var model = try SmallModel()
    let (op, inputs) = quantized(&model)
    let id = try model.graph.add(op, inputs, names: ["int8"], modality: .shared)[0]
    #expect(model.graph[id].type.description == "f32[batch, text_tokens, 5]")
    let (grouped, same) = quantized(&model, sums: [3, 5], groups: 3)
    _ = try model.graph.add(grouped, same, names: ["grouped"], modality: .shared)
    try expectMisfit("i8[1, 3, 64, 4]") { quantized(&$0, panels: [1, 2, 64, 4]) }
    try expectMisfit("f32[1, 5]") { quantized(&$0, scales: .f16) }
    try expectMisfit("i32[1, 5]") { quantized(&$0, sums: [5]) }
    try expectMisfit("at most 65536") { quantized(&$0, inputs: 65540) }
    try expectMisfit("1 to 2³⁰ inputs and outputs") { quantized(&$0, outputs: 0) }
    try expectMisfit("i32[3, 5]") { quantized(&$0, groups: 3) }
    try expectMisfit("multiples of 4") { quantized(&$0, sums: [2, 5], groups: 2) }
    try expectMisfit("a last dimension of 11") { quantized(&$0, inputs: 11) }
  }

  @Test func attention() throws {
    let plain = { (heads: Int) in Op.attention(Attention(heads: heads, isPadded: false)) }
    try expectMisfit("a multiple of the heads") { (plain(5), [$0.words, $0.words, $0.words]) }
    try expectMisfit("a multiple of the heads") { (plain(0), [$0.words, $0.words, $0.words]) }
    try expectMisfit("one or two streams") { (plain(3), [$0.words, $0.words, $0.words, $0.words]) }
    try expectMisfit("one or two streams") {
      (.attention(Attention(heads: 3, isPadded: true)), [$0.words, $0.words, $0.words])
    }
    try expectMisfit("query, key and value of the same type") { (plain(3), [$0.words, $0.words, $0.vision]) }
    try expectMisfit("a mask for each token") {
      (.attention(Attention(heads: 3, isPadded: true)), [$0.vision, $0.vision, $0.vision, $0.mask])
    }
    try expectMisfit("attention with 1 outputs; expected 2") {
      (plain(3), [$0.words, $0.words, $0.words, $0.vision, $0.vision, $0.vision])
    }
  }

  @Test func memories() throws {
    let remembering = { (count: Int) in Op.attention(Attention(heads: 3, memories: count)) }
    var model = try SmallModel()
    let few = model.graph.addInput("few", ValueType(.f32, [.symbol("images"), .symbol("prefix"), 12]))
    let inputs = [few, few, model.words, model.words, model.words]
    let output = try model.graph.add(remembering(1), inputs, names: ["remembered"], modality: .shared)[0]
    #expect(model.graph[output].type == model.graph[model.words].type)
    try expectMisfit("3 memories") { (remembering(3), [$0.words, $0.words, $0.words, $0.words, $0.words]) }
    try expectMisfit("-1 memories") { (remembering(-1), [$0.words, $0.words, $0.words]) }
    try expectMisfit("key and value of 1 memories") { (remembering(1), [$0.words, $0.words, $0.words]) }
    try expectMisfit("key and value of the same type") {
      (remembering(1), [$0.words, $0.vision, $0.words, $0.words, $0.words])
    }
    try expectMisfit("of the streams' width") { model in
      let narrow = model.graph.addInput("narrow", ValueType(.f32, [.symbol("batch"), 3, 9]))
      return (remembering(1), [narrow, narrow, model.words, model.words, model.words])
    }
    try expectMisfit("that divides the streams' batch") { model in
      let (two, three) = (
        model.graph.addInput("two", ValueType(.f32, [2, 3, 12])),
        model.graph.addInput("three", ValueType(.f32, [3, 3, 12]))
      )
      return (remembering(1), [two, two, three, three, three])
    }
  }

  @Test func relativeBias() throws {
    func biased(
      _ model: inout SmallModel, table: Shape = [7, 3], index: Shape = [6, 6], _ dtype: DType = .i16, memories: Int = 0
    ) -> Op {
      let bias = RelativeBias(table: constant(table, .f32, &model), index: constant(index, dtype, &model))
      return .attention(Attention(heads: 3, bias: bias, memories: memories))
    }
    var model = try SmallModel()
    let six = try #require(model.graph[model.patches].type.dimensions[1].size)
    let patches = [model.patches, model.patches, model.patches]
    _ = try model.graph.add(
      biased(&model, index: [six, six]), patches, names: ["biased"], modality: .vision)
    let words = [model.words, model.words, model.words]
    // Of a text of any length the index is for the longest.
    _ = try model.graph.add(
      biased(&model, index: [six + 9, six + 9]), patches + words, names: ["vision", "words.biased"], modality: .shared)
    try expectMisfit("a bias table [7, 2] for 3 heads") {
      (biased(&$0, table: [7, 2], index: [six, six]), [$0.patches, $0.patches, $0.patches])
    }
    try expectMisfit("a bias table [32769, 3]") {
      (biased(&$0, table: [32769, 3], index: [six, six]), [$0.patches, $0.patches, $0.patches])
    }
    try expectMisfit("a bias index i32") {
      (biased(&$0, index: [six, six], .i32), [$0.patches, $0.patches, $0.patches])
    }
    try expectMisfit("a row for each token") {
      (biased(&$0, index: [six + 1, six + 1]), [$0.patches, $0.patches, $0.patches])
    }
    try expectMisfit("a row for each token") {
      (biased(&$0, index: [six, six]), [$0.patches, $0.patches, $0.patches, $0.words, $0.words, $0.words])
    }
    try expectMisfit("a fixed length before the last") {
      (biased(&$0, index: [six + 9, six + 9]), [$0.words, $0.words, $0.words, $0.patches, $0.patches, $0.patches])
    }
    try expectMisfit("a relative bias with 1 memories") {
      (biased(&$0, index: [six, six], memories: 1), [$0.words, $0.words, $0.patches, $0.patches, $0.patches])
    }
  }

  @Test func smallOps() throws {
    try expectMisfit("floating-point[12]") { (.scaleChannels(constant([11], .f32, &$0)), [$0.words]) }
    try expectMisfit("floating-point[12]") { (.scaleChannels(constant([12], .i32, &$0)), [$0.words]) }
    try expectMisfit("more than 6 tokens") { (.dropTokens(first: 6), [$0.patches]) }
    try expectMisfit("more than -1 tokens") { (.dropTokens(first: -1), [$0.patches]) }
    try expectMisfit("more than 1 tokens") { (.dropTokens(first: 1), [$0.words]) }
    try expectMisfit("f32 with 2 or 3 dimensions") { (.relu, [$0.text]) }
  }

  @Test func sumsOfTokensStayInTheirLimit() throws {
    try expectMisfit("an output dimension of 2147483648") { model in
      let x = model.graph.addInput("x", ValueType(.f32, [1, .fixed(1 << 28), 1]))
      return (.joinTokens, [x, x, x, x, x, x, x, x])
    }
  }
}
