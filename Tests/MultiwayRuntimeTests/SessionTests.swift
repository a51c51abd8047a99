import MultiwayCore
import MultiwayGraph
import MultiwayKernels
import MultiwayRuntime
import MultiwayTestSupport
import Testing

@Suite struct SessionTests {
  private let graph: Graph
  private let session: Session

  init() throws {
    graph = try Fixtures.graph("tiny/features")
    session = try Session(graph, threads: 2)
  }

  private func outputs(_ results: [(name: String, value: TensorValue)]) -> [String: TensorValue] {
    Dictionary(uniqueKeysWithValues: results.map { ($0.name, $0.value) })
  }

  /// Parts of any size give what one batch gives.
  @Test(arguments: [1, 2, 3, 5, 100])
  func partsGiveTheBitsOfTheWhole(size: Int) throws {
    let inputs = randomInputs(for: graph, batch: 5)
    var seen: [Int] = []
    let parts = try session.run(inputs, atMost: size) { done, total in
      #expect(total == 5)
      seen.append(done)
    }
    #expect(outputs(parts).bits == (try outputs(session.run(inputs)).bits))
    #expect(outputs(parts)["features"]?.shape == [5, 15, 32])
    #expect(seen == Array(stride(from: size, to: 5, by: size)) + [5])
  }

  /// Images and texts of retrieval may differ in number, so they cannot be cut into parts together.
  @Test func inputsOfDifferentNumbersGoAtOnce() throws {
    let graph = try Fixtures.graph("tiny/heads/retrieval")
    let inputs = try Fixtures.inputs("tiny/heads/retrieval")
    let image = try #require(inputs["image"])
    var three = inputs
    three["image"] = TensorValue([3, 3, 8, 8], image.floats + image.rows(0..<1).floats)
    let results = outputs(try Session(graph, threads: 1).run(three, atMost: 1))
    #expect(results["image_embedding"]?.shape == [3, 8])
    #expect(results["text_embedding"]?.shape == [2, 8])
    let two = outputs(try Session(graph, threads: 1).run(inputs))
    #expect(results["text_embedding"] == two["text_embedding"])
    #expect(results["image_embedding"]?.rows(0..<2) == two["image_embedding"])
  }

  /// A workspace that was used for other sizes, and whose memory is full of other numbers, changes nothing.
  @Test func aWorkspaceIsUsedAgain() throws {
    let small = try graph.bind(randomInputs(for: graph, batch: 1, textTokens: 3, seed: 1))
    let large = try graph.bind(randomInputs(for: graph, batch: 4, textTokens: 8, seed: 2))
    var workspace = try Workspace(session, symbols: small.symbols)
    let first = try session.run(small, in: &workspace)
    let size = workspace.byteCount
    _ = try session.run(large, in: &workspace)
    #expect(workspace.byteCount > size)
    #expect(workspace.symbols == large.symbols)
    for _ in 0..<2 {
      let again = try session.run(small, in: &workspace)
      #expect(outputs(again).bits == outputs(first).bits)
    }
  }

  /// A batch of more examples than keep the threads busy takes no more memory than a slice of it, and gives the bits of single examples.
  @Test func aLargeBatchGoesThroughInSlices() throws {
    let single = try Session(graph, threads: 1)
    let inputs = randomInputs(for: graph, batch: 67, textTokens: 5, seed: 3)
    let bound = try graph.bind(inputs)
    var workspace = try Workspace(single, symbols: bound.symbols)
    let slice = try #require(workspace.symbols["batch"])
    #expect(slice > 1 && slice < 67 && 67 % slice != 0)
    let sliced = outputs(try single.run(bound, in: &workspace))
    let alone = outputs(try single.run(inputs, atMost: 1))
    #expect(sliced.bits == alone.bits)
    #expect(sliced.mapValues(\.shape) == alone.mapValues(\.shape))
    #expect(try outputs(single.run(bound, in: &workspace)).bits == alone.bits)
  }

  /// A batch of which every thread gets enough for itself goes through in lanes, and gives the bits of single examples; what is left over is
  /// shared. So does a smaller batch after it, and a larger one.
  @Test(arguments: [2, 3, 8]) func threadsHaveSlicesOfTheirOwn(threads: Int) throws {
    let session = try Session(graph, threads: threads)
    let inputs = randomInputs(for: graph, batch: 801, textTokens: 5, seed: 4)
    let bound = try graph.bind(inputs)
    let alone = outputs(try Session(graph, threads: 1).run(inputs, atMost: 1))
    var workspace = try Workspace(session, symbols: ["batch": 1, "text_tokens": 5])
    #expect(workspace.laneCount == 0)
    let size = workspace.byteCount
    let together = outputs(try session.run(bound, in: &workspace))
    #expect(workspace.laneCount == threads)
    #expect(workspace.byteCount > size)
    #expect(together.bits == alone.bits)
    #expect(together.mapValues(\.shape) == alone.mapValues(\.shape))
    for batch in [3, 799, 1] {
      let part = outputs(try session.run(bound.examples(0..<batch, of: "batch"), in: &workspace))
      #expect(part.bits == alone.mapValues { $0.rows(0..<batch) }.bits)
    }
    #expect(try Workspace(session, symbols: bound.symbols).laneCount == threads)
  }

  @Test func manyThreadsShareASession() async throws {
    let inputs = (0..<4).map { randomInputs(for: graph, batch: 2, seed: UInt64($0)) }
    let expected = try inputs.map { outputs(try session.run($0)).bits }
    let shared = session
    try await withThrowingTaskGroup(of: (Int, [String: [UInt32]]).self) { group in
      for index in inputs.indices {
        let own = inputs[index]
        group.addTask {
          (index, Dictionary(uniqueKeysWithValues: try shared.run(own).map { ($0.name, $0.value.bits) }))
        }
      }
      for try await (index, bits) in group { #expect(bits == expected[index]) }
    }
  }

  @Test func moreMemoryThanThereIsIsRefused() throws {
    for batch in [1 << 30, 1 << 45, Int.max] {
      let error = #expect(throws: RuntimeError.self) {
        _ = try Workspace(session, symbols: ["batch": batch, "text_tokens": 3])
      }
      #expect(error?.code == .memory)
      #expect(error?.diagnosis.found.contains("batch \(batch)") == true)
    }
  }

  @Test func impossibleThreadsAndGraphsAreRefused() throws {
    for threads in [0, -1, 5000] {
      #expect(throws: KernelError.self) { _ = try Session(graph, threads: threads) }
    }
    var broken = graph
    broken.nodes.swapAt(0, 1)
    #expect(throws: GraphError.self) { _ = try Session(broken) }
  }
}

/// What `bind` says of inputs that do not fit.
@Suite struct BindTests {
  private let graph: Graph
  private let inputs: [String: TensorValue]

  init() throws {
    graph = try Fixtures.graph("tiny/features")
    inputs = try Fixtures.inputs("tiny/features")
  }

  private func problems(_ inputs: [String: TensorValue], of graph: Graph? = nil) throws -> [String] {
    let graph = graph ?? self.graph
    let error = try #require(#expect(throws: GraphError.self) { _ = try graph.bind(inputs) })
    #expect(error.code == .invalidInputs)
    #expect(error.category == .data)
    #expect(
      error.diagnosis.expected == graph.inputs.map { "\(graph[$0].name): \(graph[$0].type)" }.joined(separator: ", "))
    let lines = error.diagnosis.found.split(separator: "\n").map { $0.trimmingPrefix(while: \.isWhitespace) }
    #expect(lines.first == "the inputs do not fit the model")
    return lines.dropFirst().map(String.init)
  }

  private func with(_ name: String, _ value: TensorValue?) -> [String: TensorValue] {
    var changed = inputs
    changed[name] = value
    return changed
  }

  private func zeros(_ shape: Shape) -> TensorValue {
    TensorValue(shape, integers: [Int](repeating: 0, count: shape.elementCount))
  }

  @Test func whatFitsIsBound() throws {
    let bound = try graph.bind(inputs)
    #expect(bound.symbols == ["batch": 2, "text_tokens": 8])
    #expect(bound.tensors.map(\.shape) == [[2, 3, 12, 12], [2, 8], [2, 8]])
  }

  @Test func everyProblemIsListedAtOnce() throws {
    var wrong = with("image", nil)
    wrong["text"] = TensorValue([2, 8], [Float](repeating: 0.5, count: 16))
    wrong["padding_mask"] = zeros([2, 7])
    wrong["banana"] = zeros([1])
    wrong["apple"] = zeros([1])
    #expect(
      try problems(wrong) == [
        "missing: image", "text holds numbers that are not whole",
        "padding_mask has shape [2, 7], expected u8[batch, text_tokens], where text_tokens is 8",
        "unexpected: apple", "unexpected: banana",
      ])
    // A file of another kind, with hundreds of tensors, does not fill the screen.
    for index in 0..<300 { wrong["stranger\(index)"] = zeros([1]) }
    let many = try problems(wrong)
    #expect(many.count < 20)
    #expect(many.first == "missing: image")
    #expect(many.last == "and \(305 - many.count + 1) more")
  }

  @Test func everyKindOfWrongInput() throws {
    #expect(try problems(with("text", nil)).contains("missing: text"))
    #expect(try problems([:]) == ["missing: image", "missing: text"])
    #expect(
      try problems(with("image", zeros([2, 3, 12]))) == ["image has shape [2, 3, 12], expected f32[batch, 3, 12, 12]"])
    #expect(
      try problems(with("image", zeros([2, 3, 12, 16]))) == [
        "image has shape [2, 3, 12, 16], expected f32[batch, 3, 12, 12]"
      ])
    #expect(
      try problems(with("image", zeros([0, 3, 12, 12]))).contains(
        "image has shape [0, 3, 12, 12]: batch must be at least 1"))
    #expect(
      try problems(with("text", zeros([3, 8]))).contains(
        "text has shape [3, 8], expected i64[batch, text_tokens], where batch is 2"))
    var ids = try #require(inputs["text"]?.integers)
    let rows = try #require(graph.constants.first { $0.role == .tokenEmbedding }).data.shape[0]
    for id in [-1, rows, Int.max, Int.min] {
      ids[3] = id
      #expect(
        try problems(with("text", TensorValue([2, 8], integers: ids))) == [
          "text holds the token id \(id), expected 0 to \(rows - 1)"
        ])
    }
    for number in [Float.nan, .infinity, 0.5, 1e30] {
      let floats = TensorValue([2, 8], [Float](repeating: number, count: 16))
      #expect(try problems(with("text", floats)) == ["text holds numbers that are not whole"])
    }
  }

  @Test func aTextThatIsTooLongIsRefused() throws {
    let positions = try #require(graph.constants.first { $0.name == "text.positions" }).data.shape[0]
    var longest = with("text", zeros([2, positions]))
    longest["padding_mask"] = nil
    #expect(throws: Never.self) { _ = try graph.bind(longest) }
    longest["text"] = zeros([2, positions + 1])
    #expect(try problems(longest) == ["\(positions + 1) tokens, but there are only \(positions) positions"])
  }

  /// Where a token is selected, or a mean begins, behind the end of a text.
  @Test func aTextThatIsTooShortIsRefused() throws {
    for op in [Op.selectToken(2), .meanTokens(first: 2)] {
      var sketch = GraphSketch(seed: 1)
      let x = sketch.graph.addInput("x", ValueType(.f32, [.symbol("batch"), .symbol("text_tokens"), 4]))
      sketch.output("features", try sketch.add(op, x, name: "pooled"))
      #expect(throws: Never.self) {
        _ = try sketch.graph.bind(["x": TensorValue([1, 3, 4], .init(repeating: 0, count: 12))])
      }
      let short = ["x": TensorValue([1, 2, 4], [Float](repeating: 0, count: 8))]
      #expect(try problems(short, of: sketch.graph) == ["2 tokens, but \(op.name) needs at least 3"])
    }
  }

  /// Masks come as any type of number: what is not zero is padded.
  @Test func masksAreOfAnyNumber() throws {
    let mask = try #require(inputs["padding_mask"]?.integers)
    let expected = try graph.bind(inputs)
    let floats = TensorValue([2, 8], mask.map { $0 == 0 ? 0 : -2.5 })
    let large = TensorValue([2, 8], integers: mask.map { $0 * 256 })
    for other in [floats, large] {
      #expect(try graph.bind(with("padding_mask", other)).tensors == expected.tensors)
    }
  }

  /// Whole numbers are taken as ids and as pixels whatever type they come in.
  @Test func numbersAreConverted() throws {
    let ids = try #require(inputs["text"])
    let bound = try graph.bind(with("text", TensorValue(ids.shape, ids.floats)))
    #expect(bound.tensors[1] == ids)
    let image = try graph.bind(with("image", zeros([2, 3, 12, 12]))).tensors[0]
    #expect(image == TensorValue([2, 3, 12, 12], [Float](repeating: 0, count: 864)))
  }
}
