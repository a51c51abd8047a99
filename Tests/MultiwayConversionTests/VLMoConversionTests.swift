import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayPasses
import MultiwayTestSupport
import Testing

/// What the verbs make of a model whose streams share most of their constants.
@Suite struct VLMoConversionTests {
  private let bench: Workbench

  init() throws { bench = try Workbench() }

  private func load(_ name: String) throws -> LoadedModel {
    try LoadedModel(path: Fixtures.path("vlmo/\(name).pth"), options: InputOptions(heads: name == "absolute" ? 2 : nil))
  }

  private func inputs(_ graph: Graph) throws -> [String: TensorValue] {
    let names = Set(graph.inputs.map { graph[$0].name })
    return try Fixtures.values("vlmo/inputs.safetensors").filter { names.contains($0.key) }
  }

  private func prune(_ model: LoadedModel, keep: Modality, to name: String) throws -> LoadedModel {
    _ = try Conversions.prune(model, keep: keep, to: bench.folder.path(name), overwrite: false)
    return try LoadedModel(path: bench.folder.path(name))
  }

  /// Int8 is as near as the recipe's own gate asks, and weights that streams share are int8 once.
  @Test(arguments: ["pretraining", "text_pretraining", "vqa", "nlvr2", "retrieval", "features", "absolute"])
  func int8IsClose(name: String) throws {
    let model = try load(name)
    _ = try Conversions.quantize(model, recipe: Recipes.int8, to: bench.folder.path("out.gguf"), overwrite: false)
    let artifact = try LoadedModel(path: bench.folder.path("out.gguf"))
    let blocks = artifact.graph.nodes.filter { $0.role?.isBlockLinear == true }
    #expect(!blocks.isEmpty)
    #expect(blocks.allSatisfy { $0.op.name == "quantized_linear" })
    let layers = Set(model.graph.nodes.filter { $0.role?.isBlockLinear == true }.map(\.op))
    #expect(artifact.graph.constants.count { $0.data.dtype == .i8 } == layers.count)
    // What serves several streams folds for all of them.
    #expect(!artifact.graph.nodes.contains { ["scale", "scale_channels"].contains($0.op.name) })
    let inputs = try inputs(model.graph)
    let exact = try Engine.reference.run(model.graph, inputs)
    for (output, value) in try Engine.runtime.run(artifact.graph, inputs) {
      let quality = decibels(try #require(exact[output]), value)
      #expect(quality >= 28, "\(output): \(quality) dB")
      #expect(quality < 70, "\(output) is not int8")
    }
  }

  /// What one modality makes alone stays to the last bit when the other goes.
  @Test(arguments: ["pretraining", "retrieval"], [Modality.vision, .text])
  func pruningKeepsTheBitsOfWhatWasAlone(name: String, keep: Modality) throws {
    let model = try load(name)
    let pruned = try prune(model, keep: keep, to: "out.gguf")
    #expect(!pruned.graph.constants.contains { [.vision, .text].contains($0.modality) && $0.modality != keep })
    let before = try Engine.runtime.run(model.graph, try inputs(model.graph))
    let after = try Engine.runtime.run(pruned.graph, try inputs(pruned.graph))
    let word = keep == .vision ? "image" : "text"
    let embeddings = before.keys.filter { $0.hasPrefix(word) && $0.hasSuffix("embedding") }
    #expect(embeddings.count == (name == "pretraining" ? 2 : 1))
    for output in embeddings { #expect(after[output]?.bits == before[output]?.bits, "\(output)") }
    #expect(after.keys.allSatisfy { !$0.hasPrefix(keep == .vision ? "text" : "image") })
  }

  /// The image side of a joint pass is the image alone with the joint experts: what pretraining's second embedding is made of.
  @Test(arguments: ["features", "pretraining"])
  func oneSideOfAJointPass(name: String) throws {
    let model = try load(name)
    for keep in [Modality.vision, .text] {
      let pruned = try prune(model, keep: keep, to: "\(keep.rawValue).gguf")
      var graph = model.graph
      _ = try PassPipeline([KeepModality(keep)]).run(on: &graph)
      #expect(pruned.graph.description == graph.description)
      let inputs = try inputs(graph)
      let expected = try Engine.reference.run(graph, inputs)
      for (output, value) in try Engine.runtime.run(pruned.graph, inputs) {
        #expect(decibels(try #require(expected[output]), value) >= 95, "\(output)")
      }
    }
  }

  /// A state dict without its text half is another file of the same vision model.
  @Test func theVisionSideIsTheModelThatNeverHadText() throws {
    let model = try load("retrieval")
    let pruned = try prune(model, keep: .vision, to: "vision.gguf")
    // The index buffer goes, and with it what tells the sizes of this small table.
    let text = try #require(model.model).parameters.stored.filter { $0.modality == .text }
    #expect(!text.isEmpty)
    let checkpoint = try Fixtures.checkpoint("vlmo/retrieval.pth")
    var stateDict = try checkpoint.stateDict()
    let gone = Set(text.map(\.tensor.name))
    stateDict.tensors.removeAll { gone.contains($0.name) }
    let alone = try Architectures.load(stateDict, of: checkpoint)
    #expect(alone.graph.inputs.map { alone.graph[$0].name } == ["image"])
    let inputs = try inputs(alone.graph)
    #expect(try Engine.runtime.run(pruned.graph, inputs).bits == Engine.runtime.run(alone.graph, inputs).bits)
  }

  /// Every recipe's artifact holds the graph that was written.
  @Test(arguments: ["vqa", "nlvr2"], Recipes.all.map(\.name))
  func artifactsRunAsTheirGraphs(name: String, recipe: String) throws {
    let model = try load(name)
    let recipe = try Recipes.find(recipe)
    _ = try Conversions.quantize(model, recipe: recipe, to: bench.folder.path("out.gguf"), overwrite: false)
    let artifact = try LoadedModel(path: bench.folder.path("out.gguf"))
    #expect(artifact.task == model.task)
    let inputs = try inputs(model.graph)
    let (first, second) = (
      try Engine.runtime.run(artifact.graph, inputs), try Engine.reference.run(artifact.graph, inputs)
    )
    for (output, value) in first { #expect(decibels(try #require(second[output]), value) >= 40, "\(output)") }
  }
}
