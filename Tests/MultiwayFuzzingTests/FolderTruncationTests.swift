import Foundation
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayFuzzing
import MultiwayTestSupport
import Testing

extension TruncationTests {
  /// A folder of a model of which one file was cut short: an error, or, where the cut took nothing but white space or what is not read, the same.
  private func cutEachFile(of folder: TemporaryFolder, in name: String) throws {
    let path = folder.path(name)
    func read() throws -> [String] {
      let checkpoint = try CheckpointFormats.open(path: path)
      return try contents(checkpoint) + [JSONValue.object(checkpoint.metadata).text(indented: false)]
    }
    let whole = try read()
    var errors: Set<String> = []
    let files = try FileManager.default.subpathsOfDirectory(atPath: path).sorted().filter {
      !MultiwayCore.Folder.exists(path + "/" + $0)
    }
    for file in files {
      let bytes = try folder.bytes(name + "/" + file)
      let header = file.hasSuffix(".json") ? bytes.count : file.hasSuffix(".bin") ? 0 : headerSize(bytes)
      let places = cuts(bytes.count, header: header, edge: file.hasSuffix(".bin") ? 100 : 0)
      for cut in places {
        try folder.write(Array(bytes[..<cut]), to: name + "/" + file)
        let rest = try? read()
        #expect(rest == nil || rest == whole, "\(name)/\(file) cut to \(cut) of \(bytes.count) bytes")
        if file.hasSuffix(".safetensors") { #expect(rest == nil, "\(name)/\(file) cut to \(cut)") }
        if rest == nil { errors.insert(file) }
      }
      try folder.write(bytes, to: name + "/" + file)
    }
    // Of the formats in one folder only the first is read.
    #expect(errors == Set(files.filter { name != "both" || $0 != "pytorch_model.bin" }))
    #expect(try read() == whole)
  }

  @Test(arguments: ["plain", "total_size", "inner", "single", "both", "packed", "bin"])
  func folders(name: String) throws {
    let folder = try TemporaryFolder()
    try FileManager.default.copyItem(
      atPath: "\(FuzzedFixtures.package)/Formats/sharded/golden/\(name)", toPath: folder.path(name))
    // Two of them have an index that no loader looks for under that name.
    if name == "packed" {
      let index = folder.path("packed/model.safetensors.index.json")
      try FileManager.default.moveItem(atPath: folder.path("packed/index"), toPath: index)
    }
    try cutEachFile(of: folder, in: name)
  }

  /// A vision transformer of one block, as small as can be.
  private func model() throws -> [StoredTensor] {
    var generator = SeededGenerator(seed: 1)
    let shapes: [(String, Shape)] = [
      ("cls_token", [1, 1, 4]), ("pos_embed", [1, 5, 4]), ("patch_embed.proj.weight", [4, 3, 2, 2]),
      ("patch_embed.proj.bias", [4]), ("blocks.0.norm1.weight", [4]), ("blocks.0.norm1.bias", [4]),
      ("blocks.0.attn.qkv.weight", [12, 4]), ("blocks.0.attn.qkv.bias", [12]), ("blocks.0.attn.proj.weight", [4, 4]),
      ("blocks.0.attn.proj.bias", [4]), ("blocks.0.norm2.weight", [4]), ("blocks.0.norm2.bias", [4]),
      ("blocks.0.mlp.fc1.weight", [8, 4]), ("blocks.0.mlp.fc1.bias", [8]), ("blocks.0.mlp.fc2.weight", [4, 8]),
      ("blocks.0.mlp.fc2.bias", [4]), ("norm.weight", [4]), ("norm.bias", [4]), ("head.weight", [3, 4]),
      ("head.bias", [3]),
    ]
    return shapes.map { name, shape in
      let values = (0..<shape.elementCount).map { _ in Float.random(in: -1...1, using: &generator) }
      return StoredTensor(name: name, dtype: .f32, shape: shape, elements: values)
    }
  }

  /// What we write ourselves: shards with their index, and int8 weights in the form of compressed-tensors.
  @Test(arguments: [false, true]) func foldersOfOurOwn(isCompressed: Bool) throws {
    let folder = try TemporaryFolder()
    let tensors = try model()
    if isCompressed {
      let source = folder.path("source.safetensors")
      try SafetensorsWriter.write(tensors, to: source)
      _ = try Conversions.quantizeToFolder(
        try LoadedModel(path: source, options: InputOptions(heads: 2)), recipe: Recipes.int8, layout: nil,
        to: folder.path("out"), overwrite: false)
    } else {
      _ = try ModelFolderWriter.write(
        Array(tensors.prefix(8)), shardSize: 200, companions: [("config.json", ["num_attention_heads": .integer(2)])],
        to: folder.path("out"))
    }
    try cutEachFile(of: folder, in: "out")
  }
}
