import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayGGUF
import MultiwayGraph
import MultiwayParity
import MultiwayPasses
import MultiwayTestSupport
import Testing

/// Models whose weights are stored in blocks of 8 and 4 bits.
@Suite struct BlockWeightsTests {
  private let bench: Workbench

  init() throws { bench = try Workbench() }

  static let recipes: [(recipe: String, type: GGUFType, least: Double, most: Double, agreement: Double, size: Int)] = [
    ("int8-weights", .q8_0, 50, 65, 0.995, 6), ("int4", .q4_1, 29, 40, 0.98, 9),
  ]

  /// The promises of the recipes on a trained model and images that it has not seen; fp32 weights would be nearer than 8 bits can come.
  @Test(arguments: recipes.map(\.recipe)) func theDigitsKeepTheirAnswers(name: String) throws {
    let expected = try #require(Self.recipes.first { $0.recipe == name })
    let artifact = try bench.artifact("digits", try Recipes.find(name))
    let (image, labels, golden) = try Fixtures.digits()
    let logits = try #require(try Engine.runtime.run(artifact.graph, ["image": image])["logits"])
    #expect(agreement(answers(logits), answers(golden)) >= expected.agreement)
    #expect(agreement(answers(logits), labels) >= agreement(answers(golden), labels) - 0.01)
    #expect((expected.least...expected.most).contains(decibels(golden, logits)))
    #expect(artifact.file.byteCount * expected.size < (try bench.load("digits")).file.byteCount)
    #expect(try artifact.recipe.gates.outputSQNR <= decibels(golden, logits) - 3)
  }

  /// The file holds standard blocks in the order of the checkpoint, and the reference reads them without the kernels.
  @Test(arguments: recipes.map(\.recipe)) func theFileHoldsStandardBlocks(name: String) throws {
    let expected = try #require(Self.recipes.first { $0.recipe == name })
    let artifact = try bench.artifact("digits", try Recipes.find(name))
    let container = try GGUFContainer.read(try MappedFile(path: bench.folder.path("out.gguf")))
    let blocks = container.tensors.filter { !$0.type.isPlain }
    #expect(blocks.count == 24 && blocks.allSatisfy { $0.type == expected.type })
    #expect(blocks.first { $0.name.hasSuffix("feed_forward_in.weight") }?.dimensions == [256, 128])
    #expect(container["general.quantization_version"]?.integer == 2)
    #expect(container["general.file_type"]?.integer == (expected.type == .q8_0 ? 7 : 3))
    let inputs = ["image": try Fixtures.digits(0..<8).image]
    let reference = try #require(try Engine.reference.run(artifact.graph, inputs)["logits"])
    let found = try #require(try Engine.runtime.run(artifact.graph, inputs)["logits"])
    #expect(decibels(reference, found) >= 100)
  }

  @Test(arguments: recipes.map(\.recipe)) func anArtifactCopiedKeepsItsBlocks(name: String) throws {
    let artifact = try bench.artifact("digits", try Recipes.find(name))
    try bench.convert(bench.folder.path("out.gguf"), to: "copy.gguf")
    let copy = try LoadedModel(path: bench.folder.path("copy.gguf"))
    #expect(copy.graph.description == artifact.graph.description)
    let containers = try ["out.gguf", "copy.gguf"].map {
      try GGUFContainer.read(try MappedFile(path: bench.folder.path($0)))
    }
    #expect(containers[0].tensors.map(\.type) == containers[1].tensors.map(\.type))
    for (first, second) in zip(containers[0].tensors, containers[1].tensors) {
      let left = try containers[0].file.bytes(in: try containers[0].range(of: first)).array(of: UInt8.self)
      let right = try containers[1].file.bytes(in: try containers[1].range(of: second)).array(of: UInt8.self)
      #expect(left == right, "\(first.name)")
    }
    for name in ["out.gguf", "copy.gguf"] {
      #expect(try DigestVerification.verify(bench.folder.path(name)).tensorCount == containers[0].tensors.count)
    }
    let difference = try Difference(
      try ModelFile.open(bench.folder.path("out.gguf")), try ModelFile.open(bench.folder.path("copy.gguf")),
      options: InputOptions())
    let areEqual = difference.pairs.allSatisfy { $0.isEqual }
    #expect(areEqual)
  }

  /// To safetensors and with another dtype go the numbers that the blocks stand for.
  @Test func otherFormatsGetTheNumbers() throws {
    let artifact = try bench.artifact("digits", try Recipes.find("int4"))
    try bench.convert(bench.folder.path("out.gguf"), to: "out.safetensors")
    let written = try bench.tensors("out.safetensors")
    for tensor in artifact.storedTensors {
      let copy = try #require(written[tensor.name])
      #expect(copy.dtype == tensor.dtype)
      #expect(try copy.floats() == tensor.floats(), "\(tensor.name)")
    }
    try bench.convert(bench.folder.path("out.gguf"), to: "half.gguf", dtype: .f16)
    let half = try LoadedModel(path: bench.folder.path("half.gguf"))
    #expect(half.graph.constants.allSatisfy { $0.data.encoded == nil })
    try bench.convert(bench.folder.path("out.gguf"), to: "out.onnx")
    let inputs = ["image": try Fixtures.digits(0..<4).image]
    let model = try LoadedModel(path: bench.folder.path("out.onnx"))
    let (expected, found) = (
      try #require(try Engine.runtime.run(artifact.graph, inputs)["logits"]),
      try #require(try Engine.runtime.run(model.graph, inputs)["logits"])
    )
    #expect(decibels(expected, found) > 100)
  }

  /// A model in blocks can be quantized further, from what its blocks stand for, and keeps them where the type is the same.
  @Test func blocksAreQuantizedAgain() throws {
    _ = try bench.artifact("digits", try Recipes.find("int8-weights"))
    for recipe in ["int8", "int4", "int8-weights", "f16"] {
      let input = try LoadedModel(path: bench.folder.path("out.gguf"))
      let path = bench.folder.path(recipe + ".gguf")
      _ = try Conversions.quantize(input, recipe: try Recipes.find(recipe), to: path, overwrite: false)
      let (image, _, golden) = try Fixtures.digits(0..<50)
      let logits = try #require(
        try Engine.runtime.run(try LoadedModel(path: path).graph, ["image": image])["logits"])
      #expect(decibels(golden, logits) > (recipe == "int4" ? 28 : 40), "\(recipe)")
    }
  }

  /// A matrix whose inputs fill no blocks, here 48, stays in half precision, and the report says so.
  @Test func whatFillsNoBlocksStays() throws {
    let report = try Conversions.quantize(
      try bench.load("tiny/classification"), recipe: try Recipes.find("int4"), to: bench.folder.path("out.gguf"),
      overwrite: false)
    let notes = report.passes.flatMap(\.statistics.notes)
    let types = Set(try LoadedModel(path: bench.folder.path("out.gguf")).graph.constants.map(\.data.typeName))
    #expect(types == ["f16", "f32", "q4_1"] && notes.contains { $0.contains("fill no whole blocks of 32") })
  }

  @Test func aRecipeOfOnesOwnChoosesTheBlocks() throws {
    let text =
      #"{"name": "mine", "base": "int8", "int8_roles": ["feedForwardIn"], "int8_attention": false, "weights": "q4_0"}"#
    let path = try bench.folder.write(Array(text.utf8), to: "recipe.json")
    let recipe = try Recipes.find(path)
    let artifact = try bench.artifact("digits", recipe)
    for node in artifact.graph.nodes where node.role?.isBlockLinear == true {
      switch node.op {
      case .quantizedLinear: #expect(node.role == .feedForwardIn)
      case .linear(let weight, _): #expect(artifact.graph[weight].data.typeName == "q4_0")
      default: Issue.record("\(node.op.name)")
      }
    }
    let (image, _, golden) = try Fixtures.digits(0..<50)
    let logits = try #require(try Engine.runtime.run(artifact.graph, ["image": image])["logits"])
    #expect((26..<40).contains(decibels(golden, logits)))
    #expect(try artifact.recipe.json["weights"]?.string == "q4_0")
    for wrong in [#"{"weights": "q5_0"}"#, #"{"weights": 4}"#] {
      let path = try bench.folder.write(Array(wrong.utf8), to: "recipe.json")
      let found = expect(ConversionErrorCode.recipe) { _ = try Recipes.find(path) }
      #expect(found?.expected?.contains("q4_1") == true)
    }
  }

  @Test(arguments: recipes.map(\.recipe)) func aWeightThatCannotBeEncodedIsNamed(name: String) throws {
    let tensor = "beit3.encoder.layers.1.self_attn.q_proj.A.weight"
    for value: Float in [.nan, .infinity, 1e8] {
      let path = try DamagedCopy.write("digits", tensor, to: bench.folder.path("damaged\(value).safetensors")) {
        $0[5] = value
      }
      do {
        _ = try Conversions.quantize(
          try LoadedModel(path: path), recipe: try Recipes.find(name), to: bench.folder.path("out.gguf"),
          overwrite: false)
        Issue.record("no error")
      } catch let error as any DiagnosedError {
        #expect(error.category == .data && error.diagnosis.tensor == tensor)
      }
      #expect(try !bench.folder.names().contains("out.gguf"))
    }
  }
}
