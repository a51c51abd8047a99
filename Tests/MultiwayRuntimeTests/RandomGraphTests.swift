import MultiwayCore
import MultiwayGraph
import MultiwayKernels
import MultiwayTestSupport
import Testing

/// The runtime against the interpreter, which shares nothing with it, on graphs that no model has.
@Suite struct RandomGraphTests {
  private static let seeds: [UInt64] = Array(0..<24)

  /// 110 dB: some sixty fp32 operations in a row, −144 dB each, some of which (a norm of a narrow row, softmax, L2) magnify.
  /// 123 dB is the least that was seen with sixty seeds.
  @Test(arguments: seeds)
  func floatGraphsComputeTheSame(seed: UInt64) throws {
    try check(try RandomGraph(seed: seed, hasInt8: false).graph, atLeast: 110, seed: seed)
  }

  /// Int8 is the same arithmetic on integers, so nearly always as close. Where the two differ in the last bit before a rounding, a
  /// value may round the other way, on one machine and not on another: an error of 1/255 of a row's range in one element, −48 dB
  /// of the row, and later layers quantize what it moved once more. So every output must have 35 dB, and most have 110.
  @Test func int8GraphsComputeTheSame() throws {
    var qualities: [Double] = []
    for seed in RandomGraphTests.seeds {
      qualities += try check(try RandomGraph(seed: seed, hasInt8: true).graph, atLeast: 35, seed: seed)
    }
    #expect(qualities.count { $0 >= 110 } * 10 >= qualities.count * 9)
  }

  /// Layers in groups, alone, with GELU and with a residual sum, each fused by the runtime; nothing rounds before the first layer.
  @Test(arguments: [(16, 2), (1536, 2), (3072, 4)])
  func groupsComputeTheSame(inputs: Int, groups: Int) throws {
    var sketch = GraphSketch(seed: UInt64(inputs))
    let x = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), .fixed(inputs)]))
    for (name, outputs) in [("plain", 70), ("gelu", 65), ("sum", inputs)] {
      let layer = sketch.quantizedLinear(name + ".layer", outputs: outputs, inputs: inputs, groups: groups)
      let y = try sketch.add(layer, x, name: name + ".layer")
      switch name {
      case "gelu": sketch.output(name, try sketch.add(.gelu, y, name: name))
      case "sum": sketch.output(name, try sketch.add(.add, x, y, name: name))
      default: sketch.output(name, y)
      }
    }
    try check(sketch.graph, atLeast: 110, seed: 1)
  }

  @discardableResult
  private func check(_ graph: Graph, atLeast floor: Double, seed: UInt64) throws -> [Double] {
    var qualities: [Double] = []
    for (batch, tokens) in [(1, 1), (3, 6)] {
      let inputs = randomInputs(for: graph, batch: batch, textTokens: tokens, seed: seed)
      let expected = try Engine.reference.run(graph, inputs)
      let found = try Engine.runtime.run(graph, inputs)
      #expect(found.keys.sorted() == expected.keys.sorted())
      for (name, value) in expected {
        let quality = decibels(value, try #require(found[name]))
        #expect(quality >= floor, "seed \(seed), \(name), batch \(batch), \(tokens) tokens: \(quality) dB")
        qualities.append(quality)
      }
    }
    return qualities
  }

  @Test func theSeedsCoverEveryOp() throws {
    var names: Set<String> = []
    var (paddedStreams, captionStreams, biasedStreams): (Set<Int>, Set<Int>, Set<Int>) = ([], [], [])
    var memories: Set<Int> = []
    var groups: Set<Int> = []
    for seed in RandomGraphTests.seeds {
      for hasInt8 in [false, true] {
        for node in try RandomGraph(seed: seed, hasInt8: hasInt8).graph.nodes {
          names.insert(node.op.name)
          if case .attention(let attention) = node.op {
            if attention.isPadded { paddedStreams.insert(node.outputs.count) }
            if attention.mask == .caption { captionStreams.insert(node.outputs.count) }
            if attention.bias != nil { biasedStreams.insert(node.outputs.count) }
            memories.insert(attention.memories)
          }
          if case .quantizedLinear(let linear) = node.op { groups.insert(linear.groups) }
        }
      }
    }
    #expect(paddedStreams == [1, 2] && captionStreams == [1, 2] && biasedStreams == [1, 2])
    #expect(memories == [0, 1, 2])
    #expect(groups == [1, 2, 3])
    #expect(
      names == [
        "patchify", "embedding", "prepend_token", "add_positions", "zero_padding", "layer_norm", "linear",
        "quantized_linear", "scale", "scale_channels", "gelu", "tanh", "relu", "add", "attention", "mean_tokens",
        "select_token", "drop_tokens", "join_tokens", "normalize_l2",
      ])
  }

  /// The results are the same bits on every instruction set, for every number of threads and in every batch.
  @Test(arguments: seeds.prefix(8), [false, true])
  func theSameBitsEverywhere(seed: UInt64, hasInt8: Bool) throws {
    let graph = try RandomGraph(seed: seed, hasInt8: hasInt8).graph
    let inputs = randomInputs(for: graph, batch: 3, textTokens: 6, seed: seed)
    let expected = try runtimeOutputs(graph, inputs, isa: .scalar, threads: 1).bits
    for isa in ISA.supported {
      for threads in [1, 3] {
        #expect(try runtimeOutputs(graph, inputs, isa: isa, threads: threads).bits == expected, "\(isa), \(threads)")
      }
    }
    let rows = try (0..<3).map { row in
      try runtimeOutputs(graph, inputs.mapValues { $0.rows(row..<row + 1) }, isa: .best, threads: 2)
    }
    for (name, bits) in expected { #expect(rows.flatMap { $0[name]?.bits ?? [] } == bits, "\(name)") }
  }

  /// A text of nothing but padding attends to nothing: its rows are zeros in both, and nothing becomes undefined.
  @Test(arguments: Engine.allCases)
  func aTextOfPaddingAloneGivesZeros(engine: Engine) throws {
    var sketch = GraphSketch(seed: 1)
    let words = sketch.graph.addInput("words", ValueType(.f32, [.symbol("batch"), .symbol("text_tokens"), 4]))
    let mask = sketch.graph.addInput("padding_mask", ValueType(.u8, [.symbol("batch"), .symbol("text_tokens")]))
    let attended = try sketch.add(
      .attention(Attention(heads: 2, isPadded: true)), words, words, words, mask, name: "attention")
    sketch.output("features", attended)
    let inputs = [
      "words": TensorValue([2, 2, 4], (0..<16).map { Float($0) }),
      "padding_mask": TensorValue([2, 2], integers: [1, 1, 0, 1]),
    ]
    let features = try #require(try engine.run(sketch.graph, inputs)["features"])
    #expect(features.rows(0..<1).floats == [Float](repeating: 0, count: 8))
    // The second text has one token that counts: every row attends to it alone.
    #expect(features.rows(1..<2).floats == [8, 9, 10, 11, 8, 9, 10, 11])
  }
}
