import MultiwayCore
import MultiwayGraph
import MultiwayParity
import MultiwayPasses
import MultiwayTestSupport
import Testing

@Suite struct VerificationTests {
  private static let strict = Gates(outputSQNR: 95, layerSQNR: 100, topOneAgreement: 1)
  private static let int8 = Gates(outputSQNR: 20, layerSQNR: 30, topOneAgreement: 0.5)

  private func verify(
    _ reference: Graph, _ candidate: Graph, gates: Gates = strict, layers: Bool = false, labels: [Int]? = nil,
    inputs: [String: TensorValue]? = nil
  ) throws -> ParityReport {
    let inputs = inputs ?? randomInputs(for: candidate, batch: 3, textTokens: 6)
    return try Verification(
      reference: reference, candidate: candidate, gates: gates, threads: 1, comparesLayers: layers
    ).run(inputs, labels: labels, isSynthetic: labels == nil)
  }

  /// A copy of a graph in which the elements of one constant are changed.
  private func changed(_ graph: Graph, _ name: String, _ change: (inout [Float]) -> Void) throws -> Graph {
    var graph = graph
    for index in graph.constants.indices where graph.constants[index].name == name {
      guard case .stored(let tensor) = graph.constants[index].data else { continue }
      var elements = try tensor.floats()
      change(&elements)
      graph.constants[index].data = .stored(
        StoredTensor(name: tensor.name, dtype: .f32, shape: tensor.shape, elements: elements))
    }
    return graph
  }

  private func quantized(_ graph: Graph) throws -> Graph {
    var graph = graph
    _ = try PassPipeline([
      RemoveUnreached(), QuantizeLinears(roles: Set(Role.allCases.filter(\.isBlockLinear))),
    ]).run(on: &graph)
    return graph
  }

  /// The runtime is another implementation than the reference, so it is close and not equal.
  @Test(arguments: Fixtures.models)
  func aModelPassesAgainstItself(name: String) throws {
    let graph = try Fixtures.graph(name)
    let report = try verify(graph, graph, layers: true)
    #expect(report.hasPassed, "\(report.verdict)")
    #expect(report.failures == [])
    #expect(report.outputs.map(\.name) == graph.outputs.map(\.name))
    #expect(report.outputs.allSatisfy { $0.sqnr < 200 && $0.sqnr >= 95 && !$0.isExact })
    #expect(report.firstSuspect == nil)
    #expect(report.exampleCount == 3)
    // Layers are run by the interpreter on both sides.
    #expect(report.layers.allSatisfy { $0.local.isExact && $0.cumulative.isExact })
    let linear = graph.nodes.filter { $0.op.name == "linear" }.map { graph[$0.outputs[0]].name }
    #expect(report.layers.map(\.name) == linear)
  }

  /// The measure agrees with one that was written apart from it. Eight examples go through at once, so both see the same bits.
  @Test func theNumbersAreRight() throws {
    let graph = try Fixtures.graph("tiny/classification")
    let candidate = try quantized(graph)
    let inputs = randomInputs(for: graph, batch: 8)
    let report = try verify(graph, candidate, gates: VerificationTests.int8, inputs: inputs)
    let left = try #require(try Engine.reference.run(graph, inputs)["logits"])
    let right = try #require(try Engine.runtime.run(candidate, inputs)["logits"])
    let output = try #require(report.outputs.first)
    #expect(abs(output.sqnr - decibels(left, right)) < 1e-6)
    let differences = zip(left.floats, right.floats).map { abs(Double($0) - Double($1)) }
    #expect(output.maximumDifference == differences.max())
    #expect(abs(output.meanDifference - differences.reduce(0, +) / Double(differences.count)) < 1e-9)
    #expect(output.topOneAgreement == agreement(answers(left), answers(right)))
    #expect(output.elementCount == 80)
    #expect(output.brokenCount == 0)
    let range = try #require(left.floats.max()) - (try #require(left.floats.min()))
    #expect(abs(output.referenceRange - Double(range)) < 1e-5)
    #expect(output.cosine > 0.99 && output.cosine < 1)
    #expect(report.verdict.contains("synthetic"))
  }

  /// One weight of one layer is wrong: the outputs fail, and that layer is named, not those behind it.
  @Test(arguments: ["layers.0.vision.key", "layers.1.vision.feed_forward_in"])
  func theLayerThatWentWrongIsNamed(layer: String) throws {
    let graph = try Fixtures.graph("tiny/classification")
    let damaged = try changed(graph, layer + ".weight") { $0[7] += 3 }
    let report = try verify(graph, damaged, layers: true)
    #expect(!report.hasPassed)
    #expect(report.verdict.hasPrefix("FAILED"))
    let suspect = try #require(report.firstSuspect)
    #expect(suspect.layer.name == layer)
    #expect(suspect.reason.contains("weights differ"))
    for comparison in report.layers where comparison.name != layer {
      #expect(comparison.local.isExact, "\(comparison.name) adds nothing of its own")
    }
    let place = try #require(report.layers.firstIndex { $0.name == layer })
    #expect(report.layers[..<place].allSatisfy { $0.cumulative.isExact })
    #expect(report.layers.last?.cumulative.isExact == false)
  }

  @Test func anInfiniteWeightIsNamedAsSuch() throws {
    let graph = try Fixtures.graph("tiny/classification")
    let damaged = try changed(graph, "layers.1.vision.value.weight") { $0[0] = .infinity }
    let report = try verify(graph, damaged, layers: true)
    #expect(!report.hasPassed)
    #expect(report.outputs[0].brokenCount > 0)
    #expect(report.outputs[0].sqnr == -.infinity)
    #expect(report.firstSuspect?.layer.name == "layers.1.vision.value")
    #expect(report.firstSuspect?.reason.contains("overflow") == true)
    let json = report.json
    #expect(json["passed"]?.bool == false)
    // JSON has no infinity: null, and the text parses.
    #expect(json["outputs"]?.array?[0]["sqnr_db"] == .null)
    #expect(throws: Never.self) { _ = try JSONParser.parse(Array(JSONValue.object(json).text(indented: true).utf8)) }
  }

  /// Each gate fails on its own.
  @Test func everyGateIsHeld() throws {
    let graph = try Fixtures.graph("tiny/classification")
    let candidate = try quantized(graph)
    let passing = Gates(outputSQNR: 0, layerSQNR: 0, topOneAgreement: 0)
    #expect(try verify(graph, candidate, gates: passing, layers: true).hasPassed)
    let high = Gates(outputSQNR: 90, layerSQNR: 0, topOneAgreement: 0)
    #expect(try verify(graph, candidate, gates: high).failures.first?.contains("below 90.0 dB") == true)
    let layers = Gates(outputSQNR: 0, layerSQNR: 90, topOneAgreement: 0)
    #expect(try verify(graph, candidate, gates: layers).hasPassed, "layers were not compared")
    let failures = try verify(graph, candidate, gates: layers, layers: true).failures
    #expect(failures.count == 1)
    #expect(failures.first?.contains("12 of 14 layers") == true, "\(failures)")
    let answers = Gates(outputSQNR: 0, topOneAgreement: 1.01)
    #expect(try verify(graph, candidate, gates: answers).failures.first?.contains("answers agree") == true)
  }

  @Test func accuracyCountsLabels() throws {
    let graph = try Fixtures.graph("tiny/classification")
    let inputs = randomInputs(for: graph, batch: 20)
    let right = answers(try #require(try Engine.reference.run(graph, inputs)["logits"]))
    let labels = right.enumerated().map { $0.offset < 5 ? ($0.element + 1) % 10 : $0.element }
    let accuracy = try #require(try verify(graph, graph, labels: labels, inputs: inputs).accuracy)
    #expect(accuracy.reference == 0.75)
    #expect(accuracy.candidate == 0.75)
    #expect(accuracy.examples == 20)
    #expect(try verify(graph, graph, inputs: inputs).accuracy == nil)
  }

  @Test func modelsOfDifferentTasksAreIncomparable() throws {
    let retrieval = try Fixtures.graph("tiny/heads/retrieval")
    let vqa = try Fixtures.graph("tiny/heads/vqa")
    let error = #expect(throws: ParityError.self) { _ = try verify(vqa, retrieval) }
    #expect(error?.code == .incomparable)
    // Both give logits, of another number of classes, for another size of image.
    let classification = try Fixtures.graph("tiny/classification")
    #expect(throws: (any Error).self) {
      _ = try verify(try Verification.specialised(vqa, like: classification), classification)
    }
  }

  /// A candidate that lost a modality is held to the reference without it.
  @Test func aPrunedCandidateHasASpecialisedReference() throws {
    let whole = try Fixtures.graph("tiny/features")
    var vision = whole
    _ = try PassPipeline([KeepModality(.vision)]).run(on: &vision)
    let reference = try Verification.specialised(whole, like: vision)
    #expect(reference.description == vision.description)
    #expect(try verify(reference, vision).hasPassed)
    #expect(try Verification.specialised(whole, like: whole).description == whole.description)
  }
}

@Suite struct SyntheticInputTests {
  /// A graph that somebody wrote by hand may claim any input.
  @Test(arguments: [
    ValueType(.f32, [.symbol("batch"), 3, .fixed(1 << 30), .fixed(1 << 30)]),
    ValueType(.f32, [.symbol("batch"), .fixed(1 << 30)]),
    ValueType(.u8, [.fixed(Int.max), 2]),
  ])
  func absurdInputsAreRefused(type: ValueType) throws {
    var graph = Graph()
    _ = graph.addInput("image", type)
    let error = try #require(
      #expect(throws: ParityError.self) { _ = try SyntheticInputs.make(for: graph, examples: 2) })
    #expect(error.code == .tooLarge)
  }

  @Test func inputsOfAnyRankAreMade() throws {
    var graph = Graph()
    for (name, type) in [
      ("a", ValueType(.f32, [.symbol("batch")])), ("b", ValueType(.f32, [])), ("c", ValueType(.u8, [4])),
    ] {
      _ = graph.addInput(name, type)
    }
    let inputs = try SyntheticInputs.make(for: graph, examples: 2)
    #expect(inputs["a"]?.shape == [2] && inputs["b"]?.shape == [] && inputs["c"]?.shape == [4])
  }

  @Test(arguments: Fixtures.models)
  func theyFitEveryGraph(name: String) throws {
    let graph = try Fixtures.graph(name)
    // Most of these have positions for fewer tokens than an example commonly has.
    let inputs = try SyntheticInputs.make(for: graph, examples: 3)
    let bound = try graph.bind(inputs)
    #expect(bound.symbols["batch"] == 3)
    #expect(try SyntheticInputs.make(for: graph, examples: 3) == inputs)
    #expect(SyntheticInputs.sizes(for: graph, examples: 3) == (try graph.bind(inputs).symbols))
    #expect(try SyntheticInputs.make(for: graph, examples: 3, seed: 1)["image"] != inputs["image"])
    let image = try #require(inputs["image"])
    #expect(image.floats.allSatisfy { abs($0) < 3 })
    #expect(Set(image.floats).count > 100)
    #expect(image.rows(0..<1).floats != image.rows(1..<2).floats)
  }
}

@Suite struct NumberTextTests {
  @Test(arguments: [
    (1.005, 2, "1.00"), (-0.004, 2, "0.00"), (0.999, 2, "1.00"), (12.5, 0, "13"), (-2.25, 1, "-2.3"), (0, 3, "0.000"),
    (123456.789, 1, "123456.8"), (1e20, 1, "1e+20"), (.infinity, 1, "inf"), (.nan, 1, "nan"), (0.05, 2, "0.05"),
  ])
  func fixedDecimals(value: Double, decimals: Int, text: String) {
    #expect(fixed(value, decimals) == text)
  }

  @Test(arguments: [
    (0, "0"), (1, "1.00e0"), (9.999, "1.00e1"), (0.00123, "1.23e-3"), (-456, "-4.56e2"), (9.994, "9.99e0"),
    (1e-300, "1.00e-300"), (0.9999, "1.00e0"), (.infinity, "inf"),
  ])
  func scientificNotation(value: Double, text: String) {
    #expect(scientific(value) == text)
  }

  @Test func decibelsInWords() {
    #expect(Decibels(.infinity).description == "exact")
    #expect(Decibels(-.infinity).description == "no signal")
    #expect(Decibels(41.25).description == "41.3 dB")
    #expect(Percent(0.99236).description == "99.24 %")
  }

  @Test func theFirstOfEqualsIsTheAnswer() {
    #expect(TopOne.index([1, 3, 3, 2]) == 1)
    #expect(TopOne.index([.nan, .nan]) == 0)
    #expect(TopOne.index([.nan, -5, .nan, -1]) == 3)
    let slice = ([9, 1, 2] as [Float])[1...]
    #expect(TopOne.index(slice) == 1)
  }

  /// Logits of every position are compared position by position, not along the last axis.
  @Test func answersOfMapsAreThoseOfTheirPositions() {
    // Two images of 1×3 positions, two classes.
    let logits = TensorValue([2, 2, 1, 3], [1, 5, 0, 2, 4, 0, .nan, 0, 9, 1, 0, 10])
    #expect(TopOne.answers(logits) == [1, 0, 0, 1, 0, 1])
    #expect(TopOne.answers(TensorValue([2, 3], [1, 2, 0, 7, 7, 8])) == [1, 2])
    #expect(TopOne.answers(TensorValue([0, 3], [])) == [])
  }
}
