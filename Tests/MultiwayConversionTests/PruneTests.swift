import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayPasses
import MultiwayTestSupport
import Testing

@Suite struct PruneTests {
  private let bench: Workbench

  init() throws { bench = try Workbench() }

  private func prune(_ model: LoadedModel, keep: Modality? = nil, to name: String) throws -> ConversionReport {
    try Conversions.prune(model, keep: keep, to: bench.folder.path(name), overwrite: false)
  }

  private func isText(_ name: String) -> Bool { name.contains(".B.") || name.contains("text_embed") }

  /// For ImageNet classification all text experts go, and every logit stays to the last bit.
  @Test(arguments: ["tiny/classification", "digits"], ["out.gguf", "out.safetensors", "out.pth"])
  func classificationLosesItsTextExperts(fixture: String, output: String) throws {
    let model = try bench.load(fixture)
    let report = try prune(model, to: output)
    let pruned = try LoadedModel(path: bench.folder.path(output))
    let inputs = randomInputs(for: model.graph, batch: 2)
    #expect(try Engine.runtime.run(pruned.graph, inputs).bits == Engine.runtime.run(model.graph, inputs).bits)
    let text = try #require(model.model).parameters.stored.filter { $0.modality == .text }
    let lost = text.reduce(0) { $0 + $1.tensor.shape.elementCount }
    #expect(lost > 0)
    #expect(report.parametersBefore == model.parameterCount)
    #expect(report.outputBytes < report.inputBytes)
    if output != "out.gguf" {
      let original = try Workbench.tensors(Fixtures.path(fixture + ".pth"))
      let kept = try bench.tensors(output)
      #expect(Set(kept.keys) == Set(original.keys.filter { !isText($0) }))
      for (name, tensor) in kept { #expect(try tensor.plainBytes == original[name]?.plainBytes) }
      #expect(report.parametersAfter == model.parameterCount - lost)
    } else {
      #expect(!pruned.graph.constants.contains { $0.modality == .text })
      // The mask token serves training only and goes too.
      #expect(report.parametersAfter <= model.parameterCount - lost)
    }
  }

  @Test(arguments: [Modality.vision, .text])
  func oneSideOfFeatures(keep: Modality) throws {
    let model = try bench.load("tiny/features")
    let report = try prune(model, keep: keep, to: "out.gguf")
    let pruned = try LoadedModel(path: bench.folder.path("out.gguf"))
    var graph = model.graph
    _ = try PassPipeline([KeepModality(keep)]).run(on: &graph)
    #expect(pruned.graph.description == graph.description)
    let inputs = randomInputs(for: graph, batch: 2)
    #expect(try Engine.runtime.run(pruned.graph, inputs).bits == Engine.runtime.run(graph, inputs).bits)
    #expect(report.parametersAfter == graph.parameterCount)
  }

  /// A checkpoint without its text experts is another file of the same vision model.
  @Test func theVisionSideIsTheModelThatNeverHadText() throws {
    let model = try bench.load("tiny/features")
    _ = try prune(model, keep: .vision, to: "vision.safetensors")
    let alone = try LoadedModel(path: bench.folder.path("vision.safetensors"))
    #expect(alone.graph.inputs.map { alone.graph[$0].name } == ["image"])
    _ = try prune(model, keep: .vision, to: "vision.gguf")
    let pruned = try LoadedModel(path: bench.folder.path("vision.gguf"))
    let inputs = randomInputs(for: alone.graph, batch: 2)
    #expect(try Engine.runtime.run(pruned.graph, inputs).bits == Engine.runtime.run(alone.graph, inputs).bits)
    #expect(try Engine.reference.run(pruned.graph, inputs).bits == Engine.reference.run(alone.graph, inputs).bits)
  }

  /// The text side of a features model is what a retrieval model with the same weights makes of a text, which never meets an image.
  @Test func theTextSideIsTheEncoderOfRetrieval() throws {
    let model = try bench.load("tiny/features")
    _ = try prune(model, keep: .text, to: "text.gguf")
    let pruned = try LoadedModel(path: bench.folder.path("text.gguf"))
    var tensors = try Fixtures.checkpoint("tiny/features.pth").stateDict()
    var numbers = SeededGenerator(seed: 1)
    for name in ["language_head.weight", "vision_head.weight"] {
      tensors.tensors.append(StoredTensor(name: name, dtype: .f32, shape: [4, 32], elements: numbers.floats(128)))
    }
    let retrieval = try Architectures.load(tensors, of: try Fixtures.checkpoint("tiny/features.pth"))
    #expect(retrieval.task == "retrieval")
    let inputs = try Fixtures.inputs("tiny/features")
    let expected = try referenceValues(retrieval.graph, inputs)["text.final_norm"]
    let found = try Engine.reference.run(pruned.graph, inputs.filter { $0.key != "image" })["features"]
    #expect(try #require(found).bits == #require(expected).bits)
  }

  @Test func anArtifactIsPrunedAsWell() throws {
    let artifact = try bench.artifact("tiny/features", Recipes.int8)
    _ = try prune(artifact, keep: .vision, to: "vision.gguf")
    let pruned = try LoadedModel(path: bench.folder.path("vision.gguf"))
    #expect(!pruned.graph.constants.contains { $0.modality == .text })
    #expect(try pruned.recipe.name == "int8")
    #expect(throws: ConversionError.self) { _ = try prune(artifact, keep: .vision, to: "vision.safetensors") }
  }

  @Test func whatCannotBePrunedSaysWhy() throws {
    let features = try bench.load("tiny/features")
    let found = expect(ConversionErrorCode.usage) { _ = try prune(features, to: "out.gguf") }
    #expect(found?.remedy?.contains("--keep vision or --keep text") == true)
    expect(ConversionErrorCode.usage) { _ = try prune(features, keep: .text, to: "out.safetensors") }
    expect(PassErrorCode.notApplicable) {
      _ = try prune(try bench.load("tiny/classification"), keep: .text, to: "out.gguf")
    }
    #expect(try bench.folder.names() == [])
  }
}
