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
        [UInt8](repeating: 0, count: 257) + Array("ustar".utf8) + [UInt8](repeating: 0, count: 800),
        .corrupt, "tar"
      ),
      (
        [0x80, 2, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E], .truncated, "pickle"
      ),
      ([0x80, 4, 0x95, 0, 0, 0, 0, 0, 0], .truncated, "pickle"), ([], .truncated, "0 bytes"),
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

  /// A GGUF file of one tensor whose bytes are all 1.
  private func gguf(_ dimensions: [Int], _ type: GGUFType) throws -> Checkpoint {
    var writer = try GGUFWriter(
      path: folder.file("q.gguf"), metadata: [("n", .u32(7)), ("list", .array(.u8([1])))],
      tensors: [("q", dimensions, type)])
    let ones = TensorBytes(copying: [UInt8](repeating: 1, count: try #require(type.byteCount(of: dimensions))))
    try writer.writeTensor(ones.span)
    try writer.finish()
    return try CheckpointFormats.open(path: folder.file("q.gguf"))
  }

  @Test func quantizedGGUFIsDecoded() throws {
    let checkpoint = try gguf([2, 32], .q8_0)
    #expect(checkpoint.metadata["n"] == .integer(7))
    #expect(checkpoint.metadata["list"] == nil)
    #expect(checkpoint.notes.contains { $0.contains("q (Q8_0)") })
    let q = try checkpoint.stateDict().tensors[0]
    #expect(q.shape == [2, 32])
    #expect(q.dtype == .f32)
    let scale = HalfPrecision.float(fromF16: 0x0101)
    #expect(try q.floats() == [Float](repeating: scale, count: 64))
  }

  @Test func otherBlocksAreListedAndRefused() throws {
    let checkpoint = try gguf([2, 256], .q2_k)
    #expect(checkpoint.notes.contains { $0.contains("q (Q2_K)") })
    let q = try checkpoint.stateDict().tensors[0]
    #expect(q.shape == [2, 256])
    let error = #expect(throws: TensorError.self) { try q.contiguousBytes() }
    #expect(error?.diagnosis.tensor == "q")
    #expect(error?.diagnosis.expected?.contains("Q4_K, Q5_K, Q6_K") == true)
  }

  /// A part of a tensor is decoded without the rest, and is the same.
  @Test func blocksAreDecodedInPieces() throws {
    let checkpoint = try CheckpointFormats.open(path: "\(repositoryRoot)/Formats/gguf/golden/blocks.gguf")
    for tensor in try checkpoint.stateDict().tensors {
      let whole = try tensor.contiguousBytes().array(of: UInt8.self)
      for range in [0..<4, 4..<132, 120..<132, 128..<1024, whole.count - 4..<whole.count, 8..<8] {
        #expect(
          try tensor.storage.load(in: range).array(of: UInt8.self) == Array(whole[range]), "\(tensor.name) \(range)")
      }
      var rows = tensor
      rows.shape = Shape([3] + tensor.shape.dimensions.dropFirst())
      rows.elementOffset = 2 * tensor.strides[0]
      let start = rows.elementOffset * 4
      #expect(try rows.contiguousBytes().array(of: UInt8.self) == Array(whole[start..<start + rows.byteCount]))
    }
  }
}
