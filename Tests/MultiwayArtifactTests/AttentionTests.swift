import MultiwayArtifact
import MultiwayCore
import MultiwayGraph
import MultiwayQuantization
import MultiwayTestSupport
import Testing

/// Attention with all that it can have, written and read again.
@Suite struct AttentionTests {
  private static let tokens = 4

  /// Two attentions: one with a bias, one with a memory and a caption's mask; and the small ops beside them.
  private func graph(index: [Int16], rows: Int = 3) throws -> Graph {
    var sketch = GraphSketch(seed: 8)
    let image = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), .fixed(Self.tokens), 8]))
    let stored = StoredTensor(name: "bias.index", dtype: .i16, shape: [Self.tokens, Self.tokens], elements: index)
    let bias = RelativeBias(
      table: sketch.constant("bias.table", [rows, 2], role: .relativePositionBias),
      index: sketch.graph.addConstant(
        Constant(name: "bias.index", role: .relativePositionIndex, modality: .vision, data: .stored(stored))))
    let biased = try sketch.add(
      .attention(Attention(heads: 2, bias: bias)), image, image, image, name: "biased", modality: .vision)
    let scaled = try sketch.add(
      .scaleChannels(sketch.constant("factors", [8], role: .layerScale)), biased, name: "scaled")
    let dropped = try sketch.add(.dropTokens(first: 1), scaled, name: "dropped")
    let active = try sketch.add(.relu, dropped, name: "active")
    let attention = Attention(heads: 4, mask: .caption, memories: 1)
    sketch.output(
      "features",
      try sketch.add(.attention(attention), biased, scaled, active, active, active, name: "written"))
    return sketch.graph
  }

  private static let index: [Int16] = [0, 1, 2, 0, 1, 1, 1, 2, 2, 0, 0, 1, 2, 2, 1, 0]
  private static let inputs = ["image": TensorValue([2, 4, 8], (0..<64).map { Float($0 % 7) / 3 - 1 })]

  private func written(_ graph: Graph, in folder: ScratchFolder) throws -> Graph {
    try ArtifactWriter.write(graph, metadata: SampleArtifact.metadata, to: folder.path("a.gguf"), overwrite: false)
    return try Artifact.read(try MappedFile(path: folder.path("a.gguf"))).graph
  }

  @Test(arguments: Engine.allCases)
  func comesBackAsItWas(engine: Engine) throws {
    let graph = try graph(index: Self.index)
    let read = try written(graph, in: try ScratchFolder())
    #expect(read.description == graph.description)
    #expect(read.constants.map(\.role) == graph.constants.map(\.role))
    #expect(read.description.contains("heads=4, mask=caption, memories=1"))
    #expect(try engine.run(read, Self.inputs).bits == engine.run(graph, Self.inputs).bits)
  }

  /// What an artifact holds may be anything: an index outside the table is an error before anything is read with it.
  @Test(arguments: [-1, 3, 127, Int16.max, Int16.min], Engine.allCases)
  func anIndexOutsideTheTableIsAnError(element: Int16, engine: Engine) throws {
    for place in [0, 15] {
      var index = Self.index
      index[place] = element
      let read = try written(try graph(index: index), in: try ScratchFolder())
      let error = #expect(throws: QuantizationError.self) { _ = try engine.run(read, Self.inputs) }
      #expect(error?.code == .indexOutOfRange)
      #expect(error?.diagnosis.found.contains("element \(place) ") == true && error?.diagnosis.tensor == "bias.index")
    }
  }

  /// Members that lead attention astray, each in place of a right one.
  @Test(arguments: [
    ("\"memories\":1", "\"memories\":0"), ("\"memories\":1", "\"memories\":3"), ("\"memories\":1", "\"memories\":2"),
    ("\"memories\":1", "\"memories\":-1"), ("\"memories\":1", "\"memories\":9223372036854775807"),
    (",\"memories\":1", ""), ("\"mask\":\"caption\"", "\"mask\":\"none\""),
    ("\"mask\":\"caption\"", "\"mask\":\"both\""), ("\"mask\":\"caption\"", "\"mask\":1"),
    ("\"bias_index\":\"bias.index\"", "\"bias_index\":\"bias.table\""), (",\"bias_index\":\"bias.index\"", ""),
    ("\"bias_table\":\"bias.table\"", "\"bias_table\":\"factors\""), ("\"bias_table\":\"bias.table\",", ""),
    ("{\"heads\":2,\"padded\":false}", "{\"heads\":1,\"padded\":false}"),
    ("\"factors\":\"factors\"", "\"factors\":\"bias.table\""), ("\"first\":1", "\"first\":4"),
    ("\"first\":1", "\"first\":-1"), ("\"op\":\"relu\"", "\"op\":\"relu6\""),
  ])
  func aWrongMemberIsAnError(fault: (part: String, replacement: String)) throws {
    let graph = try graph(index: Self.index)
    let data = Dictionary(uniqueKeysWithValues: graph.constants.map { ($0.name, $0.data) })
    let text = GraphJSON.encode(graph)
    _ = try GraphJSON.decode(text, data: data)
    let changed = text.replacing(fault.part, with: fault.replacement, maxReplacements: 1)
    #expect(changed != text)
    #expect(throws: ArtifactError.self) { _ = try GraphJSON.decode(changed, data: data) }
  }

  /// An index of another shape or type than [tokens, tokens] of i16.
  @Test(arguments: [[3, 3], [4, 5], [16], [2, 8]] as [[Int]])
  func anIndexOfAnotherShapeIsAnError(shape: [Int]) throws {
    let graph = try graph(index: Self.index)
    for dtype in [DType.i16, .i32] {
      let count = Shape(shape).elementCount
      var data = Dictionary(uniqueKeysWithValues: graph.constants.map { ($0.name, $0.data) })
      data["bias.index"] = .stored(
        StoredTensor(name: "i", dtype: dtype, shape: Shape(shape), elements: [Int32](repeating: 0, count: count)))
      let error = #expect(throws: ArtifactError.self) {
        _ = try GraphJSON.decode(GraphJSON.encode(graph), data: data)
      }
      #expect(error?.diagnosis.found.contains("a bias index") == true)
    }
  }
}
