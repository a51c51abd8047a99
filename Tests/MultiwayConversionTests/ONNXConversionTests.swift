import Foundation
import MultiwayArtifact
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayONNX
import MultiwayTestSupport
import Testing

@Suite struct ONNXConversionTests {
  private let bench: Workbench

  init() throws { bench = try Workbench() }

  private func convert(_ input: String, to name: String, dtype: DType? = nil, opset: Int? = nil) throws -> ONNXModel {
    _ = try Conversions.convert(
      try ModelFile.open(input), options: InputOptions(), dtype: dtype,
      onnx: ONNXOptions(opset: opset), to: bench.folder.path(name),
      overwrite: false)
    return try ONNXModel(path: bench.folder.path(name))
  }

  @Test(arguments: Fixtures.models + ["digits", "vlmo/vqa", "vlmo/pretraining"])
  func everyModelIsWritten(fixture: String) throws {
    let source = Fixtures.path(fixture + ".pth")
    let graph = try bench.load(fixture).graph
    for opset in [13, 17, 21] {
      let model = try convert(source, to: "\(opset).onnx", opset: opset)
      #expect(model.opset == opset)
      let isOrdered = try model.isOrdered()
      #expect(isOrdered)
      #expect(model.graph.outputs.map(\.name) == graph.outputs.map(\.name))
      let dimensions = graph.outputs.map { graph[$0.value].type.dimensions }
      #expect(
        model.graph.outputs.map(\.dimensions)
          == dimensions.map { $0.map { $0.size.map { .size($0) } ?? .symbol($0.description) } })
      #expect(model.properties.contains(ONNXProperty("task", try bench.load(fixture).task)))
      let types = Set(model.graph.nodes.map(\.type))
      #expect(types.contains("LayerNormalization") == (opset >= 17))
      #expect(types.contains("Gelu") == (opset >= 20))
      #expect(types.contains("Erf") == (opset < 20))
    }
    _ = try convert(source, to: "again.onnx", opset: 17)
    let isEqual = try bench.folder.bytes("again.onnx") == bench.folder.bytes("17.onnx")
    #expect(isEqual)
    #expect(try bench.folder.names() == ["13.onnx", "17.onnx", "21.onnx", "again.onnx"])
  }

  /// The weights of a linear layer are what a MatMul reads: [in, out].
  @Test func weightsAreTransposed() throws {
    let model = try convert(Fixtures.path("tiny/classification.pth"), to: "out.onnx")
    let graph = try bench.load("tiny/classification").graph
    let constant = try #require(graph.constants.first { $0.name.hasSuffix("layers.0.vision.query.weight") })
    let tensor = try #require(model.graph.initializers.first { $0.name == constant.name + "_transposed" })
    let shape = constant.data.shape
    #expect(tensor.dimensions == [shape[1], shape[0]])
    guard case .stored(let stored) = constant.data, case .inline(let bytes) = tensor.content else {
      Issue.record("the weight is not stored")
      return
    }
    let (wanted, found) = (try stored.floats(), TensorBytes(copying: bytes).array(of: Float.self))
    for row in 0..<shape[0] {
      for column in 0..<shape[1] {
        #expect(found[column * shape[0] + row] == wanted[row * shape[1] + column])
      }
    }
  }

  @Test(arguments: [DType.f16, .bf16])
  func halfWeightsAreCast(dtype: DType) throws {
    let model = try convert(Fixtures.path("tiny/features.pth"), to: "out.onnx", dtype: dtype)
    let half: ONNXElementType = dtype == .f16 ? .float16 : .bfloat16
    let halves = model.graph.initializers.filter { $0.elementType == half.rawValue }.map(\.name)
    #expect(!halves.isEmpty)
    for node in model.graph.nodes where node.inputs.contains(where: halves.contains) {
      #expect(node.type == "Cast" || node.type == "Gather")
    }
    #expect(model.graph.inputs.first { $0.name == "image" }?.elementType == ONNXElementType.float.rawValue)
  }

  @Test func int8BecomesIntegerProducts() throws {
    let artifact = try bench.artifact("tiny/features", Recipes.int8)
    let model = try convert(bench.folder.path("out.gguf"), to: "out.onnx")
    let layers = artifact.graph.nodes.compactMap { node -> QuantizedLinear? in
      if case .quantizedLinear(let linear) = node.op { linear } else { nil }
    }
    let products = model.graph.nodes.filter { $0.type == "MatMulInteger" }
    #expect(!layers.isEmpty)
    #expect(products.count == layers.reduce(0) { $0 + $1.groups })
    // Layers that read the same value share its quantization.
    #expect(model.graph.nodes.filter { $0.type == "DynamicQuantizeLinear" }.count < products.count)
    let isOrdered = try model.isOrdered()
    #expect(isOrdered)
    let report = try Conversions.convert(
      try ModelFile.open(bench.folder.path("out.gguf")), options: InputOptions(), dtype: nil,
      to: bench.folder.path("noted.onnx"), overwrite: false)
    #expect(report.notes.contains { $0.contains("per tensor") })
  }

  @Test func aPrunedModelIsWritten() throws {
    let input = try bench.load("tiny/features")
    _ = try Conversions.prune(input, keep: .vision, to: bench.folder.path("out.onnx"), overwrite: false)
    let model = try ONNXModel(path: bench.folder.path("out.onnx"))
    #expect(model.graph.inputs.map(\.name) == ["image"])
  }

  @Test(arguments: [-1, 0, 12, 22, Int.max])
  func otherOpsetsAreRefused(opset: Int) throws {
    expect(ONNXErrorCode.unsupportedOpset) {
      _ = try convert(Fixtures.path("tiny/classification.pth"), to: "out.onnx", opset: opset)
    }
    #expect(try bench.folder.names().isEmpty)
  }

  @Test func anOpsetIsForONNXAlone() throws {
    for name in ["out.gguf", "out.safetensors"] {
      expect(ConversionErrorCode.usage) {
        _ = try convert(Fixtures.path("tiny/classification.pth"), to: name, opset: 17)
      }
    }
    #expect(try bench.folder.names().isEmpty)
  }

  @Test func anUnknownArchitectureIsRefused() throws {
    #expect(throws: (any Error).self) { try convert(Fixtures.path("tiny/views.pth"), to: "out.onnx") }
    #expect(try bench.folder.names().isEmpty)
  }

  @Test func aKeyLayoutIsNotForONNX() throws {
    expect(ConversionErrorCode.usage) {
      _ = try Conversions.convert(
        try ModelFile.open(Fixtures.path("tiny/classification.pth")), options: InputOptions(), layout: "timm",
        dtype: nil, to: bench.folder.path("out.onnx"), overwrite: false)
    }
    #expect(try bench.folder.names().isEmpty)
  }
}
