import MultiwayArtifact
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayTestSupport
import Testing

/// Segmentation through files: artifacts of every recipe, and layouts with the taps that belong to the weights.
@Suite struct SegmentationTests {
  private static let fixture = "tiny/segmentation/mmseg"
  private let bench: Workbench

  init() throws { bench = try Workbench() }

  private func logits(_ graph: Graph) throws -> TensorValue {
    let inputs = try Fixtures.values("tiny/segmentation/inputs.safetensors")
    return try #require(try Engine.runtime.run(graph, inputs)["logits"])
  }

  private func golden(_ name: String = "logits_unilm") throws -> TensorValue {
    try #require(try Fixtures.values("tiny/segmentation/outputs.safetensors")[name])
  }

  /// The recipes' own gates for the outputs; int8 has 16 channels here, which quantize worse than any model's.
  @Test(arguments: [("f32", 95.0), ("f16", 55), ("bf16", 38), ("int8", 20), ("int8-all", 20)])
  func artifactsOfEveryRecipeRun(recipe: String, floor: Double) throws {
    let artifact = try bench.artifact(SegmentationTests.fixture, try Recipes.find(recipe))
    let quality = decibels(try golden(), try logits(artifact.graph))
    #expect(quality >= floor, "\(quality) dB")
    #expect(artifact.task == "segmentation")
    #expect(artifact.hyperparameters.first { $0.name == "segmentation.taps" }?.value == "2,3,4,6")
  }

  /// Int8 stays in the blocks: neck and decoder are stored in half precision and computed in fp32.
  @Test(arguments: ["int8", "int8-all"])
  func theDecoderStaysInFloatingPoint(recipe: String) throws {
    let graph = try bench.artifact(SegmentationTests.fixture, try Recipes.find(recipe)).graph
    let decoder = graph.constants.filter { $0.role == .segmentation }
    #expect(decoder.contains { $0.name == "decoder.fused.weight" })
    #expect(decoder.allSatisfy { $0.data.dtype == ($0.data.shape.rank == 2 ? .f16 : .f32) })
    #expect(!graph.constants.contains { $0.role == .auxiliaryHead })
    let quantized = graph.nodes.filter { $0.op.name == "quantized_linear" }
    #expect(quantized.count >= 36 && quantized.allSatisfy { $0.role != .segmentation })
  }

  /// Taps belong to the weights: a file that goes into the other layout keeps its own, and so do the logits.
  @Test(arguments: [("mmseg.pth", "huggingface", "logits_unilm"), ("huggingface", "unilm", "logits_huggingface")])
  func anotherLayoutKeepsTheTaps(file: String, layout: String, name: String) throws {
    _ = try Conversions.convert(
      try ModelFile.open(Fixtures.path("tiny/segmentation/" + file)), options: InputOptions(), layout: layout,
      dtype: nil, to: bench.folder.path("other.safetensors"), overwrite: false)
    let other = try LoadedModel(path: bench.folder.path("other.safetensors"))
    #expect(decibels(try golden(name), try logits(other.graph)) >= 95)
    let own = try LoadedModel(
      path: bench.folder.path("other.safetensors"), options: InputOptions(featureTaps: [1, 1, 1, 1]))
    #expect(decibels(try golden(name), try logits(own.graph)) < 40)
  }
}
