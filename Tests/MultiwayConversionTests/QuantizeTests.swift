import MultiwayArtifact
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayPasses
import MultiwayQuantization
import MultiwayRuntime
import MultiwayTestSupport
import Testing

@Suite struct QuantizeTests {
  /// Whatever the recipe, an artifact captions, and an image's caption does not depend on its batch.
  @Test(arguments: Recipes.all.map(\.name))
  func everyRecipeLeavesACaptioningModelThatWrites(recipe: String) throws {
    let model = "tiny/heads/captioning"
    let graph = try Workbench().artifact(model, try Recipes.find(recipe)).graph
    let golden = try Fixtures.values(model + "_search.safetensors")
    let image = try #require(golden["image"])
    var options = BeamSearchOptions()
    (options.maximumLength, options.maskToken) = (11, 19)
    let generator = try CaptionGenerator(graph, options: options)
    var engine = try SessionDecoding(generator.decoding, threads: 2)
    let together = try generator.generate(image, with: &engine)
    let alone = try generator.generate(image, atMost: 1, with: &engine)
    #expect(alone.tokens == together.tokens && alone.scores == together.scores)
    // What an engine keeps of an image's keys and values is good for any number of beams, and for the next image.
    for beams in [1, 4, 2] {
      options.beams = beams
      let other = try CaptionGenerator(graph, options: options)
      var fresh = try SessionDecoding(other.decoding, threads: 1)
      let expected = try other.generate(image.rows(0..<3), atMost: 2, with: &fresh)
      let found = try other.generate(image.rows(0..<3), atMost: 2, with: &engine)
      #expect(found.tokens == expected.tokens && found.scores == expected.scores)
    }
    if recipe == "f32" { #expect(together.tokens == golden["default.tokens"]) }
    #expect(together.scores.floats.allSatisfy { $0 < 0 && $0 > -3 })
  }

  /// Every step of a caption reads the weights of the whole vocabulary.
  @Test func theVocabularyOfCaptionsIsInt8() throws {
    let graph = try bench.artifact("tiny/heads/captioning", Recipes.int8).graph
    #expect(graph.nodes.filter { $0.role == .vocabulary }.map(\.op.name) == ["quantized_linear"])
    let other = try bench.artifact("tiny/heads/vqa", Recipes.int8, name: "other.gguf").graph
    #expect(other.nodes.filter { $0.role == .head }.map(\.op.name) == ["linear"])
  }

  private let bench: Workbench

  init() throws { bench = try Workbench() }

  /// Nothing of the time, the machine or the folder goes into an artifact.
  @Test(arguments: ["tiny/classification", "tiny/features", "digits"], Recipes.all.map(\.name))
  func twoRunsGiveTheSameBytes(fixture: String, recipe: String) throws {
    let recipe = try Recipes.find(recipe)
    _ = try bench.artifact(fixture, recipe, name: "first.gguf")
    let other = try Workbench()
    _ = try other.artifact(fixture, recipe, name: "second.gguf")
    let isEqual = try bench.folder.bytes("first.gguf") == other.folder.bytes("second.gguf")
    #expect(isEqual)
    #expect(try bench.folder.names() == ["first.gguf"], "nothing else is left behind")
  }

  @Test(arguments: Fixtures.models, Recipes.all.map(\.name))
  func anArtifactHoldsTheGraphThatWasWritten(fixture: String, recipe: String) throws {
    let recipe = try Recipes.find(recipe)
    let artifact = try bench.artifact(fixture, recipe)
    var graph = try bench.load(fixture).graph
    let statistics = recipe.wantsCalibration ? try ActivationStatistics.estimated(for: graph) : nil
    _ = try recipe.pipeline(statistics: statistics).run(on: &graph)
    #expect(artifact.graph.description == graph.description)
    let inputs = randomInputs(for: graph, batch: 2)
    #expect(try Engine.runtime.run(artifact.graph, inputs).bits == Engine.runtime.run(graph, inputs).bits)
    #expect(try artifact.recipe.name == recipe.name)
    #expect(artifact.task == (try bench.load(fixture).task))
  }

  /// What is read from an artifact and written again is the same model, which says that it comes from the artifact.
  @Test(arguments: ["tiny/features", "digits"], ["int8", "f16"])
  func anArtifactCopiedIsTheSameGraph(fixture: String, recipe: String) throws {
    let artifact = try bench.artifact(fixture, try Recipes.find(recipe))
    try bench.convert(bench.folder.path("out.gguf"), to: "copy.gguf")
    let copy = try LoadedModel(path: bench.folder.path("copy.gguf"))
    #expect(copy.graph.description == artifact.graph.description)
    #expect(copy.file.recordedFiles.map(\.name) == ["out.gguf"] + artifact.file.recordedFiles.map(\.name))
    let (tensors, copies) = (artifact.storedTensors, copy.storedTensors)
    #expect(tensors.map(\.name) == copies.map(\.name))
    let isEqual = try zip(tensors, copies).allSatisfy { try $0.plainBytes == $1.plainBytes }
    #expect(isEqual)
  }

  /// The promises of the int8 recipe on a trained model and images that it has not seen.
  @Test func theDigitsKeepTheirAnswers() throws {
    let artifact = try bench.artifact("digits", Recipes.int8)
    let (image, labels, golden) = try Fixtures.digits()
    let logits = try #require(try Engine.runtime.run(artifact.graph, ["image": image])["logits"])
    #expect(agreement(answers(logits), answers(golden)) >= 0.99)
    #expect(agreement(answers(logits), labels) >= agreement(answers(golden), labels) - 0.005)
    #expect(decibels(golden, logits) >= 40)
    // Int8 it must be: in fp32 it would be nearer than 8 bits can come.
    #expect(decibels(golden, logits) < 60)
    #expect(artifact.file.byteCount * 3 < (try bench.load("digits")).file.byteCount)
  }

  /// Examples that the model runs on first are as good as none at least, give the same bytes again, and are named in the artifact.
  @Test func calibrationIsRecorded() throws {
    let image = try Fixtures.digits(100..<140).image
    let calibration = Calibration(inputs: ["image": image], description: "forty digits")
    for name in ["a.gguf", "b.gguf"] {
      _ = try Conversions.quantize(
        try bench.load("digits"), recipe: Recipes.int8, calibration: calibration, to: bench.folder.path(name),
        overwrite: false)
    }
    let isEqual = try bench.folder.bytes("a.gguf") == bench.folder.bytes("b.gguf")
    #expect(isEqual)
    let artifact = try LoadedModel(path: bench.folder.path("a.gguf"))
    #expect(JSONValue.object(try artifact.recipe.json).text().contains("forty digits"))
    let (test, _, golden) = try Fixtures.digits(0..<100)
    let logits = try #require(try Engine.runtime.run(artifact.graph, ["image": test])["logits"])
    #expect(decibels(golden, logits) >= 40)
  }

  @Test func examplesThatDoNotFitAreRefused() throws {
    let calibration = Calibration(inputs: ["image": TensorValue([1, 3], [0, 0, 0])], description: "wrong")
    let found = expect(GraphErrorCode.invalidInputs) {
      _ = try Conversions.quantize(
        try bench.load("digits"), recipe: Recipes.int8, calibration: calibration, to: bench.folder.path("out.gguf"),
        overwrite: false)
    }
    #expect(found?.found.contains("image has shape [1, 3]") == true)
    #expect(try bench.folder.names() == [])
  }

  /// Both implementations compute what the artifact says: the roundings that fall the other way are few.
  @Test func theReferenceAgreesOnInt8() throws {
    let artifact = try bench.artifact("digits", Recipes.int8)
    let inputs = ["image": try Fixtures.digits(0..<8).image]
    let expected = try #require(try Engine.reference.run(artifact.graph, inputs)["logits"])
    let found = try #require(try Engine.runtime.run(artifact.graph, inputs)["logits"])
    #expect(decibels(expected, found) >= 45)
  }

  @Test func anInt8ArtifactCannotBeQuantizedAgain() throws {
    let artifact = try bench.artifact("tiny/classification", Recipes.int8)
    let found = expect(PassErrorCode.notApplicable) {
      _ = try Conversions.quantize(
        artifact, recipe: Recipes.int8, to: bench.folder.path("again.gguf"), overwrite: false)
    }
    #expect(found?.remedy?.contains("original checkpoint") == true)
    #expect(try bench.folder.names() == ["out.gguf"])
  }

  @Test func theOutputMustBeAnArtifact() throws {
    let model = try bench.load("tiny/classification")
    for name in ["out.safetensors", "out.pth", "out", "gguf", ".gguf/out"] {
      let found = expect(ConversionErrorCode.usage) {
        _ = try Conversions.quantize(model, recipe: Recipes.int8, to: bench.folder.path(name), overwrite: false)
      }
      #expect(found?.expected?.contains(".gguf") == true)
    }
    #expect(try bench.folder.names() == [])
  }

  /// A weight that is not a number, or too large for half precision, is named; no file appears.
  @Test(arguments: [(Float.nan, "int8"), (.infinity, "int8"), (1e6, "f16")])
  func aBrokenWeightIsNamed(value: Float, recipe: String) throws {
    let name = "beit3.encoder.layers.1.self_attn.q_proj.A.weight"
    let path = try bench.damaged("tiny/classification", name) { $0[5] = value }
    let model = try LoadedModel(path: path)
    do {
      _ = try Conversions.quantize(
        model, recipe: try Recipes.find(recipe), to: bench.folder.path("out.gguf"), overwrite: false)
      Issue.record("no error")
    } catch let error as any DiagnosedError {
      #expect(error.category == .data)
      #expect(error.diagnosis.tensor == name)
    }
    #expect(try bench.folder.names() == ["damaged.safetensors"])
  }
}

extension Workbench {
  /// A copy of a fixture as safetensors in which one tensor is changed; gives its path.
  func damaged(_ fixture: String, _ tensor: String, _ change: (inout [Float]) -> Void) throws -> String {
    try DamagedCopy.write(fixture, tensor, to: folder.path("damaged.safetensors"), change)
  }
}
