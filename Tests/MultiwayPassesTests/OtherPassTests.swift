import MultiwayCore
import MultiwayGraph
import MultiwayPasses
import MultiwayTestSupport
import Testing

@Suite struct RemoveUnreachedTests {
  @Test func snapshot() throws {
    var sketch = GraphSketch(seed: 2)
    let x = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 4]))
    let unused = sketch.graph.addInput("text", ValueType(.f32, [.symbol("batch"), 4]))
    let lost = try sketch.add(sketch.linear("lost", outputs: 4, inputs: 4), unused, name: "lost")
    _ = try sketch.add(.add, lost, x, name: "lost_sum")
    sketch.output("logits", try sketch.add(sketch.linear("kept", outputs: 2, inputs: 4), x, name: "logits"))
    _ = sketch.constant("never_read", [3])
    let before = sketch.graph
    var after = before
    let reports = try PassPipeline([RemoveUnreached()]).run(on: &after)
    #expect(reports[0].statistics == PassStatistics(rewrites: 3, removedNodes: 2))
    #expect(
      before.description == """
        graph(image: f32[batch, 4], text: f32[batch, 4]) -> (logits)
          %lost = linear %text, weight=lost.weight:f32[4, 4], bias=lost.bias:f32[4] : f32[batch, 4]
          %lost_sum = add %lost, %image : f32[batch, 4]
          %logits = linear %image, weight=kept.weight:f32[2, 4], bias=kept.bias:f32[2] : f32[batch, 2]
          return logits = %logits

        """)
    #expect(
      after.description == """
        graph(image: f32[batch, 4]) -> (logits)
          %logits = linear %image, weight=kept.weight:f32[2, 4], bias=kept.bias:f32[2] : f32[batch, 2]
          return logits = %logits

        """)
    #expect(after.constants.map(\.name) == ["kept.weight", "kept.bias"])
    #expect(after.values.map(\.name) == ["image", "logits"])
    let inputs = randomInputs(for: before, batch: 2)
    let kept = inputs.filter { $0.key == "image" }
    #expect(try Engine.reference.run(before, inputs).bits == Engine.reference.run(after, kept).bits)
  }

  @Test(arguments: Fixtures.models)
  func exactOnRealModels(name: String) throws {
    try checkPass(RemoveUnreached(), on: try Fixtures.graph(name), atLeast: .infinity)
  }

  @Test func classificationReachesNoTextExpert() throws {
    let after = try checkPass(RemoveUnreached(), on: try Fixtures.graph("tiny/classification"), atLeast: .infinity)
    #expect(!after.constants.contains { $0.modality == .text || $0.role == .maskToken })
  }
}

@Suite struct CastStorageTests {
  @Test func snapshot() throws {
    var sketch = GraphSketch(seed: 2)
    let ids = sketch.graph.addInput("text", ValueType(.i64, [.symbol("batch"), .symbol("text_tokens")]))
    let table = sketch.constant("table", [6, 4], role: .tokenEmbedding)
    let words = try sketch.add(.embedding(table: table), ids, name: "words")
    let normed = try sketch.add(sketch.norm("norm", 4), words, name: "normed")
    sketch.output("features", try sketch.add(sketch.linear("head", outputs: 2, inputs: 4), normed, name: "features"))
    #expect(
      try printed(sketch.graph, after: CastStorage(.f16, roles: [.tokenEmbedding]), CastStorage(.bf16, roles: [.head]))
        == """
        graph(text: i64[batch, text_tokens]) -> (features)
          %words = embedding %text, table=table:f16[6, 4] : f32[batch, text_tokens, 4]
          %normed = layer_norm %words, weight=norm.weight:f32[4], bias=norm.bias:f32[4], epsilon=1e-05 : \
        f32[batch, text_tokens, 4]
          %features = linear %normed, weight=head.weight:bf16[2, 4], bias=head.bias:f32[2] : f32[batch, text_tokens, 2]
          return features = %features

        """)
  }

  /// f16 keeps 11 bits, an error of at most 2⁻¹² and 2⁻¹²/√3 on average ≈ −77 dB a weight; bf16 keeps 8, so 18 dB less. What
  /// layers make of it costs up to 25 dB, most where rows have only 8 numbers.
  @Test(arguments: Fixtures.models, [(DType.f16, 52.0), (.bf16, 34.0), (.f32, .infinity)])
  func realModels(name: String, storage: (dtype: DType, floor: Double)) throws {
    let graph = try Fixtures.graph(name)
    let after = try checkPass(CastStorage(storage.dtype), on: graph, atLeast: storage.floor)
    for constant in after.constants {
      #expect(constant.data.dtype == (constant.data.shape.rank == 2 ? storage.dtype : .f32), "\(constant.name)")
    }
  }

  /// A table of relative positions is small, and its error goes into every score.
  @Test func relativePositionsStayInFp32() throws {
    var sketch = GraphSketch(seed: 2)
    let x = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 2, 4]))
    let index = StoredTensor(name: "index", dtype: .i16, shape: [2, 2], elements: [0, 1, 2, 0] as [Int16])
    let bias = RelativeBias(
      table: sketch.constant("table", [3, 2], role: .relativePositionBias),
      index: sketch.graph.addConstant(
        Constant(name: "index", role: .relativePositionIndex, modality: .vision, data: .stored(index))))
    sketch.output(
      "features", try sketch.add(.attention(Attention(heads: 2, bias: bias)), x, x, x, name: "attended"))
    let after = try checkPass(CastStorage(.bf16), on: sketch.graph, atLeast: .infinity)
    #expect(after.constants.map(\.data.dtype) == [.f32, .i16])
  }

  /// What is cast back keeps the rounding: fp32 storage of fp16 weights gives the bits of fp16 storage.
  @Test func castingBackGivesTheSameBits() throws {
    let graph = try Fixtures.graph("tiny/features")
    var half = graph
    var back = graph
    _ = try PassPipeline([CastStorage(.f16)]).run(on: &half)
    _ = try PassPipeline([CastStorage(.f16), CastStorage(.f32)]).run(on: &back)
    let inputs = try Fixtures.inputs("tiny/features")
    for engine in Engine.allCases {
      #expect(try engine.run(half, inputs).bits == engine.run(back, inputs).bits)
      #expect(try engine.run(half, inputs).bits != engine.run(graph, inputs).bits)
    }
  }
}

@Suite struct QuantizeLinearsTests {
  private static let roles = Set(Role.allCases.filter(\.isBlockLinear))

  @Test func snapshot() throws {
    var sketch = GraphSketch(seed: 2)
    let x = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 5]))
    let hidden = try sketch.add(
      sketch.linear("hidden", outputs: 70, inputs: 5, role: .feedForwardIn), x, name: "hidden", role: .feedForwardIn)
    sketch.output(
      "logits",
      try sketch.add(sketch.linear("head", outputs: 2, inputs: 70, hasBias: false), hidden, name: "logits", role: .head)
    )
    #expect(
      try printed(sketch.graph, after: QuantizeLinears(roles: [.feedForwardIn])) == """
        graph(image: f32[batch, 5]) -> (logits)
          %hidden = quantized_linear %image, panels=hidden.weight.int8:i8[2, 2, 64, 4], \
        scales=hidden.weight.scale:f32[1, 70], sums=hidden.weight.sum:i32[1, 70], bias=hidden.bias:f32[70] : f32[batch, 70]
          %logits = linear %hidden, weight=head.weight:f32[2, 70] : f32[batch, 2]
          return logits = %logits

        """)
  }

  /// Int8 rounds weights and activations to about 1/127 and 1/255 of their range: some 40 dB a layer, less up to 20 dB for
  /// what gathers over the layers of the tiny models, whose rows of 8 to 48 numbers average out little.
  @Test(arguments: Fixtures.models)
  func realModels(name: String) throws {
    var graph = try Fixtures.graph(name)
    graph.removeDeadCode()
    let after = try checkPass(
      QuantizeLinears(roles: QuantizeLinearsTests.roles), on: graph, atLeast: 20, isIdempotent: false)
    for node in after.nodes {
      guard let role = node.role, role.isBlockLinear else { continue }
      #expect(node.op.name == "quantized_linear")
    }
    #expect(after.parameterCount == graph.parameterCount, "int8 weights count with their logical size")
    // Panels of 64 outputs are mostly padding in models of width 8.
    if !name.contains("heads") { #expect(after.constantByteCount < graph.constantByteCount) }
    var again = after
    let error = #expect(throws: PassError.self) {
      _ = try PassPipeline([QuantizeLinears(roles: QuantizeLinearsTests.roles)]).run(on: &again)
    }
    #expect(error?.code == .notApplicable)
  }

  @Test func layersThatShareAWeightShareItsPanels() throws {
    var sketch = GraphSketch(seed: 3)
    let x = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 4]))
    let op = sketch.linear("tied", outputs: 4, inputs: 4)
    let first = try sketch.add(op, x, name: "first", role: .feedForwardIn)
    sketch.output("logits", try sketch.add(op, first, name: "second", role: .feedForwardIn))
    let after = try checkPass(
      QuantizeLinears(roles: [.feedForwardIn]), on: sketch.graph, atLeast: 30, isIdempotent: false)
    #expect(after.constants.count { $0.data.dtype == .i8 } == 1)
  }
}

/// A pass for tests that needs another before it.
private struct Needy: Pass {
  static let name = "needy"
  static let summary = "stands after cast-storage"
  static var requires: [any Pass.Type] { [CastStorage.self] }
  func run(on graph: inout Graph) -> PassStatistics { PassStatistics(rewrites: 7) }
}

/// A pass that leaves a broken graph.
private struct Vandal: Pass {
  static let name = "vandal"
  static let summary = "reverses the nodes"
  func run(on graph: inout Graph) -> PassStatistics {
    graph.nodes.reverse()
    return PassStatistics()
  }
}

@Suite struct PipelineTests {
  @Test func theWrongOrderIsRefused() throws {
    for passes in [[Needy()], [Needy(), CastStorage(.f16)], [RemoveUnreached(), Needy()]] as [[any Pass]] {
      let error = #expect(throws: PassError.self) { _ = try PassPipeline(passes) }
      #expect(error?.code == .wrongOrder)
      #expect(error?.diagnosis.found == "the pass needy stands before cast-storage, which it requires")
    }
    let pipeline = try PassPipeline([CastStorage(.f16), RemoveUnreached(), Needy()])
    #expect(pipeline.passes.count == 3)
    var graph = try Fixtures.graph("tiny/classification")
    #expect(try pipeline.run(on: &graph).map(\.name) == ["cast-storage", "remove-unreached", "needy"])
  }

  /// What can no longer fold once the weights are int8 must not silently do nothing.
  @Test func foldingAfterQuantizingIsRefused() throws {
    let quantize = QuantizeLinears(roles: [.feedForwardIn])
    for late in [FoldQueryScale(), FoldNorms(weights: .never)] as [any Pass] {
      let error = #expect(throws: PassError.self) { _ = try PassPipeline([quantize, late]) }
      #expect(error?.code == .wrongOrder)
      #expect(throws: Never.self) { _ = try PassPipeline([late, quantize]) }
    }
  }

  @Test func aBrokenGraphIsAFaultOfOurs() throws {
    var graph = try Fixtures.graph("tiny/classification")
    let error = #expect(throws: PassError.self) { _ = try PassPipeline([Vandal()]).run(on: &graph) }
    #expect(error?.code == .brokenGraph)
    #expect(error?.category == .internalFault)
    #expect(error?.diagnosis.found.hasPrefix("after the pass vandal: ") == true)
  }

  @Test func namesAreUniqueAndSummariesAreThere() {
    let passes: [any Pass.Type] = [
      CastStorage.self, FoldLayerScale.self, FoldNorms.self, FoldQueryScale.self, KeepModality.self,
      QuantizeLinears.self,
      RemoveUnreached.self,
    ]
    #expect(Set(passes.map { $0.name }).count == passes.count)
    for pass in passes {
      #expect(pass.name.wholeMatch(of: /[a-z]+(-[a-z]+)*/) != nil)
      #expect(!pass.summary.isEmpty)
    }
  }
}
