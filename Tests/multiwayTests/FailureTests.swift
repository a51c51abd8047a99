import Foundation
import MultiwayCheckpoint
import MultiwayCore
import MultiwayKernels
import MultiwayTestSupport
import Testing

/// What the verbs do when something is wrong: the exit code of the contract, a message that helps, and no file.
@Suite struct FailureTests {
  private let folder: TemporaryFolder
  private let tiny = Fixtures.path("tiny/classification.pth")

  init() throws { folder = try TemporaryFolder() }

  /// Runs every verb that reads a model on a file and expects the same refusal of all.
  private func refused(_ path: String, _ status: Int32, _ text: String) throws {
    let output = folder.path("out.gguf")
    let before = try folder.names()
    for arguments in [
      ["convert", path, output], ["quantize", path, output], ["prune", path, output], ["inspect", path],
      ["verify", path, tiny], ["verify", tiny, path], ["bench", path], ["run", path, "--inputs", tiny],
      ["run", tiny, "--inputs", path],
    ] {
      let run = try CommandLineRun(arguments)
      #expect(!run.wasKilled && run.status == status, "\(arguments): \(run.status) \(run.errors)")
      #expect(run.errors.hasPrefix("error: "), "\(arguments)")
      #expect(run.errors.contains(text), "\(arguments): \(run.errors)")
      #expect(run.output.isEmpty, "\(arguments)")
      #expect(try folder.names() == before, "\(arguments) left something behind")
    }
  }

  @Test func noSuchInput() throws {
    try refused(folder.path("none.pth"), 66, "none.pth")
    try refused(folder.path, 65, "the folder holds")
  }

  @Test func aTextFile() throws {
    try refused(try folder.write(Array("Once upon a time".utf8), to: "story.pth"), 65, "the file starts with")
    try refused(try folder.write([], to: "empty.pth"), 65, "empty")
    try refused(try folder.write(Array("<!DOCTYPE html>".utf8), to: "page.pth"), 65, "HTML")
  }

  /// Cut anywhere, a checkpoint is refused; every kind of container once.
  @Test(arguments: [
    "tiny/classification.pth", "tiny/classification_inputs.safetensors", "tiny/containers/legacy.pth",
    "tiny/containers/tensors.pkl", "tiny/containers/arrays.npz", "artifact",
  ])
  func aTruncatedFile(name: String) throws {
    var source = Fixtures.path(name)
    if name == "artifact" {
      let whole = try TemporaryFolder()
      try multiway("quantize", tiny, whole.path("whole.gguf"))
      source = whole.path("whole.gguf")
      let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: source)))
      try cut(bytes)
      return
    }
    try cut([UInt8](try Data(contentsOf: URL(fileURLWithPath: source))))
  }

  private func cut(_ bytes: [UInt8]) throws {
    for count in [bytes.count - 1, bytes.count / 2, 100, 9, 1] {
      let path = try folder.write(Array(bytes[..<count]), to: "cut")
      let run = try multiway("convert", path, folder.path("out.safetensors"), expecting: 65)
      #expect(run.errors.contains("cut"))
      #expect(try folder.names() == ["cut"])
    }
  }

  /// A state dict in a pickle that asks for os.system, in the container of torch.save.
  @Test func aPickleThatWantsToRunSomething() throws {
    let witness = folder.path("witness")
    let pickle =
      [0x80, 2] + Array("cos\nsystem\n".utf8) + [0x58] + length("touch \(witness)") + Array("touch \(witness)".utf8)
      + [0x85, 0x52, 0x2E]
    let files: [(String, [UInt8])] = [
      ("archive/data.pkl", pickle), ("archive/byteorder", Array("little".utf8)), ("archive/version", Array("3\n".utf8)),
    ]
    let path = try folder.write(StoredZip.make(files), to: "evil.pth")
    try refused(path, 65, "os.system")
    #expect(!FileManager.default.fileExists(atPath: witness))
    // Bare, as pickle.dump writes it, it is no checkpoint at all.
    try refused(try folder.write(pickle, to: "bare.pth"), 65, "os.system")
    #expect(!FileManager.default.fileExists(atPath: witness))
  }

  private func length(_ text: String) -> [UInt8] { [UInt8(text.utf8.count & 255), UInt8(text.utf8.count >> 8), 0, 0] }

  @Test func aMissingKeyIsNamed() throws {
    let tensors = try CheckpointFormats.open(path: tiny).stateDict().tensors
    let path = folder.path("broken.safetensors")
    let lost = "beit3.encoder.layers.1.self_attn.k_proj.A.bias"
    try SafetensorsWriter.write(tensors.filter { $0.name != lost }, to: path)
    let run = try multiway("quantize", path, folder.path("out.gguf"), expecting: 65)
    #expect(run.errors.contains("missing (1):\n    \(lost) [32]"))
    #expect(try multiway("inspect", path).output.contains(lost), "inspect shows what there is all the same")
    #expect(try multiway("convert", path, folder.path("out.safetensors")).status == 0, "no architecture is needed")
  }

  @Test func wrongUsage() throws {
    let out = folder.path("out.gguf")
    let commands = [
      ["quantise", tiny, out], ["quantize", tiny], ["quantize", tiny, out, "--recipe", "int9"],
      ["quantize", tiny, folder.path("out.pth")], ["quantize", tiny, folder.path("out.safetensors")],
      ["convert", tiny, folder.path("out.safetensors"), "--shard-size", "1GB"],
      ["convert", tiny, folder.path("out") + "/", "--shard-size", "0"],
      ["convert", tiny, folder.path("out") + "/", "--shard-size", "-1GB"],
      ["convert", tiny, folder.path("out") + "/", "--shard-size", "1.5GB"],
      ["convert", tiny, folder.path("out") + "/", "--shard-size", "9999999999GB"],
      ["convert", tiny, folder.path("out") + "/", "--shard-size", "much"],
      ["convert", tiny, folder.path("out") + "/", "--opset", "17"],
      ["convert", tiny, folder.path("out.txt")], ["convert", tiny, out, "--dtype", "f8"],
      ["convert", tiny, out, "--fast"],
      ["prune", tiny, out, "--keep", "audio"], ["run", tiny], ["run", tiny, "--inputs", tiny, "--threads", "0"],
      ["run", tiny, "--inputs", tiny, "--batch", "0"], ["bench", tiny, "--runs", "0"],
      ["bench", tiny, "--batch", "-1"],
      ["verify", tiny], ["verify", tiny, tiny, "--examples", "0"], ["inspect", tiny, "--state-dict", "nope"],
      ["verify", tiny, tiny, "--certify"], ["bench", tiny, "--compute", "f16"],
      ["verify", tiny, tiny, "--compute", "bf16", "--layers"],
      ["verify", tiny, tiny, "--certify"], ["verify", tiny, tiny, "--threads", "0"], ["bench", tiny, "--threads", "0"],
      ["run", tiny, "--inputs", tiny, "--threads", "1025"],
    ]
    for arguments in commands {
      let run = try CommandLineRun(arguments)
      #expect(!run.wasKilled && run.status == 64, "\(arguments): \(run.status) \(run.errors)")
      #expect(!run.errors.isEmpty, "\(arguments)")
      #expect(arguments[0] == "verify" || run.output.isEmpty, "\(arguments)")
    }
    #expect(try folder.names() == [])
  }

  /// No verb falls back on other kernels than those asked for.
  @Test func anInstructionSetThatDoesNotExist() throws {
    let commands = [
      ["run", tiny, "--inputs", Fixtures.path("tiny/classification_inputs.safetensors")],
      ["bench", tiny, "--runs", "1"],
      ["verify", tiny, tiny], ["quantize", tiny, folder.path("out.gguf")],
    ]
    for arguments in commands {
      let run = try CommandLineRun(arguments, environment: ["MULTIWAY_ISA": "avx9"])
      #expect(run.status == 64 && run.errors.contains("'avx9'"), "\(arguments): \(run.status) \(run.errors)")
      #expect(run.errors.contains("one of: \(ISA.supported.map(\.rawValue).joined(separator: ", "))"))
    }
    #expect(try folder.names() == [])
  }

  @Test func inputsThatDoNotFit() throws {
    let run = try multiway(
      "run", tiny, "--inputs", Fixtures.path("digits_test.safetensors"), "--outputs", folder.path("out.safetensors"),
      expecting: 65)
    #expect(run.errors.contains("image has shape [8, 3, 24, 24], expected f32[batch, 3, 12, 12]"))
    try multiway("verify", tiny, Fixtures.path("digits.pth"), expecting: 65)
    #expect(try folder.names() == [])
  }

  /// Places where no file can be made, and things that are no files.
  @Test func outputsThatCannotBe() throws {
    try folder.write([1], to: "file")
    let link = folder.path("loop.gguf")
    try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: link)
    let folderName = folder.path("folder.gguf")
    try FileManager.default.createDirectory(atPath: folderName, withIntermediateDirectories: false)
    let before = try folder.names()
    let outputs = [
      folder.path("none/out.gguf"), folder.path("file/out.gguf"), folderName, link,
      folder.path(String(repeating: "n", count: 300) + ".gguf"),
    ]
    for output in outputs {
      let run = try multiway("quantize", tiny, output, expecting: 73)
      #expect(run.errors.contains("output"), "\(run.errors)")
    }
    for output in [folderName, folder.path("none/out.gguf")] {
      try multiway("quantize", tiny, output, "--force", expecting: 73)
    }
    try multiway("verify", tiny, tiny, "--report", "/dev/full", "--force", expecting: 73)
    let inputs = Fixtures.path("tiny/classification_inputs.safetensors")
    try multiway("run", tiny, "--inputs", inputs, "--outputs", "/dev/full", "--force", expecting: 73)
    #expect(try folder.names() == before)
  }

  /// A disk that fills up while the output is written.
  @Test func aFullDisk() throws {
    let inputs = Fixtures.path("digits_test.safetensors")
    let digits = Fixtures.path("digits.pth")
    let commands = [
      ["convert", digits, folder.path("out.safetensors")], ["convert", digits, folder.path("out.gguf")],
      ["quantize", digits, folder.path("out.gguf")], ["prune", digits, folder.path("out.gguf")],
      ["run", digits, "--inputs", inputs, "--outputs", folder.path("out.safetensors"), "--threads", "1"],
    ]
    for arguments in commands {
      let run = try CommandLineRun(arguments, limitKilobytes: 8)
      #expect(!run.wasKilled && run.status == 74, "\(arguments): \(run.status) \(run.errors)")
      #expect(run.errors.contains("writing failed"), "\(run.errors)")
      #expect(try folder.names() == [], "\(arguments)")
    }
    // What stood under the name stays.
    try folder.write([7], to: "out.gguf")
    let run = try CommandLineRun(["quantize", digits, folder.path("out.gguf"), "--force"], limitKilobytes: 8)
    #expect(run.status == 74)
    #expect(try folder.bytes("out.gguf") == [7])
    #expect(try folder.names() == ["out.gguf"])
  }

  /// A weight that somebody changed: parity fails, and the exit code says so.
  @Test func aDamagedCandidateFailsVerification() throws {
    let name = "beit3.encoder.layers.2.ffn.A.fc1.weight"
    let damaged = try DamagedCopy.write("digits", name, to: folder.path("damaged.safetensors")) { elements in
      for index in 0..<64 { elements[index] += 2 }
    }
    let digits = Fixtures.path("digits.pth")
    let run = try multiway("verify", digits, damaged, "--bisect", "--report", folder.path("report.html"), expecting: 1)
    #expect(run.output.contains("FAILED"))
    #expect(run.output.contains("the first layer below its gate is layers.2.vision.feed_forward_in"))
    let page = String(decoding: try folder.bytes("report.html"), as: UTF8.self)
    #expect(page.contains("FAILED") && page.contains("layers.2.vision.feed_forward_in"))
    let json = try multiway("verify", digits, damaged, "--json", "-", expecting: 1).json
    #expect(json["passed"]?.bool == false)
    // Unharmed, the same copy passes.
    let copy = try DamagedCopy.write("digits", name, to: folder.path("copy.safetensors")) { _ in }
    try multiway("verify", digits, copy)
  }

  /// A pipe that nobody reads ends a program quietly or by the signal that is made for it; it is no fault of ours.
  @Test func theInputIsNeverTheOutput() throws {
    try multiway("convert", tiny, folder.path("in.safetensors"))
    let before = try folder.bytes("in.safetensors")
    let path = folder.path("in.safetensors")
    for arguments in [
      ["convert", path, path, "--force"], ["prune", path, path, "--force"],
      ["run", tiny, "--inputs", path, "--outputs", path, "--force"],
    ] {
      let run = try CommandLineRun(arguments)
      #expect(run.status == 73 || run.status == 65 && arguments[0] == "run", "\(arguments): \(run.errors)")
      #expect(try folder.bytes("in.safetensors") == before)
    }
    #expect(try folder.names() == ["in.safetensors"])
  }
}

/// A zip archive with nothing compressed, as torch.save writes it.
enum StoredZip {
  static func make(_ files: [(name: String, bytes: [UInt8])]) -> [UInt8] {
    var archive: [UInt8] = []
    var directory: [UInt8] = []
    for (name, bytes) in files {
      let offset = archive.count
      let common =
        word16(20) + word16(0) + word16(0) + word32(0) + word32(checksum(bytes)) + word32(UInt32(bytes.count))
        + word32(UInt32(bytes.count)) + word16(UInt16(name.utf8.count)) + word16(0)
      archive += [0x50, 0x4B, 3, 4] + common + Array(name.utf8) + bytes
      directory +=
        [0x50, 0x4B, 1, 2] + word16(20) + common + word16(0) + word16(0) + word16(0) + word32(0)
        + word32(UInt32(offset)) + Array(name.utf8)
    }
    let count = word16(UInt16(files.count))
    return archive + directory + [0x50, 0x4B, 5, 6] + word16(0) + word16(0) + count + count
      + word32(UInt32(directory.count)) + word32(UInt32(archive.count)) + word16(0)
  }

  private static func word16(_ value: UInt16) -> [UInt8] { [UInt8(value & 255), UInt8(value >> 8)] }
  private static func word32(_ value: UInt32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
  }

  /// CRC-32 (IEEE 802.3), a bit at a time.
  private static func checksum(_ bytes: [UInt8]) -> UInt32 {
    var remainder: UInt32 = .max
    for byte in bytes {
      remainder ^= UInt32(byte)
      for _ in 0..<8 { remainder = remainder & 1 == 1 ? remainder >> 1 ^ 0xEDB8_8320 : remainder >> 1 }
    }
    return ~remainder
  }
}
