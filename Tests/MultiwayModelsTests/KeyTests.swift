import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayTestSupport
import Testing

/// State dicts that do not fit: one error names every key that is wrong, as the checkpoint spells it.
@Suite struct KeyTests {
  private func tensors(_ name: String = "tiny/features") throws -> [StoredTensor] {
    try Fixtures.checkpoint(name + ".pth").stateDict().tensors
  }

  private func load(_ tensors: [StoredTensor], heads: Int? = nil) throws -> Model {
    // Only the path and the metadata of the checkpoint are read.
    let checkpoint = try Fixtures.checkpoint("tiny/containers/expected.safetensors")
    return try Architectures.load(
      StateDict(name: "", tensors: tensors), of: checkpoint, options: ModelOptions(heads: heads))
  }

  private func failure(
    _ tensors: [StoredTensor], heads: Int? = nil, sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> ModelError {
    try #require(
      #expect(throws: ModelError.self, sourceLocation: sourceLocation) { _ = try load(tensors, heads: heads) })
  }

  /// An empty tensor may claim any dimension; sizes are never taken from one that no file could fill.
  @Test(arguments: [
    "head.weight", "fc_norm.weight", "beit3.text_embed.weight", "beit3.encoder.embed_positions.B.weight",
    "beit3.encoder.embed_positions.A.weight", "beit3.vision_embed.proj.weight",
    "beit3.encoder.layers.0.ffn.A.fc1.weight",
  ])
  func absurdDimensionsAreErrors(name: String) throws {
    for huge in [1 << 30, 1 << 40, 1 << 62] {
      var changed = try tensors("tiny/classification")
      let place = try #require(changed.firstIndex { $0.name == name })
      changed[place] = StoredTensor(name: name, dtype: .f32, shape: [huge, 0], elements: [Float]())
      let error = try failure(changed)
      #expect([.keysDoNotFit, .unsupported].contains(error.code))
    }
  }

  @Test func everyProblemIsInOneError() throws {
    var broken: [StoredTensor] = []
    for var tensor in try tensors("tiny/classification") {
      switch tensor.name {
      case "beit3.encoder.layers.1.ffn.A.fc2.bias": continue
      case "beit3.encoder.layers.0.self_attn.k_proj.B.weight": tensor.name += ".renamed"
      case "beit3.encoder.layers.1.self_attn.v_proj.A.weight": tensor.shape = [16, 64]
      case "beit3.vision_embed.cls_token": tensor.shape = [32]
      case "beit3.encoder.layers.0.final_layer_norm.A.weight":
        tensor = StoredTensor(name: tensor.name, dtype: .i32, shape: [32], elements: [Int32](repeating: 1, count: 32))
      default: break
      }
      broken.append(tensor)
    }
    broken.append(StoredTensor(name: "stranger", dtype: .f32, shape: [2], elements: [Float(1), 2]))
    let error = try failure(broken)
    #expect(error.code == .keysDoNotFit)
    #expect(error.category == .data)
    let lines = error.diagnosis.found.split(separator: "\n").map { $0.trimmingPrefix(while: \.isWhitespace) }
    #expect(
      lines.dropFirst() == [
        "missing (2):", "beit3.encoder.layers.0.self_attn.k_proj.B.weight [32, 32]",
        "beit3.encoder.layers.1.ffn.A.fc2.bias [32]",
        "mis-shaped (3):", "beit3.vision_embed.cls_token is [32], expected [1, 1, 32]",
        "beit3.encoder.layers.0.final_layer_norm.A.weight has dtype I32, expected a floating-point type",
        "beit3.encoder.layers.1.self_attn.v_proj.A.weight is [16, 64], expected [32, 32]",
        "unexpected (2):", "beit3.encoder.layers.0.self_attn.k_proj.B.weight.renamed [32, 32]", "stranger [2]",
      ])
  }

  /// Whichever key is missing, it is named, and nothing else is complained about.
  @Test func everyRequiredKeyIsMissedByItsName() throws {
    let all = try tensors("tiny/classification")
    let optional: Set = ["beit3.vision_embed.mask_token"]
    // What tells the kind or the sizes of the model: without it there is another error, which names it too.
    let telling: Set = ["beit3.vision_embed.proj.weight", "fc_norm.weight", "head.weight"]
    for tensor in all where !telling.contains(tensor.name) {
      let rest = all.filter { $0.name != tensor.name }
      if optional.contains(tensor.name) {
        #expect(throws: Never.self) { _ = try load(rest) }
        continue
      }
      let error = try failure(rest)
      #expect(error.code == .keysDoNotFit)
      #expect(error.diagnosis.found.contains(tensor.name), "\(error)")
      #expect(!error.diagnosis.found.contains("unexpected"), "\(tensor.name) is missing: \(error)")
    }
  }

  @Test func textExpertsAreAllThereOrNone() throws {
    let all = try tensors("tiny/classification")
    let isText = { (name: String) in
      name.contains(".B.") || name.contains("text_embed")
    }
    let vision = all.filter { !isText($0.name) }
    #expect(vision.count < all.count)
    let model = try load(vision)
    #expect(model.graph.description == (try load(all).graph.description))
    let one = try #require(all.first { $0.name.hasSuffix("fc1.bias") && isText($0.name) })
    let error = try failure(vision + [one])
    let missing = all.filter { isText($0.name) && $0.name != one.name }
    #expect(!missing.isEmpty)
    for tensor in missing { #expect(error.diagnosis.found.contains(tensor.name)) }
  }

  @Test func keysWithoutAPrefixAreUnderstood() throws {
    let bare = try tensors().map { tensor in
      var tensor = tensor
      tensor.name = tensor.name.replacing("beit3.", with: "")
      return tensor
    }
    #expect(try load(bare).graph.description == load(try tensors()).graph.description)
    let error = try failure(bare.filter { $0.name != "encoder.layers.0.ffn.A.fc1.bias" })
    #expect(error.diagnosis.found.contains("\n    encoder.layers.0.ffn.A.fc1.bias [48]"))
  }

  @Test func anUnknownArchitectureIsNamedByItsKeys() throws {
    let stranger = StoredTensor(name: "conv1.weight", dtype: .f32, shape: [2], elements: [Float(1), 2])
    for tensors in [[stranger], []] {
      let error = try failure(tensors)
      #expect(error.code == .unknownArchitecture)
      #expect(error.diagnosis.found.contains(tensors.isEmpty ? "none at all" : "conv1.weight"))
      #expect(error.diagnosis.expected?.contains("BEiT-3") == true)
      #expect(error.diagnosis.remedy?.contains("convert") == true)
    }
  }

  @Test func aHeadThatIsNotSupportedIsNamedByItsKeys() throws {
    let all = try tensors("tiny/heads/vqa").map { tensor in
      var tensor = tensor
      if tensor.name.hasPrefix("head.") { tensor.name = "depth_" + tensor.name }
      return tensor
    }
    let error = try failure(all)
    #expect(error.code == .unsupported)
    for tensor in all where tensor.name.contains("head") { #expect(error.diagnosis.found.contains(tensor.name)) }
  }

  @Test func impossibleSizesAreErrors() throws {
    let all = try tensors()
    func with(_ key: String, _ shape: Shape) throws -> ModelError {
      try failure(
        all.map { tensor in
          var tensor = tensor
          if tensor.name == key { tensor.shape = shape }
          return tensor
        })
    }
    let cases: [(String, Shape)] = [
      ("beit3.vision_embed.proj.weight", [32, 3, 4, 5]), ("beit3.vision_embed.proj.weight", [32, 3, 0, 0]),
      ("beit3.vision_embed.proj.weight", [32, 48]), ("beit3.vision_embed.proj.weight", [0, 3, 4, 4]),
      ("beit3.encoder.embed_positions.A.weight", [11, 32]), ("beit3.encoder.embed_positions.A.weight", [0, 32]),
      ("beit3.encoder.embed_positions.A.weight", [3]), ("beit3.encoder.layers.0.ffn.A.fc1.weight", [48]),
      ("beit3.text_embed.weight", []), ("beit3.encoder.embed_positions.B.weight", [1, 32]),
      ("beit3.encoder.layers.0.ffn.A.fc1.weight", [1 << 30, 1 << 30]),
    ]
    for (key, shape) in cases {
      let error = try with(key, shape)
      #expect(error.category == .data)
      #expect("\(error)".contains(key), "\(shape): \(error)")
    }
  }

  @Test(arguments: [(0, false), (-2, false), (3, false), (1, true), (4, true), (32, true)])
  func headsMustDivideTheWidth(heads: Int, works: Bool) throws {
    if works {
      #expect(try load(try tensors(), heads: heads).graph.description.contains("heads=\(heads)"))
    } else {
      #expect(try failure(try tensors(), heads: heads).diagnosis.remedy?.contains("--heads") == true)
    }
  }

  @Test func whatWasAssumedIsSaid() throws {
    #expect(try Fixtures.model("tiny/features").assumptions.isEmpty, "the checkpoint's args tell the heads")
    let guessed = try load(try tensors())
    #expect(guessed.assumptions.count == 1)
    #expect(guessed.assumptions.first?.contains("--heads") == true)
  }
}
