import MultiwayCore
import Synchronization

/// A record of a zip archive as a storage. Its checksum is compared once, when it is first loaded.
final class ZipRecordStorage: TensorStorage {
  private struct State {
    var isVerified = false
    var unpacked: TensorBytes?
  }

  private let file: any ByteSource
  private let entry: ZipEntry
  private let state = Mutex(State())

  /// How many bytes are summed up before their pages are let go.
  private static let sliceSize = 16 << 20

  init(file: any ByteSource, entry: ZipEntry) {
    self.file = file
    self.entry = entry
  }

  var byteCount: Int { entry.size }

  func load() throws(TensorError) -> TensorBytes { try load(in: 0..<entry.size) }

  func load(in range: Range<Int>) throws(TensorError) -> TensorBytes {
    precondition(range.lowerBound >= 0 && range.upperBound <= entry.size)
    return try state.withLock { state throws(TensorError) in
      if entry.isDeflated {
        if let unpacked = state.unpacked { return unpacked.extracting(range) }
        let unpacked = try unpack()
        state.unpacked = unpacked
        return unpacked.extracting(range)
      }
      if state.isVerified || entry.lacksChecksum {
        let start = entry.range.lowerBound
        return try file.bytes(in: start + range.lowerBound..<start + range.upperBound)
      }
      let bytes = try file.bytes(in: entry.range)
      try verify(bytes, isMapped: true)
      state.isVerified = true
      return bytes.extracting(range)
    }
  }

  func discard() {
    state.withLock { $0.unpacked = nil }
    file.discard(entry.range)
  }

  private func unpack() throws(TensorError) -> TensorBytes {
    let packed = try file.bytes(in: entry.range)
    guard let unpacked = Deflate.inflate(packed.span, to: entry.size) else {
      throw TensorError(
        .corrupt, "the compressed record '\(entry.displayName)' does not unpack to \(entry.size) bytes",
        remedy: "fetch the file again", file: file.path, byteOffset: entry.localOffset)
    }
    try verify(unpacked, isMapped: false)
    return unpacked
  }

  private func verify(_ bytes: TensorBytes, isMapped: Bool) throws(TensorError) {
    if entry.lacksChecksum { return }
    var crc: UInt32 = 0
    var start = 0
    while start < bytes.byteCount {
      let end = min(bytes.byteCount, start + ZipRecordStorage.sliceSize)
      crc = Deflate.crc32(bytes.extracting(start..<end).span, continuing: crc)
      if isMapped, end - start == ZipRecordStorage.sliceSize {
        file.discard(entry.range.lowerBound + start..<entry.range.lowerBound + end)
      }
      start = end
    }
    guard crc == entry.crc else {
      throw TensorError(
        .corrupt, "the record '\(entry.displayName)' has the CRC-32 \(String(crc, radix: 16))",
        expected: "\(String(entry.crc, radix: 16)), which the archive's directory says",
        remedy: "the file was damaged: fetch it again", file: file.path, byteOffset: entry.range.lowerBound)
    }
  }
}
