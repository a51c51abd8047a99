import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayQuantization
import MultiwayTestSupport
import Testing

/// The fixtures of `Tools/reference/vlmo.py`, whose outputs are those of the original's own code.
enum VLMoFixtures {
  static let names = ["pretraining", "text_pretraining", "vqa", "nlvr2", "retrieval", "features", "absolute"]

  /// The model of a fixture. Without a bias table nothing tells the number of heads.
  static func model(_ name: String) throws -> Model {
    try Fixtures.model("vlmo/" + name, heads: name == "absolute" ? 2 : nil)
  }

  static func tensors(_ name: String) throws -> [StoredTensor] {
    try Fixtures.checkpoint("vlmo/\(name).pth").stateDict().tensors
  }

  /// Those of the inputs that a graph reads.
  static func inputs(_ graph: Graph) throws -> [String: TensorValue] {
    let names = Set(graph.inputs.map { graph[$0].name })
    return try Fixtures.values("vlmo/inputs.safetensors").filter { names.contains($0.key) }
  }

  static func goldens(_ name: String) throws -> [String: TensorValue] {
    try Fixtures.values("vlmo/\(name)_outputs.safetensors")
  }
}

@Suite struct VLMoTests {
  /// 100 dB, as for the other tiny models.
  private static let floor = 100.0

  @Test(arguments: VLMoFixtures.names, Engine.allCases)
  func outputsAreThoseOfTheOriginal(name: String, engine: Engine) throws {
    let goldens = try VLMoFixtures.goldens(name)
    let graph = try VLMoFixtures.model(name).graph
    let outputs = try engine.run(graph, try VLMoFixtures.inputs(graph))
    #expect(Set(outputs.keys) == Set(goldens.keys))
    for (output, golden) in goldens {
      let quality = decibels(golden, try #require(outputs[output]))
      #expect(quality >= VLMoTests.floor, "\(output): \(quality) dB")
    }
  }

  /// The original pads every text to one length and masks the rest; a text that stops where its padding would start has the same
  /// results.
  @Test(arguments: ["vqa", "absolute", "text_pretraining", "pretraining"], Engine.allCases)
  func aShorterTextNeedsNoPadding(name: String, engine: Engine) throws {
    let graph = try VLMoFixtures.model(name).graph
    var inputs = try VLMoFixtures.inputs(graph).mapValues { $0.rows(1..<2) }
    let mask = try #require(inputs["padding_mask"]?.integers)
    let tokens = try #require(mask.firstIndex(of: 1))
    #expect((2..<mask.count).contains(tokens), "the second text of the fixture is padded")
    let ids = try #require(inputs["text"]?.integers)
    inputs["text"] = TensorValue([1, tokens], integers: Array(ids[..<tokens]))
    inputs["padding_mask"] = nil
    let goldens = try VLMoFixtures.goldens(name)
    for (output, value) in try engine.run(graph, inputs) {
      let golden = try #require(goldens[output]).rows(1..<2).floats
      // Results for padded tokens have no counterpart.
      let expected = Array(golden[..<value.shape.elementCount])
      #expect(decibels(expected, value.floats) >= VLMoTests.floor, "\(output)")
      #expect(value.shape.elementCount == golden.count || output == "mlm_logits")
    }
  }

  @Test func longerTextsThanThereArePositionsAreRefused() throws {
    let graph = try VLMoFixtures.model("vqa").graph
    var inputs = try VLMoFixtures.inputs(graph)
    inputs["text"] = TensorValue([2, 9], integers: [Int](repeating: 5, count: 18))
    inputs["padding_mask"] = nil
    let error = #expect(throws: GraphError.self) { _ = try graph.bind(inputs) }
    #expect(error?.diagnosis.found.contains("9 tokens") == true)
  }

  /// Below the joint experts both pairs of embeddings, and above them both streams, read the same constants: nothing is stored twice.
  @Test func streamsShareTheirConstants() throws {
    let model = try VLMoFixtures.model("pretraining")
    var readers: [ConstantID: Int] = [:]
    for (_, id) in model.graph.nodes.flatMap(\.op.constants) { readers[id, default: 0] += 1 }
    func count(_ name: String) throws -> Int {
      let place = try #require(model.graph.constants.firstIndex { $0.name == name })
      return try #require(readers[ConstantID(place)])
    }
    // The joint pass has two streams; each modality alone goes once through the lower layers and twice through the upper.
    #expect(try count("layers.0.query.weight") == 4)
    #expect(try count("layers.3.query.weight") == 6)
    #expect(try count("layers.0.text.feed_forward_in.weight") == 2)
    #expect(try count("layers.3.text.feed_forward_in.weight") == 1)
    #expect(try count("layers.3.joint.feed_forward_in.weight") == 4)
    #expect(Set(model.graph.constants.map(\.name)).count == model.graph.constants.count)
  }
}

/// What of a file is recognised, and what is said where it does not fit.
@Suite struct VLMoKeyTests {
  private func load(_ tensors: [StoredTensor], heads: Int? = nil) throws -> Model {
    // Only the path and the metadata of the checkpoint are read.
    let checkpoint = try Fixtures.checkpoint("vlmo/features.pth")
    return try Architectures.load(
      StateDict(name: "", tensors: tensors), of: checkpoint, options: ModelOptions(heads: heads))
  }

  private func failure(_ tensors: [StoredTensor]) throws -> ModelError {
    try #require(#expect(throws: ModelError.self) { _ = try load(tensors) })
  }

  @Test(
    arguments: zip(
      VLMoFixtures.names,
      ["pretraining", "text_pretraining", "vqa", "nlvr2", "retrieval", "features", "vqa"]))
  func tasksAreFoundFromTheKeys(name: String, task: String) throws {
    let model = try VLMoFixtures.model(name)
    #expect(model.architecture == "vlmo")
    #expect(model.task == task)
    #expect(model.layout == "unilm")
    #expect((model.preprocessing == nil) == (task == "text_pretraining"))
  }

  /// Without an index the table's rows alone must tell image and text length; that is said.
  @Test func whatWasAssumedIsSaid() throws {
    for name in ["pretraining", "nlvr2", "retrieval", "features", "text_pretraining"] {
      #expect(try VLMoFixtures.model(name).assumptions.isEmpty)
    }
    let assumptions = try VLMoFixtures.model("vqa").assumptions
    #expect(assumptions.count == 1)
    #expect(assumptions.first?.contains("196 text tokens") == true)
    #expect(try load(try VLMoFixtures.tensors("absolute")).assumptions.first?.contains("--heads") == true)
  }

  /// Not even a table that was made for the length of the texts leaves rows for a square here.
  @Test func aTableThatTellsNoSizesIsAnError() throws {
    let rest = try VLMoFixtures.tensors("features").filter { $0.name != "relative_position_index" }
    let error = try failure(rest)
    #expect(error.code == .keysDoNotFit)
    #expect(error.diagnosis.tensor == "relative_position_bias_table")
  }

  /// A layout with the original's own index buffers comes out as it went in, to the byte.
  @Test(arguments: ["pretraining", "text_pretraining", "nlvr2", "retrieval", "features"])
  func theLayoutIsWrittenAsItWasRead(name: String) throws {
    let rendered = try VLMoFixtures.model(name).rendered(layout: "unilm", file: name)
    let original = Dictionary(uniqueKeysWithValues: try VLMoFixtures.tensors(name).map { (stripped($0.name), $0) })
    #expect(Set(rendered.tensors.map(\.key)).symmetricDifference(original.keys) == [])
    var materializer = Materializer(discardsSources: false)
    for tensor in rendered.tensors {
      let source = try #require(original[tensor.key])
      #expect(tensor.data.shape == source.shape && tensor.data.dtype == source.dtype, "\(tensor.key)")
      let expected = try source.contiguousBytes()
      let found = try materializer.bytes(of: tensor.data)
      #expect(found.array(of: UInt8.self) == expected.array(of: UInt8.self), "\(tensor.key)")
    }
  }

  private func stripped(_ key: String) -> String {
    key.hasPrefix("module.") ? String(key.dropFirst("module.".count)) : key
  }

  @Test func everyProblemIsInOneError() throws {
    var broken: [StoredTensor] = []
    for var tensor in try VLMoFixtures.tensors("vqa") {
      switch tensor.name {
      case "transformer.blocks.1.mlp_vl.fc2.bias": continue
      case "transformer.blocks.0.attn.qkv.weight": tensor.shape = [16, 48]
      case "transformer.blocks.0.norm2_imag.weight": tensor.name += ".renamed"
      case "token_type_embeddings.weight": tensor.shape = [2, 8]
      default: break
      }
      broken.append(tensor)
    }
    let error = try failure(broken)
    #expect(error.code == .keysDoNotFit)
    for line in [
      "transformer.blocks.1.mlp_vl.fc2.bias [16]", "transformer.blocks.0.norm2_imag.weight [16]",
      "transformer.blocks.0.attn.qkv.weight is [16, 48], expected [48, 16]",
      "transformer.blocks.0.norm2_imag.weight.renamed [16]", "token_type_embeddings.weight is [2, 8], expected [2, 16]",
    ] {
      #expect(error.diagnosis.found.contains("\n    \(line)"), "\(line): \(error)")
    }
  }

  /// Whichever key is missing, it is named, and nothing else is complained about.
  @Test(arguments: ["vqa", "nlvr2", "absolute"])
  func everyRequiredKeyIsMissedByItsName(name: String) throws {
    let all = try VLMoFixtures.tensors(name)
    for tensor in all where !optional(tensor.name) {
      let error = try failure(all.filter { $0.name != tensor.name })
      #expect("\(error)".contains(stripped(tensor.name)), "\(error)")
      #expect(!error.diagnosis.found.contains("unexpected"), "\(tensor.name) is missing: \(error)")
    }
  }

  /// Buffers, and what tells the kind or the options of a model: without it another model is understood, or another error made.
  private func optional(_ name: String) -> Bool {
    [
      "relative_position_index", "position_ids", "_classifier.3.weight", "relative_position_bias_table",
      "transformer.patch_embed.proj.weight", "blocks.0.attn.q_bias", "blocks.0.gamma_1", "blocks.1.mlp_vl.fc1.weight",
    ].contains { name.hasSuffix($0) }
  }

  /// An empty tensor may claim any dimension; sizes are never taken from one that no file could fill.
  @Test(arguments: [
    "transformer.patch_embed.proj.weight", "relative_position_bias_table", "token_type_embeddings.weight",
    "text_embeddings.word_embeddings.weight", "text_embeddings.position_embeddings.weight", "vqa_classifier.3.weight",
    "transformer.blocks.0.mlp_imag.fc1.weight",
  ])
  func absurdDimensionsAreErrors(name: String) throws {
    for huge in [1 << 15, 1 << 30, 1 << 40, 1 << 62] {
      let rest = try VLMoFixtures.tensors("vqa").filter { $0.name != name }
      let absurd = StoredTensor(name: name, dtype: .f32, shape: [huge, 0], elements: [Float]())
      let error = try failure(rest + [absurd])
      #expect([.keysDoNotFit, .unsupported].contains(error.code))
    }
  }

  @Test func aHeadThatIsNotSupportedIsNamedByItsKeys() throws {
    let head = StoredTensor(name: "snli_classifier.0.weight", dtype: .f32, shape: [2], elements: [Float(1), 2])
    let error = try failure(try VLMoFixtures.tensors("features") + [head])
    #expect(error.code == .unsupported)
    #expect(error.diagnosis.found.contains("snli_classifier.0.weight"))
    #expect(error.diagnosis.expected?.contains("vqa_classifier") == true)
  }

  @Test func whatOnlyTrainingReadsIsLeftOut() throws {
    let metric = StoredTensor(name: "val_vqa_score.score", dtype: .f32, shape: [], elements: [Float(1)])
    let model = try load(try VLMoFixtures.tensors("vqa") + [metric])
    #expect(model.notes.contains { $0.contains("metrics of training") })
  }

  /// Another image size resizes the one table and leaves its rows for texts alone.
  @Test(arguments: ["features", "absolute"])
  func anotherImageSize(name: String) throws {
    let checkpoint = try Fixtures.checkpoint("vlmo/\(name).pth")
    let model = try Architectures.load(
      try checkpoint.stateDict(), of: checkpoint, options: ModelOptions(heads: 2, imageSize: 40))
    #expect(model.summary.contains("40×40"))
    let outputs = try Engine.runtime.run(model.graph, randomInputs(for: model.graph, batch: 1))
    #expect(outputs.values.allSatisfy { $0.floats.allSatisfy(\.isFinite) })
    guard name == "features" else { return }
    let table = try #require(model.parameters["relative_bias.table"]).data
    #expect(table.shape == [9 * 9 + 3 + 2 + 20, 8])
    var materializer = Materializer(discardsSources: false)
    let (after, before) = (
      try materializer.floats(of: table),
      try #require(checkpoint.stateDict().tensors.first { $0.name == "relative_position_bias_table" }).floats()
    )
    #expect(after.suffix(25 * 8) == before.suffix(25 * 8))
  }
}
