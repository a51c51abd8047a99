import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayKernels
import MultiwayONNX
import MultiwayTestSupport
import Testing

/// Our ONNX models are models again, and those of others are checkpoints.
@Suite struct ONNXImportTests {
  private let bench: Workbench

  init() throws { bench = try Workbench() }

  private func export(
    _ fixture: String, to name: String = "out.onnx", dtype: DType? = nil, int8: Int8Form? = nil
  ) throws -> LoadedModel {
    _ = try Conversions.convert(
      try ModelFile.open(Fixtures.path(fixture)), options: InputOptions(), dtype: dtype,
      onnx: ONNXOptions(int8: int8), to: bench.folder.path(name), overwrite: true)
    return try LoadedModel(path: bench.folder.path(name))
  }

  private func run(_ graph: Graph, _ inputs: [String: TensorValue]) throws -> [String: TensorValue] {
    try runtimeOutputs(graph, inputs, isa: .scalar, threads: 2)
  }

  /// The graph, every weight and so every bit of the outputs.
  @Test(arguments: Fixtures.models.map { $0 + ".pth" } + ["vlmo/vqa.pth", "tiny/segmentation/mmseg.pth"])
  func floatingPointModelsAreReadBack(fixture: String) throws {
    var original = try LoadedModel(path: Fixtures.path(fixture))
    original.graph.removeDeadCode()
    let read = try export(fixture)
    #expect(read.file.format == "multiway model (ONNX)")
    #expect(read.task == original.task && read.summary == original.summary)
    #expect(GraphJSON.encode(read.graph) == GraphJSON.encode(original.graph))
    let inputs = randomInputs(for: original.graph, batch: 2, seed: 5)
    let wanted = try run(original.graph, inputs)
    let found = try run(read.graph, inputs)
    #expect(found == wanted)
    let report = try DigestVerification.verify(bench.folder.path("out.onnx"))
    #expect(report.tensorCount > 0)
    #expect(read.file.recordedFiles.map(\.name) == [String(fixture.split(separator: "/").last ?? "")])
  }

  @Test(arguments: [Int8Form.dynamic, .qdq], ["tiny/features.pth", "tiny/heads/vqa.pth", "vlmo/retrieval.pth"])
  func int8WeightsStandForNumbers(form: Int8Form, fixture: String) throws {
    var original = try LoadedModel(path: Fixtures.path(fixture))
    original.graph.removeDeadCode()
    let read = try export(fixture, int8: form)
    #expect(read.file.format == "multiway model (ONNX)")
    #expect(try read.recipe.name == "int8")
    #expect(!read.graph.nodes.contains { if case .quantizedLinear = $0.op { true } else { false } })
    let inputs = randomInputs(for: original.graph, batch: 2, seed: 5)
    let (wanted, found) = (try run(original.graph, inputs), try run(read.graph, inputs))
    for (name, value) in wanted {
      let other = try #require(found[name])
      let ratio = decibels(value, other)
      #expect(ratio > 25 && ratio < 80, "\(name)")
    }
  }

  @Test func halfWeightsStayHalf() throws {
    let read = try export("tiny/features.pth", dtype: .f16)
    #expect(read.graph.constants.contains { $0.data.dtype == .f16 })
    #expect(try read.recipe.name == "f16")
  }

  /// An artifact whose layers have groups of inputs becomes QDQ with one scale for each output.
  @Test func groupsBecomeWholeRows() throws {
    _ = try bench.artifact("tiny/features", Recipes.int8)
    _ = try Conversions.convert(
      try ModelFile.open(bench.folder.path("out.gguf")), options: InputOptions(), dtype: nil,
      onnx: ONNXOptions(int8: .qdq), to: bench.folder.path("out.onnx"), overwrite: false)
    let model = try ONNXModel(path: bench.folder.path("out.onnx"))
    #expect(model.graph.nodes.contains { $0.type == "QuantizeLinear" })
    #expect(!model.graph.nodes.contains { $0.type == "MatMulInteger" })
  }

  /// What is int8 already is not balanced again, so examples would change nothing.
  @Test func aCalibrationThatNothingWantsIsRefused() throws {
    _ = try bench.artifact("tiny/features", Recipes.int8)
    let examples = Calibration(inputs: [:], description: "")
    expect(ConversionErrorCode.usage) {
      _ = try Conversions.convert(
        try ModelFile.open(bench.folder.path("out.gguf")), options: InputOptions(), dtype: nil,
        onnx: ONNXOptions(int8: .dynamic, calibration: examples), to: bench.folder.path("out.onnx"), overwrite: false)
    }
    #expect(try bench.folder.names() == ["out.gguf"])
  }

  @Test func aDamagedTensorIsNamed() throws {
    _ = try export("tiny/classification.pth")
    var bytes = try bench.folder.bytes("out.onnx")
    let model = try ONNXModel(path: bench.folder.path("out.onnx"))
    let tensor = try #require(model.graph.initializers.first { $0.name == "layers.0.vision.query.weight_transposed" })
    guard case .inline(let content) = tensor.content else { return #expect(Bool(false)) }
    let place = try #require(
      (0..<bytes.count - content.count).first { Array(bytes[$0..<$0 + content.count]) == content })
    bytes[place] ^= 1
    try bench.folder.write(bytes, to: "out.onnx")
    let found = expect(ConversionErrorCode.damaged) {
      _ = try DigestVerification.verify(bench.folder.path("out.onnx"))
    }
    #expect(found?.tensor == tensor.name)
  }

  /// A recorded graph counts for as long as the nodes are those that were written with it.
  @Test func aGraphIsNotUsedWhereTheNodesHaveChanged() throws {
    _ = try export("tiny/classification.pth")
    var model = try ONNXModel(path: bench.folder.path("out.onnx"))
    let place = try #require(model.graph.nodes.firstIndex { $0.type == "Erf" })
    model.graph.nodes[place].type = "Tanh"
    try bench.folder.write(try model.encoded().array(of: UInt8.self), to: "changed.onnx")
    guard case .checkpoint(let checkpoint) = try ModelFile.open(bench.folder.path("changed.onnx")) else {
      Issue.record("the graph is used")
      return
    }
    #expect(checkpoint.notes.contains { $0.contains("changed the nodes") })
  }

  @Test func aModelMayBeConvertedOn() throws {
    _ = try export("tiny/classification.pth")
    try bench.convert(bench.folder.path("out.onnx"), to: "out.gguf")
    try bench.convert(bench.folder.path("out.onnx"), to: "again.onnx")
    try bench.convert(bench.folder.path("out.onnx"), to: "out.safetensors")
    let original = try bench.load("tiny/classification")
    let inputs = randomInputs(for: original.graph, batch: 2, seed: 5)
    let wanted = try run(original.graph, inputs)
    for name in ["out.gguf", "again.onnx"] {
      let found = try run(try LoadedModel(path: bench.folder.path(name)).graph, inputs)
      #expect(found == wanted)
    }
    let tensors = try bench.tensors("out.safetensors")
    #expect(tensors["layers.0.vision.query.weight"] != nil)
  }

  @Test func whatConcernsONNXAloneIsRefusedElsewhere() throws {
    let source = Fixtures.path("tiny/classification.pth")
    let inputs = Calibration(inputs: [:], description: "")
    for (name, options) in [
      ("out.gguf", ONNXOptions(int8: .qdq)), ("out.safetensors", ONNXOptions(int8: .dynamic)),
      ("out.onnx", ONNXOptions(calibration: inputs)),
    ] {
      expect(ConversionErrorCode.usage) {
        _ = try Conversions.convert(
          try ModelFile.open(source), options: InputOptions(), dtype: nil, onnx: options,
          to: bench.folder.path(name), overwrite: false)
      }
    }
    #expect(try bench.folder.names().isEmpty)
  }
}
