import Foundation
import MultiwayCheckpoint
import MultiwayCore
import Testing

/// Checkpoints in several files, and folders of models.
@Suite struct ShardedTests {
  private let folder: TemporaryFolder
  private let golden = "\(repositoryRoot)/Formats/sharded/golden"

  init() throws { folder = try TemporaryFolder() }

  private func write(_ name: String, _ text: String) throws { _ = try folder.write(Array(text.utf8), as: name) }

  /// Writes a safetensors file of fp32 tensors with one element each.
  private func shard(_ name: String, _ tensors: [String]) throws {
    try SafetensorsWriter.write(
      tensors.map { StoredTensor(name: $0, dtype: .f32, shape: [1], elements: [Float(1)]) }, to: folder.file(name),
      overwrite: true)
  }

  private func index(_ map: [(String, String)]) throws -> String {
    let members = map.map { "\"\($0.0)\": \"\($0.1)\"" }.joined(separator: ", ")
    try write("index.json", "{\"weight_map\": {\(members)}}")
    return folder.file("index.json")
  }

  private func error(_ path: String) throws -> CheckpointError {
    do {
      try readEverything(path)
    } catch let error as CheckpointError {
      return error
    }
    return CheckpointError(.unrecognized, "it was opened")
  }

  @Test func oneCheckpointOfSeveralFiles() throws {
    let checkpoint = try CheckpointFormats.open(path: golden + "/plain/model.safetensors.index.json")
    #expect(checkpoint.format == "safetensors, 2 shards")
    let dict = try checkpoint.stateDict()
    #expect(dict.tensors.map(\.name) == ["embed.weight", "layers.0.bias", "layers.1.bias", "norm.weight"])
    #expect(checkpoint.metadata.members.isEmpty)
    #expect(checkpoint.notes.isEmpty)
    let files = [
      "model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    ]
    let mapped = try files.map { try MappedFile(path: golden + "/plain/" + $0) }
    #expect(checkpoint.identities == mapped.map(\.identity))
    #expect(checkpoint.byteCount == mapped.reduce(0) { $0 + $1.byteCount })
    let asFolder = try CheckpointFormats.open(path: golden + "/plain")
    #expect(asFolder.format == checkpoint.format)
    #expect(asFolder.path == golden + "/plain")
    #expect(asFolder.identities == checkpoint.identities)
  }

  /// An output may replace none of the files, nor the index.
  @Test func outputsThatAreInputs() throws {
    try shard("1", ["a"])
    try shard("2", ["b"])
    let checkpoint = try CheckpointFormats.open(path: try index([("a", "1"), ("b", "2")]))
    let tensors = try checkpoint.stateDict().tensors
    for name in ["1", "2", "index.json"] {
      #expect(throws: FileError.self) {
        try SafetensorsWriter.write(tensors, to: folder.file(name), overwrite: true, inputs: checkpoint.identities)
      }
    }
    try SafetensorsWriter.write(tensors, to: folder.file("3"), overwrite: true, inputs: checkpoint.identities)
  }

  @Test func formats() throws {
    func format(_ path: String) throws -> String { try CheckpointFormats.open(path: golden + path).format }
    #expect(try format("/packed/index") == "zstd of safetensors, 2 shards")
    #expect(try format("/bin/pytorch_model.bin.index.json") == "PyTorch zip, 2 shards")
    #expect(try format("/single") == "safetensors")
  }

  /// The same weights give the same bytes from one file, from shards, packed, and from a folder.
  @Test func sameTensorsFromAnywhere() throws {
    func read(_ path: String) throws -> [String: [UInt8]] {
      Dictionary(uniqueKeysWithValues: try readEverything(golden + path).map { ($0.tensor.name, $0.bytes) })
    }
    let whole = try read("/single/model.safetensors")
    #expect(whole.count == 4)
    for path in ["/single", "/plain", "/plain/model.safetensors.index.json", "/packed/index", "/inner", "/total_size"] {
      #expect(try read(path) == whole)
    }
  }

  @Test func configurationBesideIt() throws {
    for path in [golden + "/single", golden + "/single/model.safetensors"] {
      let checkpoint = try CheckpointFormats.open(path: path)
      #expect(checkpoint.metadata["config"]?["num_attention_heads"] == .integer(12))
      #expect(checkpoint.metadata["preprocessor_config"]?["size"] == .integer(224))
      #expect(checkpoint.notes.contains { $0.contains("config.json") })
    }
    // A file of another name has nothing to do with what lies beside it.
    try shard("other.safetensors", ["a"])
    try write("config.json", "no JSON")
    #expect(try CheckpointFormats.open(path: folder.file("other.safetensors")).metadata["config"] == nil)
    try shard("model.safetensors", ["a"])
    #expect(try error(folder.file("model.safetensors")).diagnosis.file == folder.file("config.json"))
    #expect(try error(folder.path).code == .malformed)
  }

  /// Everything that is wrong with a set is told in one error.
  @Test func everythingAtOnce() throws {
    try shard("1", ["a", "extra", "twice"])
    try shard("2", ["b", "twice"])
    let path = try index([
      ("a", "1"), ("absent", "1"), ("b", "2"), ("twice", "2"), ("c", "3"), ("d", "4"), ("e", "../5"), ("f", "/6"),
      ("g", "index.json"),
    ])
    let error = try error(path)
    #expect(error.code == .leavesFolder)
    #expect(error.diagnosis.file == path)
    for word in ["'../5', '/6'", "'3', '4'", "'index.json'", "absent in 1", "extra in 1", "twice in 1 and 2"] {
      #expect(error.diagnosis.found.contains(word), "\(word)")
    }
  }

  @Test func links() throws {
    let files = FileManager.default
    try files.createDirectory(atPath: folder.file("blobs"), withIntermediateDirectories: true)
    try files.createDirectory(atPath: folder.file("snapshots/main/sub"), withIntermediateDirectories: true)
    try shard("blobs/0a1b", ["a"])
    try shard("outside", ["a"])
    try write("blobs/2c3d", #"{"weight_map": {"a": "x"}}"#)
    func link(_ name: String, _ target: String) throws {
      let path = folder.file("snapshots/main/" + name)
      try? files.removeItem(atPath: path)
      try files.createSymbolicLink(atPath: path, withDestinationPath: target)
    }
    func code(_ target: String, _ name: String = "x") throws -> CheckpointErrorCode? {
      try link(name, target)
      return errorCode { try readEverything(folder.file("snapshots/main/index.json")) }
    }
    // As Hugging Face's cache has it, the index a link too.
    try link("index.json", "../../blobs/2c3d")
    #expect(try code("../../blobs/0a1b") == nil)
    #expect(try code("../../outside") == .leavesFolder)
    #expect(try code("../../blobs/../outside") == .leavesFolder)
    #expect(try code("../blobs/0a1b") == .leavesFolder)
    #expect(try code(folder.file("blobs/0a1b")) == .leavesFolder)
    #expect(try code("/etc/hostname") == .leavesFolder)
    #expect(try code("..") == .leavesFolder)
    #expect(try code("nothing") == .missingRecord)
    #expect(try code("../../blobs/nothing") == .missingRecord)
    #expect(try code("x") == .leavesFolder)
    // A link to a link, within the folder and among the blobs.
    try link("y", "../../blobs/0a1b")
    #expect(try code("y") == .leavesFolder)
    try files.createSymbolicLink(atPath: folder.file("blobs/link"), withDestinationPath: "../outside")
    #expect(try code("../../blobs/link") == .leavesFolder)
    // A link to a file of the same folder.
    try shard("snapshots/main/here", ["a"])
    #expect(try code("here") == nil)
    // A folder that is a link, and a file in a folder of the snapshot.
    try write("blobs/2c3d", #"{"weight_map": {"a": "sub/x"}}"#)
    #expect(try code("../../../blobs/0a1b", "sub/x") == nil)
    #expect(try code("../../blobs/0a1b", "sub/x") == .leavesFolder)
    try files.removeItem(atPath: folder.file("snapshots/main/sub"))
    try files.createDirectory(atPath: folder.file("elsewhere"), withIntermediateDirectories: true)
    try shard("elsewhere/x", ["a"])
    #expect(try code("../../elsewhere", "sub") == .leavesFolder)
    // The weights and the configuration of a folder are opened with the same care.
    try link("model.safetensors", "../../outside")
    #expect(throws: FileError.self) { try CheckpointFormats.open(path: folder.file("snapshots/main")) }
    try link("model.safetensors", "../../blobs/0a1b")
    try link("config.json", "../../outside")
    #expect(try error(folder.file("snapshots/main")).code == .leavesFolder)
  }

  /// Damage to an index gives an error or a checkpoint, whatever it says.
  @Test func damagedIndex() throws {
    for name in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
      _ = try folder.write(try contents(of: golden + "/plain/" + name), as: name)
    }
    let bytes = try contents(of: golden + "/plain/model.safetensors.index.json")
    for position in bytes.indices {
      for bit in [0, 2, 5, 7] {
        var damaged = bytes
        damaged[position] ^= 1 << UInt8(bit)
        _ = errorCode { try readEverything(try folder.write(damaged, as: "index.json")) }
      }
      let cut = try folder.write(Array(bytes[..<position]), as: "index.json")
      // The last byte is the line's end.
      if position < bytes.count - 1 { #expect(errorCode { try readEverything(cut) } != nil) }
    }
  }

  /// What DeepSpeed writes on one machine is a state dict called `module`.
  @Test func deepSpeedModule() throws {
    let bytes = torchArchive {
      $0.dict([
        ("module", { $0.dict([("w", { $0.tensor("0", count: 6) })]) }), ("epoch", { $0.int(3) }),
      ])
    }
    let checkpoint = try CheckpointFormats.open(path: try folder.write(bytes, as: "mp_rank_00_model_states.pt"))
    #expect(checkpoint.stateDicts.map(\.name) == ["module"])
    #expect(try checkpoint.stateDict().tensors.map(\.name) == ["w"])
    let error = try error("\(repositoryRoot)/Formats/sharded/malformed/deepspeed")
    #expect(error.diagnosis.remedy?.contains("zero_to_fp32.py") == true)
  }
}
