import MultiwayCore
import MultiwayGraph
import MultiwayONNX
import MultiwayQuantization
import MultiwayTestSupport
import Testing

@Suite struct WriterTests {
  private let folder: TemporaryFolder
  private static let metadata = ONNXMetadata(name: "test", description: "", producerVersion: "0")

  init() throws { folder = try TemporaryFolder() }

  private func write(
    _ graph: Graph, to name: String = "out.onnx", inlineLimit: Int = ONNXWriter.inlineLimit, overwrite: Bool = false
  ) throws -> ONNXModel {
    let path = folder.path(name)
    let written = try ONNXWriter.write(
      graph, metadata: WriterTests.metadata, to: path, overwrite: overwrite, inlineLimit: inlineLimit)
    let bytes = TensorBytes(copying: try folder.bytes(name))
    let model = try ONNXModel(decoding: bytes.span)
    let locations = Set(
      model.graph.initializers.compactMap { tensor -> String? in
        if case .external(let location, _, _) = tensor.content { location } else { nil }
      })
    #expect(locations.count == (written.dataPath == nil ? 0 : 1))
    #expect(written.dataPath == locations.first.map { folder.path($0) })
    let others = try locations.reduce(0) { $0 + (try folder.bytes($1)).count }
    #expect(written.byteCount == bytes.byteCount + others)
    return model
  }

  /// A linear layer over token vectors.
  private func layer(_ inputs: Int = 32, _ outputs: Int = 24) throws -> GraphSketch {
    var sketch = GraphSketch(seed: 3)
    let tokens = sketch.graph.addInput("tokens", ValueType(.f32, [.symbol("batch"), 4, .fixed(inputs)]))
    let value = try sketch.add(sketch.linear("layer", outputs: outputs, inputs: inputs), tokens, name: "value")
    sketch.output("result", value)
    return sketch
  }

  /// The same tensors, at multiples of a page, in one file beside the model; small ones stay.
  @Test func largeWeightsLieBesideTheModel() throws {
    let graph = try layer().graph
    let inline = try write(graph, to: "inline.onnx")
    let external = try write(graph, to: "out.onnx", inlineLimit: 0)
    let name = try #require(try folder.names().first { $0.hasPrefix("out.onnx.") && $0.hasSuffix(".data") })
    let data = try folder.bytes(name)
    #expect(inline.graph.nodes == external.graph.nodes)
    #expect(inline.graph.initializers.map(\.name) == external.graph.initializers.map(\.name))
    var moved = 0
    for (one, other) in zip(inline.graph.initializers, external.graph.initializers) {
      guard case .inline(let bytes) = one.content else {
        Issue.record("\(one.name) is not inline")
        continue
      }
      switch other.content {
      case .inline(let same):
        #expect(same == bytes)
        #expect(bytes.count < 1024)
      case .external(let location, let offset, let byteCount):
        moved += 1
        #expect(location == name)
        #expect(offset % 4096 == 0)
        #expect(Array(data[offset..<offset + byteCount]) == bytes)
      }
    }
    #expect(moved == 1)
    _ = try write(graph, to: "again.onnx", inlineLimit: 0)
    let again = name.replacing("out", with: "again")
    let isEqual = try folder.bytes(again) == data
    #expect(isEqual)
    #expect(try folder.names() == ["again.onnx", again, "inline.onnx", "out.onnx", name])
  }

  @Test func neitherFileIsReplacedUnasked() throws {
    let graph = try layer().graph
    _ = try write(graph, inlineLimit: 0)
    let names = try folder.names()
    let data = try #require(names.first { $0.hasSuffix(".data") })
    try folder.write([1], to: data)
    #expect(throws: FileError.self) { try write(graph, inlineLimit: 0) }
    #expect(try folder.bytes(data) == [1])
    _ = try write(graph, inlineLimit: 0, overwrite: true)
    #expect(try folder.names().contains(data))
  }

  /// A model with other weights has another file of them, so one that is replaced is whole until it is gone.
  @Test func otherWeightsAreInAnotherFile() throws {
    _ = try write(try layer().graph, inlineLimit: 0)
    let first = try folder.names()
    let old = try folder.bytes("out.onnx")
    _ = try write(try layer(36).graph, inlineLimit: 0, overwrite: true)
    let second = try folder.names()
    #expect(second.count == 3 && Set(first).isSubset(of: second))
    let new = try folder.bytes("out.onnx")
    #expect(new != old)
  }

  /// Whatever call fails: both files are there, or what was there before.
  @Test func aFailureLeavesNothingBehind() throws {
    let graph = try layer().graph
    let sound = FaultyDevice(failing: nil)
    try OutputDevices.$current.withValue(sound) { _ = try write(graph, inlineLimit: 0) }
    let names = try folder.names()
    #expect(sound.calls.filter { $0 == .name }.count == 2)
    for place in sound.calls.indices {
      let empty = try TemporaryFolder()
      #expect(throws: FileError.self) {
        try OutputDevices.$current.withValue(FaultyDevice(failing: place, with: .error(5))) {
          try ONNXWriter.write(
            graph, metadata: WriterTests.metadata, to: empty.path("out.onnx"), overwrite: false, inlineLimit: 0)
        }
      }
      let isWhole = sound.calls[place] == .synchronizeFolder
      #expect(try empty.names() == (isWhole ? names : []), "\(sound.calls[place])")
    }
  }

  /// Names that ONNX would take for others: empty, with a zero byte, or those of nodes in between.
  @Test func namesAreUnambiguous() throws {
    var sketch = GraphSketch(seed: 4)
    let input = sketch.graph.addInput("", ValueType(.f32, [.symbol("batch"), 4, 8]))
    let first = try sketch.add(.gelu, input, name: "a\0b")
    let second = try sketch.add(.gelu, first, name: "a_b")
    let third = try sketch.add(sketch.linear("a_b/erf", outputs: 8, inputs: 8), second, name: "a_b/erf")
    sketch.output("a_b/erf.bias", third)
    sketch.output("copy", third)
    let model = try write(sketch.graph)
    let made =
      model.graph.inputs.map(\.name) + model.graph.initializers.map(\.name) + model.graph.nodes.flatMap(\.outputs)
    #expect(Set(made).count == made.count)
    #expect(!made.contains(""))
    #expect(model.graph.outputs.map(\.name) == ["a_b/erf.bias", "copy"])
    #expect(model.graph.nodes.last?.type == "Identity")
  }

  /// What ONNX Runtime's quantization makes of `x` it calls `x_scale` and so on; a value or a weight of that name would break it.
  @Test func namesOfQuantizersAreLeftFree() throws {
    var sketch = GraphSketch(seed: 4)
    let input = sketch.graph.addInput("x_scale", ValueType(.f32, [.symbol("batch"), 4, 8]))
    let factors = sketch.constant("x_zero_point", [8])
    let scaled = try sketch.add(.scaleChannels(factors), input, name: "y_scale")
    sketch.output("z_quantized", try sketch.add(.relu, scaled, name: "z"))
    let model = try write(sketch.graph)
    #expect(model.graph.inputs.map(\.name) == ["x_scale"])
    #expect(model.graph.initializers.map(\.name) == ["x_zero_point.weight"])
    #expect(model.graph.nodes.map(\.outputs) == [["y_scale.value"], ["z_quantized"]])
  }

  /// An input that is an output keeps its name; the output is a copy.
  @Test func anInputCanBeAnOutput() throws {
    var sketch = GraphSketch(seed: 4)
    let input = sketch.graph.addInput("x", ValueType(.f32, [.symbol("batch"), 8]))
    sketch.output("y", input)
    let model = try write(sketch.graph)
    #expect(model.graph.inputs.map(\.name) == ["x"])
    #expect(model.graph.nodes.map(\.type) == ["Identity"])
    #expect(model.graph.outputs.map(\.name) == ["y"])
  }

  /// An output under the name of an input is another value still.
  @Test func anOutputCanHaveAnInputsName() throws {
    var sketch = GraphSketch(seed: 4)
    let input = sketch.graph.addInput("x", ValueType(.f32, [.symbol("batch"), 8]))
    sketch.output("x", try sketch.add(.relu, input, name: "y"))
    let model = try write(sketch.graph)
    #expect(model.graph.outputs.map(\.name) == ["x_2"])
    #expect(model.graph.nodes.map(\.outputs) == [["x_2"]])
  }

  @Test func aBiasIndexOutsideItsTableIsRefused() throws {
    var sketch = GraphSketch(seed: 5)
    let tokens = sketch.graph.addInput("tokens", ValueType(.f32, [.symbol("batch"), 2, 8]))
    let index = StoredTensor(name: "index", dtype: .i16, shape: [2, 2], elements: [Int16(0), 1, 2, 3])
    let bias = RelativeBias(
      table: sketch.constant("table", [3, 2]),
      index: sketch.graph.addConstant(
        Constant(name: "index", role: .head, modality: .shared, data: .stored(index))))
    let value = try sketch.graph.add(
      .attention(Attention(heads: 2, bias: bias)), [tokens, tokens, tokens], names: ["value"], modality: .shared)
    sketch.output("result", value[0])
    let graph = sketch.graph
    #expect(throws: QuantizationError.self) { try write(graph) }
    #expect(try folder.names().isEmpty)
  }

  /// Matrices of means are small in every model; in a file that anybody may have written they need not be.
  @Test func aPoolOfImpossibleSizeIsRefused() throws {
    var sketch = GraphSketch(seed: 6)
    let tokens = sketch.graph.addInput("tokens", ValueType(.f32, [.symbol("batch"), .fixed(1 << 30), 1]))
    let op = Op.featureMap(.averagePool(bins: 40000), Grid(height: 1, width: 1 << 30))
    sketch.output("result", try sketch.add(op, tokens, name: "value"))
    let graph = sketch.graph
    let error = #expect(throws: ONNXError.self) { try write(graph) }
    #expect(error?.code == .unexportable)
    #expect(error?.diagnosis.node == "value")
    #expect(try folder.names().isEmpty)
  }

  /// QDQ: quantized and dequantized is what a product reads, and nothing else.
  @Test func staticRangesStandAroundProductsAlone() throws {
    var sketch = GraphSketch(seed: 9)
    let tokens = sketch.graph.addInput("tokens", ValueType(.f32, [.symbol("batch"), 3, 16]))
    let first = try sketch.add(sketch.quantizedLinear("one", outputs: 8, inputs: 16, groups: 1), tokens, name: "first")
    let second = try sketch.add(
      sketch.quantizedLinear("two", outputs: 8, inputs: 16, groups: 1), tokens, name: "second")
    let sum = try sketch.add(.add, first, second, name: "sum")
    sketch.output("result", try sketch.add(.gelu, sum, name: "value"))
    let steps = ["tokens": ActivationRanges.Step(scale: 0.5, zeroPoint: 0)]
    try ONNXWriter.write(
      sketch.graph, metadata: WriterTests.metadata, quantization: .static(steps), to: folder.path("out.onnx"),
      overwrite: false)
    let bytes = TensorBytes(copying: try folder.bytes("out.onnx"))
    let nodes = try ONNXModel(decoding: bytes.span).graph.nodes
    #expect(nodes.filter { $0.type == "QuantizeLinear" }.map(\.inputs[0]) == ["tokens"])
    let dequantized = nodes.filter { $0.type == "DequantizeLinear" }
    #expect(dequantized.count == 3)
    let products = nodes.filter { $0.type == "MatMul" }
    #expect(products.count == 2)
    for product in products {
      #expect(product.inputs.allSatisfy { input in dequantized.contains { $0.outputs == [input] } })
    }
    for node in nodes where node.type != "MatMul" && node.type != "DequantizeLinear" {
      #expect(!node.inputs.contains { input in dequantized.contains { $0.outputs == [input] } })
    }
  }

  @Test func whatQDQCannotHoldIsRefused() throws {
    var sketch = GraphSketch(seed: 9)
    let tokens = sketch.graph.addInput("tokens", ValueType(.f32, [.symbol("batch"), 3, 16]))
    let value = try sketch.add(
      sketch.quantizedLinear("layer", outputs: 5, inputs: 16, groups: 2), tokens, name: "value")
    sketch.output("result", value)
    let grouped = sketch.graph
    let whole = grouped.withoutGroups()
    let step = ["tokens": ActivationRanges.Step(scale: 0.5, zeroPoint: 0)]
    for (graph, steps) in [(grouped, step), (whole, [:])] {
      let error = #expect(throws: ONNXError.self) {
        try ONNXWriter.write(
          graph, metadata: WriterTests.metadata, quantization: .static(steps), to: folder.path("out.onnx"),
          overwrite: false)
      }
      #expect(error?.code == .unexportable && error?.diagnosis.node == "value")
    }
    #expect(try folder.names().isEmpty)
  }

  @Test func aGraphThatDoesNotVerifyIsRefused() throws {
    var graph = try layer().graph
    graph.nodes[0].inputs = [ValueID(17)]
    let broken = graph
    let error = #expect(throws: ONNXError.self) { try write(broken) }
    #expect(error?.code == .unexportable)
  }

  /// Every group of inputs is a product of its own with the right part of the panels.
  @Test func groupsOfInt8InputsAddUp() throws {
    var sketch = GraphSketch(seed: 9)
    let tokens = sketch.graph.addInput("tokens", ValueType(.f32, [.symbol("batch"), 3, 16]))
    let value = try sketch.add(
      sketch.quantizedLinear("layer", outputs: 5, inputs: 16, groups: 2), tokens, name: "value")
    sketch.output("result", value)
    let model = try write(sketch.graph)
    let types = model.graph.nodes.map(\.type)
    #expect(types.filter { $0 == "Slice" }.count == 2)
    #expect(types.filter { $0 == "MatMulInteger" }.count == 2)
    #expect(types.filter { $0 == "Add" }.count == 2)
    let weights = model.graph.initializers.filter { $0.elementType == ONNXElementType.int8.rawValue }
    #expect(weights.map(\.dimensions) == [[8, 5], [8, 5]])
    // Symmetric weights: the largest of each channel and group is 127 or −127.
    for weight in weights {
      guard case .inline(let bytes) = weight.content else { continue }
      for output in 0..<5 {
        let column = (0..<8).map { abs(Int(Int8(bitPattern: bytes[$0 * 5 + output]))) }
        #expect(column.max() == 127)
      }
    }
  }
}
