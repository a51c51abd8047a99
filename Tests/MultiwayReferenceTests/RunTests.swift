import MultiwayCore
import MultiwayGraph
import MultiwayReference
import Testing

@Suite struct RunTests {
  /// text → embedding → positions → zero padding → mean.
  private func textGraph() throws -> Graph {
    var small = SmallGraph()
    let text: Dimension = .symbol("text_tokens")
    let ids = small.graph.addInput("text", ValueType(.i64, [.symbol("batch"), text]))
    let mask = small.graph.addInput("padding_mask", ValueType(.u8, [.symbol("batch"), text]))
    let table = small.constant("table", [3, 2], [0, 1, 10, 11, 20, 21])
    let positions = small.constant("positions", [5, 2], [9, 9, 9, 9, 1, 1, 2, 2, 3, 3])
    let embedded = try small.add(.embedding(table: table), ids, name: "embedded")
    let placed = try small.add(.addPositions(table: positions, firstRow: 2), embedded, name: "placed")
    let masked = try small.add(.zeroPadding, placed, mask, name: "masked")
    let mean = try small.add(.meanTokens(first: 1), masked, name: "mean")
    small.graph.outputs = [GraphOutput(name: "features", value: mean), GraphOutput(name: "tokens", value: placed)]
    return small.graph
  }

  @Test func runsAndShowsEveryValueInOrder() throws {
    let inputs = [
      "text": TensorValue([1, 2], integers: [2, 1]), "padding_mask": TensorValue([1, 2], integers: [0, 9]),
    ]
    var seen: [String] = []
    var mask: TensorValue?
    let outputs = try Reference(try textGraph(), threads: 1).run(inputs) { name, value in
      seen.append(name)
      if name == "padding_mask" { mask = value }
    }
    #expect(seen == ["text", "padding_mask", "embedded", "placed", "masked", "mean"])
    #expect(mask == TensorValue([1, 2], integers: [0, 1]))
    #expect(outputs.map(\.name) == ["features", "tokens"])
    #expect(outputs[0].value == TensorValue([1, 2], [0, 0]))
    #expect(outputs[1].value == TensorValue([1, 2, 2], [21, 22, 12, 13]))
  }

  @Test func evaluatesANodeOnOtherInputs() throws {
    let graph = try textGraph()
    let value = TensorValue([2, 1, 2], [1, 2, 3, 4])
    #expect(
      try Reference(graph).evaluate(graph.nodes[1], inputs: [value]) == [TensorValue([2, 1, 2], [2, 3, 4, 5])])
    expectError(.invalidInput, "0 inputs") { _ = try Reference(graph).evaluate(graph.nodes[1], inputs: []) }
    expectError(.invalidInput, "token id 3") {
      _ = try Reference(graph).evaluate(graph.nodes[0], inputs: [TensorValue([1, 1], integers: [3])])
    }
  }

  private func expectError(
    _ code: ReferenceErrorCode, _ texts: String..., sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () throws -> Void
  ) {
    do {
      try body()
      Issue.record("no error", sourceLocation: sourceLocation)
    } catch let error as ReferenceError {
      #expect(error.code == code, sourceLocation: sourceLocation)
      #expect(error.category == .data, sourceLocation: sourceLocation)
      for text in texts {
        #expect(error.description.contains(text), "\(error)", sourceLocation: sourceLocation)
      }
    } catch { Issue.record("another error: \(error)", sourceLocation: sourceLocation) }
  }

  private func expectRunError(
    _ text: TensorValue?, _ mask: TensorValue?, _ expected: String, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    var inputs: [String: TensorValue] = [:]
    inputs["text"] = text
    inputs["padding_mask"] = mask
    expectError(.invalidInput, expected, sourceLocation: sourceLocation) {
      _ = try Reference(try textGraph()).run(inputs)
    }
  }

  @Test func everyProblemOfTheInputsIsListed() throws {
    let inputs = [
      "text": TensorValue([2, 2], integers: [0, -1, 3, 0]), "image": TensorValue([1], [0]),
      "banana": TensorValue([1], [0]),
    ]
    expectError(
      .invalidInput, "'padding_mask' u8[batch, text_tokens] is missing", "'image' is not an input",
      "'banana' is not an input", "token id -1, which is not in 0..<3"
    ) { _ = try Reference(try textGraph()).run(inputs) }
  }

  @Test func everyKindOfWrongInput() throws {
    let text = TensorValue([1, 2], integers: [0, 1])
    let mask = TensorValue([1, 2], integers: [0, 0])
    expectRunError(TensorValue([1, 2], [0, 1]), mask, "'text' holds floating-point numbers")
    expectRunError(TensorValue([2], integers: [0, 1]), mask, "'text' has the shape [2], not i64[batch, text_tokens]")
    expectRunError(text, TensorValue([2, 2], integers: [0, 0, 0, 0]), "says that batch is 2, 'text' says 1")
    expectRunError(text, TensorValue([1, 1], integers: [0]), "text_tokens is 1")
    expectRunError(
      TensorValue([0, 2], integers: []), TensorValue([0, 2], integers: []), "leaves nothing for batch")
    expectRunError(
      TensorValue([1, 4], integers: [0, 0, 0, 0]), TensorValue([1, 4], integers: [0, 0, 0, 0]),
      "add_positions gets 4 tokens; expected at most 3")
    expectRunError(
      TensorValue([1, 1], integers: [0]), TensorValue([1, 1], integers: [0]),
      "mean_tokens gets 1 tokens; expected more than 1")
  }

  @Test func imagesMustHaveTheirSizeAndType() throws {
    var small = SmallGraph()
    let image = small.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 1, 2, 2]))
    let patches = try small.add(.patchify(size: 1), image)
    let token = try small.add(.selectToken(3), patches, name: "token")
    small.graph.outputs = [GraphOutput(name: "features", value: token)]
    let reference = Reference(small.graph)
    #expect(try reference.run(["image": TensorValue([1, 1, 2, 2], [1, 2, 3, 4])])[0].value.floats == [4])
    expectError(.invalidInput, "'image' has the shape [1, 1, 2, 3], not f32[batch, 1, 2, 2]") {
      _ = try reference.run(["image": TensorValue([1, 1, 2, 3], [1, 2, 3, 4, 5, 6])])
    }
    expectError(.invalidInput, "'image' holds integers") {
      _ = try reference.run(["image": TensorValue([1, 1, 2, 2], integers: [1, 2, 3, 4])])
    }
  }

  @Test func selectingBehindTheLastTokenIsAnError() throws {
    var small = SmallGraph()
    let x = small.graph.addInput("x", ValueType(.f32, [1, .symbol("text_tokens"), 1]))
    small.graph.outputs = [GraphOutput(name: "y", value: try small.add(.selectToken(2), x))]
    expectError(.invalidInput, "select_token gets 2 tokens") {
      _ = try Reference(small.graph).run(["x": TensorValue([1, 2, 1], [1, 2])])
    }
  }

  @Test func sequencesBeyondTheLimitAreRefused() throws {
    var small = SmallGraph()
    let x = small.graph.addInput("x", ValueType(.f32, [1, .symbol("text_tokens"), 1]))
    let attended = try small.add(.attention(heads: 1, isPadded: false), x, x, x)
    small.graph.outputs = [GraphOutput(name: "y", value: attended)]
    expectError(.tooLarge, "[50000, 50000]") {
      let input = TensorValue([1, 50_000, 1], [Float](repeating: 0, count: 50_000))
      _ = try Reference(small.graph).run(["x": input])
    }
  }

  @Test func aGraphThatIsNotWellFormedIsRefused() throws {
    var graph = try textGraph()
    graph.nodes.swapAt(0, 1)
    #expect(throws: GraphError.self) { _ = try Reference(graph).run([:]) }
  }
}
