import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayTestSupport
import Testing

/// What is said of state dicts that do not fit: the nearest architecture, and what would mend them.
@Suite struct DoctorTests {
  private func tensors(_ name: String) throws -> [StoredTensor] {
    try Fixtures.checkpoint(name).stateDict().tensors
  }

  private func failure(
    _ tensors: [StoredTensor], sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> ModelError {
    let checkpoint = try Fixtures.checkpoint("tiny/containers/expected.safetensors")
    return try #require(
      #expect(throws: ModelError.self, sourceLocation: sourceLocation) {
        _ = try Architectures.load(
          StateDict(name: "", tensors: tensors), of: checkpoint, options: ModelOptions(heads: 2))
      })
  }

  private func renamed(_ tensors: [StoredTensor], _ rename: (String) -> String?) -> [StoredTensor] {
    tensors.compactMap { tensor in
      var tensor = tensor
      guard let name = rename(tensor.name) else { return nil }
      tensor.name = name
      return tensor
    }
  }

  @Test func theNearestArchitectureIsNamed() throws {
    // Without the patch projection nothing recognises it.
    let blind = renamed(try tensors("family/vit_classification/timm.safetensors")) {
      $0.hasPrefix("patch_embed") ? nil : $0
    }
    let error = try failure(blind)
    #expect(error.code == .unknownArchitecture)
    let found = error.diagnosis.found
    #expect(found.contains("nearest: vit in the timm layout"), "\(found)")
    #expect(found.contains("patch_embed.proj.weight"), "\(found)")
  }

  @Test func aForeignStateDictIsLikeNothing() throws {
    let foreign = ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight"].map {
      StoredTensor(name: $0, dtype: .f32, shape: [1], elements: [Float(0)])
    }
    let error = try failure(foreign)
    #expect(error.code == .unknownArchitecture)
    #expect(!error.diagnosis.found.contains("nearest"))
    #expect(error.diagnosis.expected?.contains("BEiT-3") == true)
  }

  @Test func prefixesOfTrainingFrameworksAreTakenOff() throws {
    let plain = try tensors("family/beit_classification/unilm.pth")
    let checkpoint = try Fixtures.checkpoint("family/beit_classification/unilm.pth")
    let wrapped = renamed(plain) { "module._orig_mod." + $0 }
    let model = try Architectures.load(StateDict(name: "", tensors: wrapped), of: checkpoint)
    let original = try Architectures.load(StateDict(name: "", tensors: plain), of: checkpoint)
    #expect(model.graph.description == original.graph.description)
    #expect(model.notes.contains { $0.contains("module._orig_mod.") })
  }

  @Test func twoModelsInOneFile() throws {
    let student = renamed(try tensors("family/beit_classification/timm.safetensors")) { "student." + $0 }
    let teacher = renamed(try tensors("family/vit_classification/timm.safetensors")) { "teacher." + $0 }
    let error = try failure(student + teacher)
    #expect(error.diagnosis.found.contains("2 models, under 'student.', 'teacher.'"), "\(error.diagnosis.found)")
  }

  /// A change of a good state dict, and a part of the advice that it must bring.
  struct Ailment: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var file: String
    var advice: String
    var change: @Sendable (StoredTensor) -> [StoredTensor]

    init(
      _ name: String, _ file: String, _ advice: String, _ change: @escaping @Sendable (StoredTensor) -> [StoredTensor]
    ) {
      testDescription = name
      self.file = file
      self.advice = advice
      self.change = change
    }
  }

  private static func called(_ tensor: StoredTensor, _ name: String) -> StoredTensor {
    var tensor = tensor
    tensor.name = name
    return tensor
  }

  static let ailments = [
    Ailment("text experts stripped", "tiny/heads/vqa.pth", "prune --keep vision") { tensor in
      tensor.name.contains(".B.") || tensor.name.contains("text_embed") ? [] : [tensor]
    },
    Ailment("some text experts missing", "tiny/heads/vqa.pth", "all of them or none") { tensor in
      tensor.name.hasSuffix("layers.0.ffn.B.fc1.weight") ? [] : [tensor]
    },
    Ailment("LoRA", "family/vit_classification/timm.safetensors", "merge_and_unload") { tensor in
      tensor.name == "blocks.0.attn.qkv.weight"
        ? [tensor, called(tensor, "blocks.0.attn.qkv.lora_A.default.weight")] : [tensor]
    },
    Ailment("ZeRO-3", "family/vit_classification/timm.safetensors", "zero_to_fp32") { tensor in
      tensor.name.hasPrefix("blocks.1.")
        ? [StoredTensor(name: tensor.name, dtype: .f32, shape: [0], elements: [Float]())] : [tensor]
    },
    Ailment("biases of another form", "family/beit_classification/timm.safetensors", "attn.q_bias") { tensor in
      tensor.name == "blocks.1.attn.q_bias" ? [called(tensor, "blocks.1.attn.qkv.bias")] : [tensor]
    },
    Ailment("tables of another size", "family/beit_classification/timm.safetensors", "--image-size") { tensor in
      tensor.name == "blocks.1.attn.relative_position_bias_table"
        ? [StoredTensor(name: tensor.name, dtype: .f32, shape: [84, 2], elements: [Float](repeating: 0, count: 168))]
        : [tensor]
    },
    Ailment("half a head", "tiny/classification.pth", "the head is incomplete") { tensor in
      tensor.name == "head.bias" ? [] : [tensor]
    },
    Ailment("trainer state", "family/vit_classification/timm.safetensors", "state_dict() alone") { tensor in
      tensor.name == "head.bias" ? [tensor, called(tensor, "optimizer.exp_avg.0")] : [tensor]
    },
  ]

  @Test(arguments: ailments)
  func adviceFitsTheAilment(of ailment: Ailment) throws {
    let error = try failure(try tensors(ailment.file).flatMap(ailment.change))
    #expect(error.code == .keysDoNotFit)
    #expect(error.diagnosis.remedy?.contains(ailment.advice) == true, "\(error.diagnosis.remedy ?? "no remedy")")
  }

  private static func scalar(_ name: String) -> StoredTensor {
    StoredTensor(name: name, dtype: .f32, shape: [1], elements: [Float(0)])
  }

  /// A stranger's file may have 65,536 keys of any length: advice comes from the first 10,000 whose length is ordinary, and so takes no longer.
  @Test func adviceLooksAtSoManyKeysOnly() throws {
    let blind = renamed(try tensors("family/vit_classification/timm.safetensors")) {
      $0.hasPrefix("patch_embed") ? nil : $0
    }
    let lora = DoctorTests.scalar("blocks.0.attn.qkv.lora_A.default.weight")
    let long = (0..<20_000).map { DoctorTests.scalar("\($0)" + String(repeating: ".lora_", count: 70)) }
    let ordinary = (0..<20_000).map { DoctorTests.scalar("key\($0)") }
    func advice(_ tensors: [StoredTensor]) throws -> (found: String, isLoRA: Bool) {
      let error = try failure(tensors)
      #expect(error.code == .unknownArchitecture)
      #expect(error.description.utf8.count < 10_000)
      return (error.diagnosis.found, error.diagnosis.remedy?.contains("merge_and_unload") == true)
    }
    // Long keys are as if they were not there.
    let plain = try advice(blind)
    let withLong = try advice(long + blind)
    #expect(!plain.isLoRA && !withLong.isLoRA)
    #expect(withLong.found.contains("nearest: vit in the timm layout"))
    #expect(withLong.found.split(separator: "\n").dropFirst() == plain.found.split(separator: "\n").dropFirst())
    #expect(try advice(long + [lora]).isLoRA)
    // Behind so many of ordinary length nothing is looked at.
    #expect(try advice(Array(ordinary.prefix(9_999)) + [lora]).isLoRA)
    #expect(try !advice(Array(ordinary.prefix(10_000)) + [lora]).isLoRA)
    #expect(try advice(ordinary + blind).found.contains("nearest") == false)
  }

  /// So does the list of keys that do not fit.
  @Test func theListOfKeysHasAnEnd() throws {
    let good = try tensors("family/vit_classification/timm.safetensors")
    let error = try failure(good + (0..<1500).map { DoctorTests.scalar("stranger.\($0)") })
    #expect(error.code == .keysDoNotFit)
    #expect(error.diagnosis.found.contains("unexpected (1500):\n    stranger.0 "))
    #expect(error.diagnosis.found.hasSuffix("stranger.999 [1]\n    and 500 more"))
  }

  /// No architecture has keys in other scripts, or of such a length: among good ones they are told, and nothing is looked for in them.
  @Test(arguments: ["stranger.é", String(repeating: "e\u{301}", count: 1000), String(repeating: "module.", count: 100)])
  func oneOddKey(name: String) throws {
    let good = try tensors("family/vit_classification/timm.safetensors")
    let error = try failure(good + [DoctorTests.scalar(name)])
    #expect(error.code == .unknownArchitecture)
    #expect(error.diagnosis.found.hasPrefix("no known architecture has keys such as \(name.prefix(10))"))
    #expect(error.diagnosis.found.contains("nearest: vit in the timm layout"))
    #expect(error.diagnosis.found.utf8.count < 2000)
    #expect(Architectures.recognize(good) != nil)
    #expect(Architectures.recognize(good + [DoctorTests.scalar(name)]) == nil)
  }

  @Test func manyModelsInOneFile() throws {
    let error = try failure((0..<12_000).map { DoctorTests.scalar("\($0).patch_embed.proj.weight") })
    #expect(error.diagnosis.found.contains("10000 models, under '0.', '1.', "), "\(error.diagnosis.found.prefix(100))")
    #expect(error.diagnosis.found.utf8.count < 1000)
  }
}
