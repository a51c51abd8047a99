import Foundation
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayTestSupport
import Testing

/// Models written as folders: with JSON files that say what no tensor does, whole or in shards.
@Suite struct FolderTests {
  private let bench: Workbench

  init() throws { bench = try Workbench() }

  @discardableResult
  private func convert(
    _ source: String, layout: String? = nil, dtype: DType? = nil, heads: Int? = nil, imageSize: Int? = nil,
    shardSize: Int? = nil, to name: String = "out/", overwrite: Bool = false
  ) throws -> ConversionReport {
    try Conversions.convert(
      try ModelFile.open(source), options: InputOptions(heads: heads, imageSize: imageSize), layout: layout,
      dtype: dtype,
      shardSize: shardSize, to: bench.folder.path("") + "/" + name, overwrite: overwrite)
  }

  private func json(_ name: String) throws -> JSONObject {
    try #require(try JSONParser.parse(try bench.folder.bytes("out/" + name)).object)
  }

  private static let family = [
    ("beit_classification/timm.safetensors", "huggingface"), ("beit_classification/huggingface", "timm"),
    ("beit_absolute/unilm.pth", "huggingface"), ("beit_absolute/unilm.pth", "timm"),
    ("beit_pretrained/unilm.pth", "huggingface"), ("beit_features/timm.safetensors", "huggingface"),
    ("vit_classification/timm.safetensors", "huggingface"), ("vit_layer_scale/timm.safetensors", "timm"),
    ("beit3_timm/timm.safetensors", "unilm"), ("beit3_timm/timm.safetensors", "timm"),
    ("data2vec_shared_bias/huggingface", "huggingface"), ("../tiny/segmentation/huggingface", "huggingface"),
    ("../tiny/heads/vqa.pth", "unilm"), ("../vlmo/vqa.pth", "unilm"),
  ]

  /// The number of heads, ε and the taps are in no shape: the folder says them, and the model computes the same bits.
  @Test(arguments: family)
  func theFolderComputesTheSameBits(source: String, layout: String) throws {
    let path = Fixtures.path("family/" + source)
    let heads = source.hasPrefix("vit") || source.hasPrefix("beit3") || source.hasPrefix("beit_absolute") ? 2 : nil
    let original = try LoadedModel(path: path, options: InputOptions(heads: heads))
    try convert(path, layout: layout, heads: heads)
    let copy = try LoadedModel(path: bench.folder.path("out"))
    #expect(copy.model?.layout == layout)
    #expect(copy.task == original.task)
    let inputs = randomInputs(for: original.graph, batch: 2)
    #expect(try Engine.runtime.run(copy.graph, inputs).bits == Engine.runtime.run(original.graph, inputs).bits)
    let config = try json("config.json")
    #expect(copy.assumptions.allSatisfy { !$0.contains("heads") })
    switch layout {
    case "timm":
      #expect(config["architecture"]?.string?.hasSuffix("_patch16_224") == true)
      #expect(config["model_args"]?["num_heads"]?.integer == config["num_attention_heads"]?.integer)
    case "huggingface": #expect(config["architectures"]?.array?.count == 1)
    default: #expect(config["architectures"] == nil && config["model_type"]?.string == original.model?.architecture)
    }
  }

  @Test func imagesArePreparedAsTheModelWasTrained() throws {
    try convert(Fixtures.path("tiny/classification.pth"), dtype: .bf16)
    var processor = try json("preprocessor_config.json")
    #expect(processor["image_mean"] == .array([.real(0.485), .real(0.456), .real(0.406)]))
    #expect(processor["resample"] == .integer(3))
    #expect(try json("config.json")["dtype"] == .string("bfloat16"))
    try convert(
      Fixtures.path("family/beit_classification/unilm.pth"), layout: "huggingface", imageSize: 20, overwrite: true)
    processor = try json("preprocessor_config.json")
    #expect(processor["image_std"] == .array([.real(0.5), .real(0.5), .real(0.5)]))
    #expect(processor["crop_size"] == .object(["height": .integer(20), "width": .integer(20)]))
    #expect(try json("config.json")["image_size"] == .integer(20))
  }

  /// What the source's own file says beyond sizes stays.
  @Test func labelsStay() throws {
    try convert(Fixtures.path("family/beit_classification/huggingface"), dtype: .f16)
    let config = try json("config.json")
    #expect(config["id2label"]?["3"]?.string == "class 3")
    #expect(config["dtype"] == .string("float16"))
  }

  @Test(arguments: [1, 20_000, 50_000, 10_000_000])
  func shardsHoldTheSameTensors(size: Int) throws {
    let source = Fixtures.path("tiny/classification.pth")
    try convert(source, shardSize: size)
    let expected = try Workbench.tensors(source)
    let found = try bench.tensors("out")
    #expect(found.keys.sorted() == expected.keys.sorted())
    for (name, tensor) in expected { #expect(try found[name]?.plainBytes == tensor.plainBytes, "\(name)") }
    let files = try FileManager.default.contentsOfDirectory(atPath: bench.folder.path("out")).sorted()
    let shards = files.filter { $0.hasPrefix("model") && $0.hasSuffix(".safetensors") }
    if size == 10_000_000 {
      #expect(files == ["config.json", "model.safetensors", "preprocessor_config.json"])
    } else {
      let index = try json("model.safetensors.index.json")
      #expect(index["metadata"]?["total_size"]?.integer == expected.values.reduce(0) { $0 + $1.byteCount })
      let map = try #require(index["weight_map"]?.object?.members)
      #expect(Set(map.compactMap(\.value.string)) == Set(shards))
      #expect(map.map(\.key) == map.map(\.key).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) })
      for shard in shards {
        let tensors = try CheckpointFormats.open(path: bench.folder.path("out/" + shard)).stateDict()
        #expect(tensors.byteCount <= size || tensors.tensors.count == 1)
      }
    }
    try convert(source, shardSize: size, to: "again/")
    for file in files {
      let isEqual = try bench.folder.bytes("out/" + file) == bench.folder.bytes("again/" + file)
      #expect(isEqual, "\(file)")
    }
  }

  @Test func nothingAppearsWhereSomethingIsWrong() throws {
    let source = Fixtures.path("tiny/classification.pth")
    let many = bench.folder.path("many.safetensors")
    let tensors = (0..<501).map { StoredTensor(name: "t\($0)", dtype: .f32, shape: [1], elements: [Float($0)]) }
    try SafetensorsWriter.write(tensors, to: many)
    let found = expect(CheckpointErrorCode.unrepresentable) { try convert(many, shardSize: 1) }
    #expect(found?.remedy?.contains("--shard-size") == true)
    expect(ConversionErrorCode.usage) { try convert(source, shardSize: 1000, to: "out.safetensors") }
    expect(FileErrorCode.cannotCreate) { try convert(source, to: "none/out/") }
    expect(ModelErrorCode.unsupported) { try convert(source, layout: "huggingface") }
    _ = try bench.artifact("tiny/classification", Recipes.int8, name: "model.gguf")
    expect(ConversionErrorCode.usage) { try convert(bench.folder.path("model.gguf")) }
    #expect(try bench.folder.names() == ["many.safetensors", "model.gguf"])
    // What is in a folder stays, unless it is asked to go.
    try convert(source)
    let before = try bench.folder.bytes("out/config.json")
    #expect(expect(FileErrorCode.exists) { try convert(source) }?.remedy?.contains("--force") == true)
    try convert(source, dtype: .f16, overwrite: true)
    let isSame = try bench.folder.bytes("out/config.json") == before
    #expect(!isSame)
    expect(FileErrorCode.cannotCreate) { try convert(bench.folder.path("out"), overwrite: true) }
  }

  @Test func anUnknownArchitectureHasNoConfiguration() throws {
    let path = bench.folder.path("stranger.safetensors")
    try SafetensorsWriter.write([StoredTensor(name: "w", dtype: .f32, shape: [1], elements: [Float(1)])], to: path)
    let report = try convert(path)
    #expect(report.notes.contains { $0.hasPrefix("no config.json: ") })
    #expect(try FileManager.default.contentsOfDirectory(atPath: bench.folder.path("out")) == ["model.safetensors"])
  }

  /// The model that a folder holds is replaced whole, in whatever form the old and the new one come.
  @Test func aFolderIsReplaced() throws {
    let source = Fixtures.path("tiny/classification.pth")
    let expected = try Workbench.tensors(source)
    for (size, dtype) in [(nil, nil), (20_000, nil), (50_000, DType.f16), (nil, nil)] as [(Int?, DType?)] {
      try convert(source, dtype: dtype, shardSize: size, overwrite: true)
      try convert(source, dtype: dtype, shardSize: size, to: "fresh/", overwrite: true)
      let names = try bench.folder.names(in: "out")
      #expect(names == (try bench.folder.names(in: "fresh")))
      for name in names {
        #expect(try bench.folder.bytes("out/" + name) == bench.folder.bytes("fresh/" + name), "\(name)")
      }
      #expect(try bench.tensors("out").keys.sorted() == expected.keys.sorted())
      try FileManager.default.removeItem(atPath: bench.folder.path("fresh"))
    }
  }

  /// With every call of the file system failing in turn: no folder, and no file in one.
  @Test(arguments: [FaultyDevice.Fault.error(ENOSPC), .error(EIO)])
  func theWholeFolderOrNone(fault: FaultyDevice.Fault) throws {
    let source = Fixtures.path("tiny/classification.pth")
    let sound = FaultyDevice(failing: nil)
    try OutputDevices.$current.withValue(sound) { try convert(source, shardSize: 100_000, to: "sound/") }
    #expect(sound.calls.count >= 20)
    for place in sound.calls.indices {
      #expect(throws: FileError.self, "\(sound.calls[place])") {
        try OutputDevices.$current.withValue(FaultyDevice(failing: place, with: fault)) {
          try convert(source, shardSize: 100_000)
        }
      }
      #expect(try bench.folder.names() == ["sound"], "\(fault) at \(sound.calls[place])")
    }
  }
}
