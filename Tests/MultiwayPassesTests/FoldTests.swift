import MultiwayCore
import MultiwayGraph
import MultiwayPasses
import MultiwayTestSupport
import Testing

@Suite struct FoldQueryScaleTests {
  /// One head of a size over a stream of 4 features.
  private func sketch(headSize: Int, weight: DType = .f32) throws -> GraphSketch {
    var sketch = GraphSketch(seed: 7)
    let x = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 3, 4]))
    var projected: [ValueID] = []
    for name in ["query", "key", "value"] {
      let op = sketch.linear(name, outputs: headSize, inputs: 4, as: weight, role: .attentionQuery)
      projected.append(try sketch.add(op, x, name: name, role: .attentionQuery))
    }
    let scaled = try sketch.add(
      .scale(by: 1 / Float(headSize).squareRoot()), projected[0], name: "query_scaled")
    let attended = try sketch.add(
      .attention(Attention(heads: 1, isPadded: false)), scaled, projected[1], projected[2], name: "attention")
    sketch.output("features", attended)
    return sketch
  }

  @Test func snapshot() throws {
    let graph = try sketch(headSize: 16).graph
    #expect(
      graph.description == """
        graph(image: f32[batch, 3, 4]) -> (features)
          %query = linear %image, weight=query.weight:f32[16, 4], bias=query.bias:f32[16] : f32[batch, 3, 16]
          %key = linear %image, weight=key.weight:f32[16, 4], bias=key.bias:f32[16] : f32[batch, 3, 16]
          %value = linear %image, weight=value.weight:f32[16, 4], bias=value.bias:f32[16] : f32[batch, 3, 16]
          %query_scaled = scale %query, by=0.25 : f32[batch, 3, 16]
          %attention = attention %query_scaled, %key, %value, heads=1 : f32[batch, 3, 16]
          return features = %attention

        """)
    #expect(
      try printed(graph, after: FoldQueryScale()) == """
        graph(image: f32[batch, 3, 4]) -> (features)
          %query_scaled = linear %image, weight=query.weight:f32[16, 4], bias=query.bias:f32[16] : f32[batch, 3, 16]
          %key = linear %image, weight=key.weight:f32[16, 4], bias=key.bias:f32[16] : f32[batch, 3, 16]
          %value = linear %image, weight=value.weight:f32[16, 4], bias=value.bias:f32[16] : f32[batch, 3, 16]
          %attention = attention %query_scaled, %key, %value, heads=1 : f32[batch, 3, 16]
          return features = %attention

        """)
  }

  /// 1/4 and 1/8 are powers of two: scaling the weights instead of the queries moves every exponent and rounds nothing.
  @Test(arguments: [16, 64], Engine.allCases)
  func exactWhereTheHeadSizeIsAPowerOfFour(headSize: Int, engine: Engine) throws {
    try checkPass(FoldQueryScale(), on: try sketch(headSize: headSize).graph, atLeast: .infinity, engine: engine)
    try checkPass(
      FoldQueryScale(), on: try sketch(headSize: headSize, weight: .f16).graph, atLeast: .infinity, engine: engine)
  }

  @Test(arguments: Fixtures.models)
  func realModels(name: String) throws {
    let graph = try Fixtures.graph(name)
    let isExact = graph.description.contains("by=0.25")
    let after = try checkPass(FoldQueryScale(), on: graph, atLeast: isExact ? .infinity : 120)
    #expect(!after.nodes.contains { $0.op.name == "scale" })
  }

  /// 1/√8 rounds once, and the weights times it once more: two errors of 2⁻²⁵ ≈ −150 dB, of which softmax makes no more.
  @Test func elsewhereTheWeightsRoundOnceMore() throws {
    try checkPass(FoldQueryScale(), on: try sketch(headSize: 8).graph, atLeast: 120)
  }

  /// Where something else reads the unscaled queries they must stay.
  @Test func aQueryWithAnotherReaderStays() throws {
    var sketch = try sketch(headSize: 16)
    let query = try #require(sketch.graph.value(named: "query"))
    sketch.output("query", query)
    let after = try checkPass(FoldQueryScale(), on: sketch.graph, atLeast: .infinity)
    #expect(after.description == sketch.graph.description)
  }

  /// Two layers with one weight whose results are scaled alike: the weight is scaled once.
  @Test func twinsFoldTogether() throws {
    var sketch = GraphSketch(seed: 3)
    let op = sketch.linear("tied", outputs: 4, inputs: 4)
    for name in ["first", "second"] {
      let x = sketch.graph.addInput("image." + name, ValueType(.f32, [.symbol("batch"), 3, 4]))
      let y = try sketch.add(op, x, name: name)
      sketch.output(name, try sketch.add(.scale(by: 0.5), y, name: name + "_scaled"))
    }
    let after = try checkPass(FoldQueryScale(), on: sketch.graph, atLeast: .infinity)
    #expect(after.nodes.map(\.op.name) == ["linear", "linear"] && after.constants.count == 2)
  }

  /// Two layers with one weight, of which one is scaled: the weight cannot be.
  @Test func aSharedWeightStays() throws {
    var sketch = GraphSketch(seed: 3)
    let x = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 3, 4]))
    let op = sketch.linear("tied", outputs: 4, inputs: 4)
    let first = try sketch.add(op, x, name: "first")
    let second = try sketch.add(op, x, name: "second")
    sketch.output("plain", first)
    sketch.output("scaled", try sketch.add(.scale(by: 0.5), second, name: "second_scaled"))
    let twice = try sketch.add(op, x, name: "third")
    sketch.output("scaled_too", try sketch.add(.scale(by: 0.25), twice, name: "third_scaled"))
    try checkPass(FoldQueryScale(), on: sketch.graph, atLeast: .infinity)
  }
}

/// 120 dB: every weight and bias rounds once more, 2⁻²⁵ ≈ −150 dB each, and so does every sum of them.
@Suite struct FoldLayerScaleTests {
  private func sketch(hasBias: Bool = true, weight: DType = .f32) throws -> GraphSketch {
    var sketch = GraphSketch(seed: 9)
    let x = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 3, 4]))
    let layer = sketch.linear("out", outputs: 4, inputs: 4, hasBias: hasBias, as: weight, role: .attentionOut)
    let y = try sketch.add(layer, x, name: "out", role: .attentionOut)
    let factors = sketch.constant("factors", [4], role: .layerScale)
    let scaled = try sketch.add(.scaleChannels(factors), y, name: "scaled")
    sketch.output("features", try sketch.add(.add, x, scaled, name: "sum"))
    return sketch
  }

  @Test(arguments: [true, false], [DType.f32, .f16])
  func theFactorsMoveIntoTheLayer(hasBias: Bool, weight: DType) throws {
    for engine in Engine.allCases {
      let graph = try sketch(hasBias: hasBias, weight: weight).graph
      let after = try checkPass(FoldLayerScale(), on: graph, atLeast: 120, engine: engine)
      #expect(after.nodes.map(\.op.name) == ["linear", "add"])
      #expect(after.value(named: "scaled") != nil && after.value(named: "out") == nil)
    }
  }

  /// What it leaves can be quantized, and the panels are those of the scaled weights.
  @Test func theFoldedLayerBecomesInt8() throws {
    var graph = try sketch().graph
    _ = try PassPipeline([FoldLayerScale(), QuantizeLinears(roles: [.attentionOut])]).run(on: &graph)
    #expect(graph.nodes.map(\.op.name) == ["quantized_linear", "add"])
    let inputs = randomInputs(for: graph, batch: 2)
    let expected = try Engine.reference.run(try sketch().graph, inputs)
    let found = try Engine.runtime.run(graph, inputs)
    #expect(decibels(try #require(expected["features"]), try #require(found["features"])) > 35)
  }

  @Test func aLayerWithAnotherReaderOrASharedWeightStays() throws {
    var seen = try sketch()
    seen.output("out", try #require(seen.graph.value(named: "out")))
    var tied = try sketch()
    let x = try #require(tied.graph.value(named: "image"))
    tied.output("again", try tied.add(tied.graph.nodes[0].op, x, name: "again"))
    for graph in [seen.graph, tied.graph] {
      let after = try checkPass(FoldLayerScale(), on: graph, atLeast: .infinity)
      #expect(after.description == graph.description)
    }
  }

  /// The factors may be shared like the layer before them; a layer whose results are scaled in two ways stays.
  @Test(arguments: [true, false])
  func twinsFoldWhereTheirFactorsAreTheSame(isSame: Bool) throws {
    var sketch = GraphSketch(seed: 6)
    let op = sketch.linear("tied", outputs: 4, inputs: 4)
    let scales = ["a", "b"].map { sketch.constant($0, [4], in: 0.1...2, role: .layerScale) }
    for (place, name) in ["image", "image2"].enumerated() {
      let x = sketch.graph.addInput(name, ValueType(.f32, [.symbol("batch"), 3, 4]))
      let projected = try sketch.add(op, x, name: name + ".projected")
      let scale = Op.scaleChannels(scales[isSame ? 0 : place])
      sketch.output(name + ".scaled", try sketch.add(scale, projected, name: name + ".scaled"))
    }
    sketch.graph.removeDeadCode()
    let after = try checkPass(FoldLayerScale(), on: sketch.graph, atLeast: isSame ? 120 : .infinity)
    #expect(after.nodes.count == (isSame ? 2 : 4))
  }

  @Test func itStandsBeforeQuantization() {
    #expect(throws: PassError.self) {
      _ = try PassPipeline([QuantizeLinears(roles: [.attentionOut]), FoldLayerScale()])
    }
  }
}

/// 120 dB: every weight and bias rounds once more, 2⁻²⁵ ≈ −150 dB each, and so do the sums in another order.
@Suite struct FoldNormsTests {
  private static let policies: [FoldNorms.WeightPolicy] = [.never, .always]

  private func sketch() throws -> GraphSketch {
    var sketch = GraphSketch(seed: 11)
    let x = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 3, 4]))
    let normed = try sketch.add(sketch.norm("norm", 4), x, name: "norm", role: .headNorm)
    let left = sketch.linear("left", outputs: 2, inputs: 4)
    let right = sketch.linear("right", outputs: 2, inputs: 4, hasBias: false)
    let a = try sketch.add(left, normed, name: "left", role: .head)
    let b = try sketch.add(right, normed, name: "right", role: .head)
    sketch.output("features", try sketch.add(.add, a, b, name: "sum"))
    return sketch
  }

  @Test func snapshot() throws {
    let graph = try sketch().graph
    #expect(
      graph.description == """
        graph(image: f32[batch, 3, 4]) -> (features)
          %norm = layer_norm %image, weight=norm.weight:f32[4], bias=norm.bias:f32[4], epsilon=1e-05 : f32[batch, 3, 4]
          %left = linear %norm, weight=left.weight:f32[2, 4], bias=left.bias:f32[2] : f32[batch, 3, 2]
          %right = linear %norm, weight=right.weight:f32[2, 4] : f32[batch, 3, 2]
          %sum = add %left, %right : f32[batch, 3, 2]
          return features = %sum

        """)
    let after = try printed(graph, after: FoldNorms(weights: .always))
    // The norm's result means something else now, so it must have another name.
    let lines = after.split(separator: "\n")
    #expect(!after.contains("%norm ="))
    #expect(lines[1].contains("= layer_norm %image, epsilon=1e-05 : f32[batch, 3, 4]"))
    #expect(lines[2].contains("weight=left.weight:f32[2, 4], bias=left.bias:f32[2] : f32[batch, 3, 2]"))
    #expect(lines[3].contains("weight=right.weight:f32[2, 4], bias=right.bias:f32[2] : f32[batch, 3, 2]"))
    #expect(lines.count == 6)
  }

  @Test(arguments: policies)
  func theOutputsStay(policy: FoldNorms.WeightPolicy) throws {
    let after = try checkPass(FoldNorms(weights: policy), on: try sketch().graph, atLeast: 120, isIdempotent: false)
    let expected = policy == .always ? [] : ["weight"]
    #expect(after.nodes.filter { $0.op.name == "layer_norm" }.map { $0.op.constants.map(\.place) } == [expected])
  }

  @Test(arguments: Fixtures.models, policies)
  func realModels(name: String, policy: FoldNorms.WeightPolicy) throws {
    // Norms over the eight channels of the smallest models magnify what rounds once more.
    try checkPass(
      FoldNorms(weights: policy), on: try Fixtures.graph(name), atLeast: 110, isIdempotent: false)
  }

  /// A norm whose result is an output, or that something else than linear layers reads, has to stay as it is.
  @Test(arguments: policies)
  func aNormWithAnotherReaderStays(policy: FoldNorms.WeightPolicy) throws {
    var seen = try sketch()
    seen.output("norm", try #require(seen.graph.value(named: "norm")))
    var read = try sketch()
    let normed = try #require(read.graph.value(named: "norm"))
    read.output("gelu", try read.add(.gelu, normed, name: "gelu"))
    for graph in [seen.graph, read.graph] {
      let after = try checkPass(FoldNorms(weights: policy), on: graph, atLeast: .infinity, isIdempotent: false)
      #expect(after.description == graph.description)
    }
  }

  /// An encoder that runs twice: its norms and layers fold together, into constants that both runs read.
  @Test(arguments: policies)
  func twinsFoldTogether(policy: FoldNorms.WeightPolicy) throws {
    var sketch = GraphSketch(seed: 12)
    let norm = sketch.norm("norm", 4)
    let layers = [sketch.linear("a", outputs: 5, inputs: 4), sketch.linear("b", outputs: 5, inputs: 4, hasBias: false)]
    for run in ["first", "second"] {
      let x = sketch.graph.addInput(run, ValueType(.f32, [.symbol("batch"), 3, 4]))
      let normed = try sketch.add(norm, x, name: run + ".norm", role: .headNorm)
      for (place, layer) in layers.enumerated() {
        sketch.output("\(run).\(place)", try sketch.add(layer, normed, name: "\(run).layer.\(place)", role: .head))
      }
    }
    let after = try checkPass(FoldNorms(weights: policy), on: sketch.graph, atLeast: 120, isIdempotent: false)
    let norms = after.nodes.filter { $0.op.name == "layer_norm" }
    #expect(norms.map { $0.op.constants.map(\.place) } == (policy == .always ? [[], []] : [["weight"], ["weight"]]))
    #expect(after.constants.count == (policy == .always ? 4 : 5))
    // A third reader of one weight that has no such norm before it keeps all as they are.
    let x = try #require(sketch.graph.value(named: "first"))
    sketch.output("third", try sketch.add(layers[0], x, name: "third"))
    let kept = try checkPass(FoldNorms(weights: policy), on: sketch.graph, atLeast: .infinity, isIdempotent: false)
    #expect(kept.description == sketch.graph.description)
  }

  /// Layers that share a weight or a bias cannot each take a norm in.
  @Test(arguments: policies, [true, false])
  func sharedConstantsStayRight(policy: FoldNorms.WeightPolicy, sharesWeight: Bool) throws {
    var sketch = GraphSketch(seed: 5)
    let x = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 3, 4]))
    let bias = sketch.constant("tied.bias", [2])
    let weights = ["a", "b"].map { sketch.constant($0 + ".weight", [2, 4]) }
    for (place, name) in ["a", "b"].enumerated() {
      let normed = try sketch.add(sketch.norm("norm." + name, 4), x, name: "norm." + name)
      let weight = sharesWeight ? weights[0] : weights[place]
      let y = try sketch.add(.linear(weight: weight, bias: bias), normed, name: name)
      sketch.output(name, y)
    }
    sketch.graph.removeDeadCode()
    try checkPass(FoldNorms(weights: policy), on: sketch.graph, atLeast: 120, isIdempotent: false)
  }
}
