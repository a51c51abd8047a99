import MultiwayCheckpoint
import MultiwayCore
import MultiwayGGUF
import Testing

/// Finding the format, and telling apart what is not read.
@Suite struct FormatTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  @Test(
    arguments: [
      (Array("<!DOCTYPE html><html>".utf8), CheckpointErrorCode.unrecognized, "HTML"),
      (Array("  <html>".utf8), .unrecognized, "HTML"),
      (Array("version https://git-lfs.github.com".utf8), .unrecognized, "LFS"),
      ([0x1F, 0x8B, 8, 0, 0, 0, 0, 0], .unsupported, "gzip"),
      ([0x37, 0x7A, 0xBC, 0xAF, 0x27, 0x1C, 0, 4], .unsupported, "7z"),
      (Array("Rar!\u{1A}\u{7}\0\0".utf8), .unsupported, "rar"),
      (
        [UInt8](repeating: 0, count: 257) + Array("ustar".utf8),
        .unsupported, "tar"
      ),
      (
        [0x80, 2, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E], .unsupported, "legacy"
      ),
      ([0x80, 4, 0x95, 0, 0, 0, 0, 0, 0], .unsupported, "pickle"), ([], .truncated, "0 bytes"),
      ([0x80], .truncated, "1 bytes"),
      ([1, 2, 3, 4, 5, 6, 7, 8, 9], .unrecognized, "01 02 03"),
      (Array("\u{89}HDF".utf8) + [0, 0, 0, 0], .unrecognized, "starts with"),
    ] as [([UInt8], CheckpointErrorCode, String)])
  func foreignFormats(bytes: [UInt8], code: CheckpointErrorCode, word: String) throws {
    let path = try folder.write(bytes)
    do {
      _ = try CheckpointFormats.open(path: path)
      Issue.record("it was opened")
    } catch let error as CheckpointError {
      #expect(error.code == code)
      #expect(error.category == .data)
      #expect(error.description.contains(word))
      #expect(error.description.contains(path))
    }
  }

  @Test func namesMeanNothing() throws {
    let bytes = torchArchive { $0.dict([("w", { $0.tensor("0", count: 6) })]) }
    #expect(try CheckpointFormats.open(path: try folder.write(bytes, as: "x.safetensors")).format == "PyTorch zip")
  }

  @Test func missingFile() {
    #expect(throws: FileError.self) { try CheckpointFormats.open(path: folder.file("missing")) }
    #expect(errorCode { _ = try CheckpointFormats.open(path: folder.path) } == .noTensors)
  }

  @Test func quantizedGGUFIsListed() throws {
    var writer = try GGUFWriter(
      path: folder.file("q.gguf"), metadata: [("n", .u32(7)), ("list", .array(.u8([1])))],
      tensors: [("q", [2, 32], .q8_0)])
    try writer.writeTensor(TensorBytes(copying: [UInt8](repeating: 1, count: 68)).span)
    try writer.finish()
    let checkpoint = try CheckpointFormats.open(path: folder.file("q.gguf"))
    #expect(checkpoint.metadata["n"] == .integer(7))
    #expect(checkpoint.metadata["list"] == nil)
    #expect(checkpoint.notes.contains { $0.contains("q (Q8_0)") })
    let q = try checkpoint.stateDict().tensors[0]
    #expect(q.shape == [2, 32])
    #expect(throws: TensorError.self) { try q.contiguousBytes() }
  }
}
