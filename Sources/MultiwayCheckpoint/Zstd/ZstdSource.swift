import MultiwayCore
import Synchronization

/// The contents of a zstd file, decoded as they are asked for.
///
/// The file is decoded once when it is opened: that compares the checksums, finds the frames and proves how much there is, whatever
/// the frames claim. Afterwards decoding goes on from where it stands, or from the start of a frame for what lies before. Blocks of
/// 1 MiB are kept for a while, an eighth of the contents and at most the file's size or 256 MiB: neighbours are often read in another order than they lie.
final class ZstdSource: ByteSource {
  let path: String
  let byteCount: Int
  let fileByteCount: Int
  let identity: FileIdentity
  var packing: String? { "zstd" }

  private let blocks: Mutex<ZstdBlocks>

  /// The most that a file may unpack to: no checkpoint is that large, and a small file can claim anything.
  static let maximumByteCount = 1 << 40

  /// True where the file that starts with these bytes is of zstd: a frame, or one to be skipped (pzstd puts them first).
  static func recognizes(_ header: RawSpan) -> Bool {
    guard let magic = header.load(UInt32.self, at: 0) else { return false }
    return magic == 0xFD2F_B528 || magic & 0xFFFF_FFF0 == 0x184D_2A50
  }

  /// The contents of `file` where it is a zstd file, else `file` itself.
  static func unpacked(_ file: any ByteSource) throws(CheckpointError) -> any ByteSource {
    let start = try file.contents(in: 0..<min(4, file.byteCount))
    guard recognizes(start.span) else { return file }
    if let packing = file.packing {
      throw CheckpointError(
        .unsupported, "this is \(packing) of \(packing)", expected: "a file compressed once",
        remedy: "unpack it with `zstd -d` and give the file inside", file: file.path)
    }
    return try ZstdSource(file)
  }

  /// Decodes the file once.
  init(_ file: any ByteSource) throws(CheckpointError) {
    path = file.path
    fileByteCount = file.byteCount
    identity = file.identity
    var blocks = ZstdBlocks(try ZstdDecoder(file: file), fileByteCount: file.byteCount)
    byteCount = try blocks.measure()
    self.blocks = Mutex(blocks)
  }

  /// A copy of the bytes in `range`.
  func bytes(in range: Range<Int>) throws(TensorError) -> TensorBytes {
    precondition(range.lowerBound >= 0 && range.upperBound <= byteCount, "the range lies outside the contents")
    let result = AlignedBuffer(byteCount: range.count)
    do throws(CheckpointError) {
      try blocks.withLock { blocks throws(CheckpointError) in
        var offset = range.lowerBound
        while offset < range.upperBound {
          let (block, start) = try blocks.block(holding: offset)
          let end = min(range.upperBound, start + block.byteCount)
          let part = block.extracting(offset - start..<end - start)
          result.copy(part.span, at: offset - range.lowerBound)
          offset = end
        }
      }
    } catch {
      throw TensorError(.corrupt, error.diagnosis)
    }
    return result.bytes
  }

  /// Nothing to let go: what is kept is bounded.
  func discard(_ range: Range<Int>) {}
}
