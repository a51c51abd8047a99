import Foundation
import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayGGUF
import MultiwayGraph
import MultiwayONNX
import MultiwayTestSupport
import Testing

/// The model in Formats/onnx/golden holds every op. Its bytes are pinned here; that ONNX Runtime and OpenVINO compute from it what we
/// compute from the artifact beside it is checked by Tools/interop/onnx_check.py.
@Suite struct ONNXGoldenTests {
  private static let folder = Fixtures.package + "/Formats/onnx/golden/"
  private let bench: Workbench

  init() throws { bench = try Workbench() }

  @Test func theGoldenFilesAreStillWritten() throws {
    let metadata = ArtifactMetadata(
      architecture: "operators", name: "every op", license: "CC0-1.0",
      hyperparameters: [Hyperparameter("width", .u32(8))],
      labels: ["one", "two"], toolVersion: "golden")
    try ArtifactWriter.write(
      try OperatorSketch.graph(), metadata: metadata, to: bench.folder.path("operators.gguf"), overwrite: false)
    let inputs = try OperatorSketch.inputs().sorted { $0.key < $1.key }.map { $0.value.stored(as: $0.key) }
    try SafetensorsWriter.write(
      inputs, metadata: [:], to: bench.folder.path("operators_inputs.safetensors"), overwrite: false)
    try bench.convert(bench.folder.path("operators.gguf"), to: "operators.onnx")
    for name in ["operators.gguf", "operators_inputs.safetensors", "operators.onnx"] {
      let bytes = try bench.folder.bytes(name)
      let golden = URL(fileURLWithPath: ONNXGoldenTests.folder + name)
      if ProcessInfo.processInfo.environment["MULTIWAY_UPDATE_GOLDENS"] != nil {
        try FileManager.default.createDirectory(atPath: ONNXGoldenTests.folder, withIntermediateDirectories: true)
        try Data(bytes).write(to: golden)
      }
      let isEqual = [UInt8](try Data(contentsOf: golden)) == bytes
      #expect(isEqual, "\(name): run with MULTIWAY_UPDATE_GOLDENS=1 only if the format was changed on purpose")
    }
  }

  /// An op without a lowering does not compile; one that no golden value depends on would go unchecked.
  @Test func theGoldenModelHasEveryOp() throws {
    let graph = try LoadedModel(path: ONNXGoldenTests.folder + "operators.gguf").graph
    let all = [
      "add", "add_positions", "attention", "average_pool", "convolution", "drop_tokens", "embedding", "gelu",
      "join_channels", "join_tokens", "layer_norm", "linear", "max_pool", "mean_tokens", "normalize_l2", "patchify",
      "pixel_shuffle", "prepend_token", "relu", "resize_bilinear", "scale", "scale_channels", "select_token", "tanh",
      "to_image", "zero_padding",
    ]
    #expect(Set(graph.nodes.map(\.op.name)).sorted() == all)
    var reached = graph
    reached.removeDeadCode()
    #expect(reached.nodes.count == graph.nodes.count)
  }

  @Test func theGoldenModelIsStillRead() throws {
    let model = try ONNXModel(path: ONNXGoldenTests.folder + "operators.onnx")
    #expect(model.opset == 17)
    #expect(model.irVersion == 8)
    #expect(model.producerName == "multiway")
    #expect(
      model.properties.prefix(4) == [
        ONNXProperty("architecture", "operators"), ONNXProperty("name", "every op"), ONNXProperty("license", "CC0-1.0"),
        ONNXProperty("width", "8"),
      ])
    #expect(model.properties.contains(ONNXProperty("labels", #"["one","two"]"#)))
    #expect(
      model.graph.inputs.map(\.name) == [
        "image", "text", "padding_mask", "shared_key", "shared_value", "past_key", "past_value",
      ])
    #expect(model.graph.inputs[1].dimensions == [.symbol("batch"), .symbol("text_tokens")])
    #expect(model.graph.outputs.map(\.name).suffix(2) == ["embedding", "embedding_again"])
    #expect(model.graph.nodes.allSatisfy { !$0.outputs.contains("") })
    let isValid = try model.isOrdered()
    #expect(isValid)
  }
}

extension ONNXModel {
  /// Reads a file.
  init(path: String) throws {
    let file = try MappedFile(path: path)
    let bytes = file.bytes
    try self.init(decoding: bytes.span, file: path)
  }

  /// True where every value is made once and before it is read.
  func isOrdered() throws -> Bool {
    var known = Set(graph.inputs.map(\.name))
    for tensor in graph.initializers { guard known.insert(tensor.name).inserted else { return false } }
    for node in graph.nodes {
      guard node.inputs.allSatisfy({ $0.isEmpty || known.contains($0) }) else { return false }
      for output in node.outputs { guard known.insert(output).inserted else { return false } }
    }
    return graph.outputs.allSatisfy { known.contains($0.name) }
  }
}
