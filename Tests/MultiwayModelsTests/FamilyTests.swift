import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayQuantization
import MultiwayTestSupport
import Testing

/// The models of the family beside unilm's BEiT-3, in every key layout, against the code base that each layout belongs to.
@Suite struct FamilyTests {
  /// 95 dB: see `GoldenTests`.
  private static let floor = 95.0

  /// A checkpoint of one of the models in `Tests/Fixtures/family`, and the file of its outputs.
  struct Case: Sendable, CustomTestStringConvertible {
    var model: String
    var file: String
    var outputs = "outputs.safetensors"
    /// Where no key tells it.
    var heads: Int?
    var testDescription: String { "\(model)/\(file)" }

    func load(imageSize: Int? = nil) throws -> Model {
      let checkpoint = try Fixtures.checkpoint("family/\(model)/\(file)")
      return try Architectures.load(
        try checkpoint.stateDict(), of: checkpoint, options: ModelOptions(heads: heads, imageSize: imageSize))
    }
  }

  static let cases =
    [
      ("beit_classification", ["unilm.pth", "unilm_module.pth", "timm.safetensors", "huggingface", "huggingface5"]),
      ("beit_absolute", ["unilm.pth", "timm.safetensors", "huggingface"]),
      ("beit_pretrained", ["unilm.pth", "unilm_v2.pth", "huggingface", "huggingface_bin"]),
      ("beit_features", ["timm.safetensors", "huggingface", "huggingface_without_pooler"]),
      ("beit_epsilon", ["unilm.pth", "huggingface"]), ("vit_classification", ["timm.safetensors", "huggingface"]),
      ("vit_layer_scale", ["timm.safetensors"]), ("vit_features", ["huggingface", "huggingface5"]),
      ("data2vec_classification", ["huggingface"]), ("data2vec_shared_bias", ["huggingface"]),
      ("data2vec_both_biases", ["huggingface"]), ("beit3_timm", ["timm.safetensors"]),
      ("beit3_features", ["timm.safetensors"]),
    ].flatMap { model, files in files.map { Case(model: model, file: $0, heads: 2) } } + [
      Case(
        model: "beit_epsilon", file: "huggingface_eps12", outputs: "outputs_huggingface_eps12.safetensors", heads: 2)
    ]

  @Test(arguments: cases, Engine.allCases)
  func outputsAreThoseOfTheCodeBase(of item: Case, engine: Engine) throws {
    let folder = "family/\(item.model)/"
    let goldens = try Fixtures.values(folder + item.outputs)
    let outputs = try engine.run(try item.load().graph, try Fixtures.values(folder + "inputs.safetensors"))
    #expect(!outputs.isEmpty)
    for (output, value) in outputs {
      let golden = try #require(goldens[output], "no golden for \(output)")
      let quality = decibels(golden, value)
      #expect(quality >= FamilyTests.floor, "\(output): \(quality) dB")
    }
  }

  /// Even where two code bases have the same keys, the file tells whose it is.
  @Test(arguments: cases)
  func theLayoutIsThatOfTheFile(of item: Case) throws {
    let layouts = ["unilm", "timm", "huggingface"]
    let expected = try #require(layouts.first { item.file.hasPrefix($0) })
    #expect(try item.load().layout == expected)
  }

  /// The heads of tiny models are of 64, narrow as they are; no bias table tells it of a ViT.
  @Test(arguments: [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16)])
  func headsOfReleasedWidths(width: Int, heads: Int) throws {
    let checkpoint = try Fixtures.checkpoint("family/vit_classification/timm.safetensors")
    let tensors = [
      ("cls_token", Shape([1, 1, width])), ("pos_embed", [1, 5, width]), ("patch_embed.proj.weight", [width, 1, 2, 2]),
      ("patch_embed.proj.bias", [width]), ("norm.weight", [width]), ("norm.bias", [width]),
      ("blocks.0.norm1.weight", [width]), ("blocks.0.norm1.bias", [width]), ("blocks.0.norm2.weight", [width]),
      ("blocks.0.norm2.bias", [width]), ("blocks.0.attn.qkv.weight", [3 * width, width]),
      ("blocks.0.attn.qkv.bias", [3 * width]), ("blocks.0.attn.proj.weight", [width, width]),
      ("blocks.0.attn.proj.bias", [width]), ("blocks.0.mlp.fc1.weight", [8, width]), ("blocks.0.mlp.fc1.bias", [8]),
      ("blocks.0.mlp.fc2.weight", [width, 8]), ("blocks.0.mlp.fc2.bias", [width]),
    ].map { name, shape in
      StoredTensor(name: name, dtype: .f32, shape: shape, elements: [Float](repeating: 0, count: shape.elementCount))
    }
    let model = try Architectures.load(StateDict(name: "", tensors: tensors), of: checkpoint)
    #expect(model.hyperparameters.first { $0.name == "attention.head_count" }?.value == .integer(heads))
    #expect(model.assumptions.isEmpty)
  }

  /// The same weights give the same graph and, with the same ε, the same bits, whatever layout they came in.
  @Test(arguments: ["beit_classification", "beit_absolute", "beit_pretrained", "vit_classification"])
  func layoutsGiveTheSameBits(model: String) throws {
    let inputs = try Fixtures.values("family/\(model)/inputs.safetensors")
    let items = FamilyTests.cases.filter { $0.model == model }
    let first = try items[0].load()
    let expected = try Engine.runtime.run(first.graph, inputs)
    for item in items.dropFirst() {
      let other = try item.load()
      #expect(other.graph.description == first.graph.description, "\(item.file)")
      #expect(try Engine.runtime.run(other.graph, inputs).bits == expected.bits, "\(item.file)")
    }
  }

  /// From one layout to another and back, every tensor has the bytes that it had.
  @Test(arguments: cases)
  func layoutsAndBack(of item: Case) throws {
    let model = try item.load()
    let checkpoint = try Fixtures.checkpoint("family/\(item.model)/\(item.file)")
    for layout in model.layouts.map(\.layout) where layout != model.layout {
      let there = try tensors(try model.rendered(layout: layout, file: "there"))
      let second = try Architectures.load(
        StateDict(name: "", tensors: there), of: checkpoint, options: ModelOptions(heads: item.heads))
      let back = try tensors(try second.rendered(layout: model.layout, file: "back"))
      let own = try tensors(try model.rendered(layout: model.layout, file: "own"))
      let original = Dictionary(uniqueKeysWithValues: own.map { ($0.name, $0) })
      for tensor in back {
        let before = try #require(original[tensor.name], "\(tensor.name) is new")
        #expect(tensor.shape == before.shape)
        #expect(tensor.dtype == before.dtype)
        #expect(try tensor.contiguousBytes().array(of: UInt8.self) == before.contiguousBytes().array(of: UInt8.self))
      }
      // What timm has no place for stays behind, and nothing else.
      let lost = Set(original.keys).subtracting(back.map(\.name))
      #expect(lost.allSatisfy { $0.hasSuffix("mask_token") || $0.hasPrefix("pooler.") }, "\(lost.sorted())")
    }
  }

  /// A state dict that is rendered in its own layout holds the file's tensors, byte for byte.
  @Test(arguments: cases)
  func theOwnLayoutIsTheFile(of item: Case) throws {
    let model = try item.load()
    // Names that transformers 5 has in memory, and layers that serve only pretraining, are read and not written.
    guard !["huggingface5", "unilm_v2.pth"].contains(item.file) else { return }
    // transformers wrote index buffers into its older files, and leaves them out today.
    let stored = try Fixtures.checkpoint("family/\(item.model)/\(item.file)").stateDict().tensors.filter {
      model.layout != "huggingface" || !$0.name.hasSuffix("relative_position_index")
    }
    let rendered = try tensors(try model.rendered(layout: model.layout, file: "own"))
    #expect(Set(rendered.map(\.name)) == Set(stored.map(\.name)))
    let original = Dictionary(uniqueKeysWithValues: stored.map { ($0.name, $0) })
    for tensor in rendered {
      let before = try #require(original[tensor.name])
      #expect(tensor.shape == before.shape && tensor.dtype == before.dtype, "\(tensor.name)")
      #expect(try tensor.contiguousBytes().array(of: UInt8.self) == before.contiguousBytes().array(of: UInt8.self))
    }
  }

  /// Another image size changes positions and tables alone, and the model runs on it.
  @Test(arguments: ["beit_classification", "beit_absolute", "vit_classification", "beit_pretrained"])
  func anotherImageSize(model name: String) throws {
    let item = try #require(FamilyTests.cases.first { $0.model == name })
    let small = try item.load()
    let size = try #require(small.preprocessing).size
    let large = try item.load(imageSize: size + 32)
    #expect(large.preprocessing?.size == size + 32)
    let inputs = randomInputs(for: large.graph, batch: 1)
    #expect(inputs["image"]?.shape == [1, 3, size + 32, size + 32])
    let outputs = try Engine.runtime.run(large.graph, inputs)
    let reference = try Engine.reference.run(large.graph, inputs)
    for (name, value) in outputs { #expect(decibels(try #require(reference[name]), value) >= FamilyTests.floor) }
    #expect(throws: ModelError.self) { _ = try item.load(imageSize: size + 1) }
  }

  private func tensors(_ rendered: RenderedStateDict) throws -> [StoredTensor] {
    var materializer = Materializer(discardsSources: false)
    return try rendered.tensors.map { tensor in
      StoredTensor(
        name: tensor.key, dtype: tensor.data.dtype, shape: tensor.data.shape,
        storage: MemoryStorage(try materializer.bytes(of: tensor.data)))
    }
  }
}
