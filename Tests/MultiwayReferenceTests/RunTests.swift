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

  /// What inputs may be is decided in one place, for the interpreter and the runtime alike, and tested there.
  @Test func inputsAreBoundAsForTheRuntime() throws {
    let reference = Reference(try textGraph())
    let text = TensorValue([1, 2], integers: [0, 1])
    let explicit = try reference.run(["text": text, "padding_mask": TensorValue([1, 2], integers: [0, 0])])
    let implied = try reference.run(["text": text])
    #expect(explicit.map(\.value) == implied.map(\.value))
    let error = try #require(
      #expect(throws: GraphError.self) { _ = try reference.run(["text": TensorValue([1, 2], integers: [0, 3])]) })
    #expect(error.code == .invalidInputs)
    #expect(error.description.contains("token id 3"))
  }

  @Test func selectingBehindTheLastTokenIsAnError() throws {
    var small = SmallGraph()
    let x = small.graph.addInput("x", ValueType(.f32, [1, .symbol("text_tokens"), 1]))
    small.graph.outputs = [GraphOutput(name: "y", value: try small.add(.selectToken(2), x))]
    let reference = Reference(small.graph)
    #expect(throws: GraphError.self) { _ = try reference.run(["x": TensorValue([1, 2, 1], [1, 2])]) }
  }

  @Test func sequencesBeyondTheLimitAreRefused() throws {
    var small = SmallGraph()
    let x = small.graph.addInput("x", ValueType(.f32, [1, .symbol("text_tokens"), 1]))
    let attended = try small.add(.attention(Attention(heads: 1, isPadded: false)), x, x, x)
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
