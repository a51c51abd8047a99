import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph
import MultiwayKernels
import MultiwayModels
import MultiwayQuantization
import MultiwayTestSupport
import Testing

/// BEiT with an UperNet against transformers' `BeitForSemanticSegmentation`, in the keys of unilm and of transformers.
@Suite struct SegmentationTests {
  private static let folder = "tiny/segmentation/"
  /// 95 dB: see `GoldenTests`.
  private static let floor = 95.0

  private func load(_ file: String, taps: [Int]? = nil, imageSize: Int? = nil) throws -> Model {
    let checkpoint = try Fixtures.checkpoint(SegmentationTests.folder + file)
    return try Architectures.load(
      try checkpoint.stateDict(), of: checkpoint, options: ModelOptions(imageSize: imageSize, featureTaps: taps))
  }

  private func inputs() throws -> [String: TensorValue] {
    try Fixtures.values(SegmentationTests.folder + "inputs.safetensors")
  }

  private func golden(_ name: String) throws -> TensorValue {
    try #require(try Fixtures.values(SegmentationTests.folder + "outputs.safetensors")[name])
  }

  /// A file, the taps that are asked for, and whose logits they give. The two differ by 5 dB.
  private static let cases: [(file: String, taps: [Int]?, golden: String)] = [
    ("mmseg.pth", nil, "logits_unilm"), ("mmseg.pth", [0, 1, 2, 4], "logits_huggingface"),
    ("huggingface", nil, "logits_huggingface"), ("huggingface", [2, 3, 4, 6], "logits_unilm"),
    ("huggingface/model.safetensors", [2, 3, 4, 6], "logits_unilm"), ("huggingface5", nil, "logits_huggingface"),
  ]

  @Test(arguments: cases.indices, Engine.allCases)
  func logitsAreThoseOfTransformers(index: Int, engine: Engine) throws {
    let (file, taps, name) = SegmentationTests.cases[index]
    let model = try load(file, taps: taps)
    let logits = try #require(try engine.run(model.graph, try inputs())["logits"])
    let quality = decibels(try golden(name), logits)
    #expect(quality >= SegmentationTests.floor, "\(quality) dB")
  }

  @Test func theTapsAreSaidAndRecorded() throws {
    let unilm = try load("mmseg.pth")
    #expect(unilm.task == "segmentation" && unilm.layout == "unilm")
    #expect(unilm.summary.hasSuffix("semantic segmentation (7 classes)"))
    #expect(unilm.hyperparameters.first { $0.name == "segmentation.taps" }?.value == .text("2,3,4,6"))
    #expect(unilm.assumptions == ["feature maps taken after blocks 2, 3, 4, 6, as unilm does; choose with --taps"])
    #expect(unilm.preprocessing?.mean == ImagePreprocessing.imageNetMean)
    let huggingFace = try load("huggingface")
    #expect(huggingFace.hyperparameters.first { $0.name == "segmentation.taps" }?.value == .text("0,1,2,4"))
    #expect(
      huggingFace.assumptions.first
        == "feature maps taken after blocks 0, 1, 2, 4, as transformers reads out_indices 1, 2, 3, 5; models of unilm were "
        + "trained with 2, 3, 4, 6: choose with --taps")
    #expect(try load("mmseg.pth", taps: [1, 2, 3, 4]).assumptions.isEmpty)
  }

  @Test(arguments: [[], [1, 2, 3], [1, 2, 3, 7], [-1, 2, 3, 4], [1, 2, 3, 4, 5], [Int.min, 0, 0, 0]])
  func impossibleTapsAreErrors(taps: [Int]) {
    let error = #expect(throws: ModelError.self) { _ = try load("mmseg.pth", taps: taps) }
    #expect(error?.code == .unsupported)
    #expect(error?.diagnosis.expected == "4 numbers of blocks from 0 to 6")
  }

  @Test func tapsWithoutADecoderAreAnError() throws {
    let checkpoint = try Fixtures.checkpoint("family/beit_classification/unilm.pth")
    let error = #expect(throws: ModelError.self) {
      _ = try Architectures.load(
        try checkpoint.stateDict(), of: checkpoint, options: ModelOptions(heads: 2, featureTaps: [1, 1, 2, 2]))
    }
    #expect(error?.code == .unsupported)
  }

  /// Both layouts hold the same weights: with the same taps they give the same graph and bits.
  @Test func layoutsGiveTheSameBits() throws {
    let (unilm, huggingFace) = (try load("mmseg.pth"), try load("huggingface", taps: [2, 3, 4, 6]))
    #expect(unilm.graph.description == huggingFace.graph.description)
    #expect(try load("huggingface5", taps: [2, 3, 4, 6]).graph.description == unilm.graph.description)
    let expected = try runtimeOutputs(unilm.graph, try inputs(), isa: .scalar, threads: 1).bits
    for isa in ISA.supported {
      for threads in [1, 3] {
        #expect(try runtimeOutputs(huggingFace.graph, try inputs(), isa: isa, threads: threads).bits == expected)
      }
    }
    // An example's logits do not depend on its neighbours.
    let second = try inputs().mapValues { $0.rows(1..<2) }
    let alone = try runtimeOutputs(unilm.graph, second, isa: .best, threads: 2)
    #expect(alone["logits"]?.bits == expected["logits"].map { Array($0.suffix($0.count / 2)) })
  }

  /// What one layout writes the other holds, down to the counters and the head that only training reads.
  @Test(arguments: [("mmseg.pth", "huggingface"), ("huggingface", "unilm")])
  func layoutsAndBack(file: String, other: String) throws {
    let model = try load(file)
    let checkpoint = try Fixtures.checkpoint(SegmentationTests.folder + file)
    let stored = try checkpoint.stateDict().tensors
    let there = try tensors(try model.rendered(layout: other, file: "there"))
    let theirs = try Fixtures.checkpoint(SegmentationTests.folder + (other == "unilm" ? "mmseg.pth" : "huggingface"))
    try expectEqual(there, try theirs.stateDict().tensors)
    let second = try Architectures.load(StateDict(name: "", tensors: there), of: checkpoint)
    try expectEqual(try tensors(try second.rendered(layout: model.layout, file: "back")), stored)
  }

  private func expectEqual(_ tensors: [StoredTensor], _ expected: [StoredTensor]) throws {
    let originals = Dictionary(uniqueKeysWithValues: expected.map { ($0.name, $0) })
    #expect(Set(tensors.map(\.name)) == Set(originals.keys))
    for tensor in tensors {
      let original = try #require(originals[tensor.name])
      #expect(tensor.shape == original.shape && tensor.dtype == original.dtype, "\(tensor.name)")
      let isEqual =
        try tensor.contiguousBytes().array(of: UInt8.self) == original.contiguousBytes().array(of: UInt8.self)
      #expect(isEqual, "\(tensor.name)")
    }
  }

  private func tensors(_ rendered: RenderedStateDict) throws -> [StoredTensor] {
    var materializer = Materializer(discardsSources: false)
    return try rendered.tensors.map { tensor in
      StoredTensor(
        name: tensor.key, dtype: tensor.data.dtype, shape: tensor.data.shape,
        storage: MemoryStorage(try materializer.bytes(of: tensor.data)))
    }
  }

  /// An odd number of patches a side: the coarsest level is rounded down, and maps meet at sizes that are no multiples.
  @Test func anotherImageSizeRuns() throws {
    let model = try load("mmseg.pth", imageSize: 80)
    let inputs = randomInputs(for: model.graph, batch: 1)
    let expected = try #require(try Engine.reference.run(model.graph, inputs)["logits"])
    #expect(expected.shape == [1, 7, 20, 20])
    #expect(decibels(expected, try #require(try Engine.runtime.run(model.graph, inputs)["logits"])) >= 95)
  }

  /// Blocks behind the last tap are not computed; their weights stay in the file.
  @Test func theGraphEndsAtTheLastTap() throws {
    let model = try load("huggingface")
    let layers = Set(
      model.graph.values.compactMap { $0.name.hasPrefix("layers.") ? $0.name.split(separator: ".")[1] : nil })
    #expect(layers == ["0", "1", "2", "3"])
    #expect(model.parameters["layers.5.vision.query.weight"] != nil)
    // Taps may be the same block, or the embedding alone.
    let shallow = try load("mmseg.pth", taps: [0, 0, 0, 0])
    #expect(!shallow.graph.values.contains { $0.name.hasPrefix("layers.") })
    #expect(try Engine.runtime.run(shallow.graph, try inputs())["logits"]?.shape == [2, 7, 24, 24])
  }

  /// One patch a side leaves nothing for the coarsest level.
  @Test func anImageThatIsTooSmallIsAnError() {
    #expect(throws: ModelError.self) { _ = try load("mmseg.pth", imageSize: 16) }
  }

  /// A change of the keys, and a part of the error.
  private static let faults: [(change: @Sendable (inout [StoredTensor]) -> Void, error: String)] = [
    (
      { $0.removeAll { $0.name == "decode_head.bottleneck.bn.running_var" } },
      "decode_head.bottleneck.bn.running_var [16]"
    ),
    ({ $0.removeAll { $0.name == "backbone.fpn2.0.bias" } }, "backbone.fpn2.0.bias [16]"),
    ({ $0.removeAll { $0.name == "auxiliary_head.conv_seg.bias" } }, "auxiliary_head.conv_seg.bias [7]"),
    ({ $0.removeAll { $0.name.hasPrefix("decode_head.psp_modules.3.") } }, "3 pools with the scales [1, 2, 3, 6]"),
    ({ $0.rename("decode_head.fpn_convs.1.conv.weight", "decode_head.fpn_convs.7.conv.weight") }, "unexpected (1)"),
    (
      { $0.reshape("decode_head.fpn_bottleneck.conv.weight", [64, 16, 3, 3]) },
      "is [64, 16, 3, 3], expected [16, 64, 3, 3]"
    ),
    (
      { $0.expand("backbone.patch_embed.proj.weight", [1 << 21, 3, 16, 16]) },
      "a segmentation decoder of 2097152 channels"
    ),
    ({ $0.expand("decode_head.conv_seg.weight", [1 << 40, 16, 1, 1]) }, "none of them 0"),
    ({ $0.reshape("decode_head.conv_seg.weight", [7, 16]) }, "the shape is [7, 16]"),
    ({ $0.reshape("decode_head.conv_seg.weight", [7, 4, 2, 2]) }, "is [7, 4, 2, 2], expected [7, 16, 1, 1]"),
  ]

  @Test(arguments: faults.indices)
  func keysThatDoNotFitAreErrors(index: Int) throws {
    let (change, expected) = SegmentationTests.faults[index]
    let checkpoint = try Fixtures.checkpoint(SegmentationTests.folder + "mmseg.pth")
    var tensors = try checkpoint.stateDict().tensors
    change(&tensors)
    let error = #expect(throws: ModelError.self) {
      _ = try Architectures.load(StateDict(name: "", tensors: tensors), of: checkpoint)
    }
    #expect(error?.description.contains(expected) == true, "\(String(describing: error))")
  }

  /// Files without the auxiliary head, as after stripping for inference, are complete.
  @Test func theAuxiliaryHeadMayBeAbsent() throws {
    let checkpoint = try Fixtures.checkpoint(SegmentationTests.folder + "mmseg.pth")
    let tensors = try checkpoint.stateDict().tensors.filter {
      !$0.name.hasPrefix("auxiliary_head.") && !$0.name.hasSuffix("num_batches_tracked")
    }
    let model = try Architectures.load(StateDict(name: "", tensors: tensors), of: checkpoint)
    #expect(model.graph.description == (try load("mmseg.pth")).graph.description)
  }
}

extension [StoredTensor] {
  fileprivate mutating func rename(_ name: String, _ other: String) {
    for index in indices where self[index].name == name { self[index].name = other }
  }

  /// A view that repeats one element: its shape may claim anything.
  fileprivate mutating func expand(_ name: String, _ shape: Shape) {
    for index in indices where self[index].name == name {
      self[index].shape = shape
      self[index].strides = shape.dimensions.map { _ in 0 }
    }
  }

  fileprivate mutating func reshape(_ name: String, _ shape: Shape) {
    for index in indices where self[index].name == name {
      self[index].shape = shape
      self[index].strides = shape.contiguousStrides
    }
  }
}
