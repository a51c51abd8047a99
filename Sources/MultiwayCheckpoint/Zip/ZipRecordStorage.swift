import MultiwayCore
import Synchronization

/// A record of a zip archive as a storage. Its checksum is compared once: when it is first loaded, or, where it is peeked at from the
/// first byte on, as its bytes pass.
final class ZipRecordStorage: TensorStorage {
  private struct State {
    var isVerified = false
    var unpacked: TensorBytes?
    /// The CRC-32 of the bytes up to a place.
    var sum: UInt32 = 0
    var place = 0
  }

  private let file: any ByteSource
  private let entry: ZipEntry
  private let state = Mutex(State())

  /// How many bytes are summed up at a time.
  private static let sliceSize = 1 << 20
  /// The most that is read for the checksum before a part: an array's header.
  private static let headerSize = 4 << 10
  /// The pages of longer records are let go as they are summed up.
  private static let keptSize = 4 << 20

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
      try verify(&state)
      return try stored(range)
    }
  }

  /// The bytes of a part before the checksum of all is compared; those of them that come next in order are summed up: a part may begin
  /// with bytes that were, or a little behind them.
  func peek(in range: Range<Int>) throws(TensorError) -> TensorBytes {
    if entry.isDeflated { return try load(in: range) }
    precondition(range.lowerBound >= 0 && range.upperBound <= entry.size)
    let bytes = try stored(range)
    try state.withLock { state throws(TensorError) in
      let gap = range.lowerBound - state.place
      guard !state.isVerified, gap <= ZipRecordStorage.headerSize, state.place < range.upperBound else { return }
      if gap > 0 { try sum(try stored(state.place..<range.lowerBound), &state) }
      try sum(bytes.extracting(state.place - range.lowerBound..<range.count), &state)
    }
    return bytes
  }

  /// Sums up what was not read in order, and compares.
  func verify() throws(TensorError) {
    if !entry.isDeflated { try state.withLock { state throws(TensorError) in try verify(&state) } }
  }

  var isPacked: Bool { file.packing != nil }

  func place(of part: Range<Int>) -> FilePlace? {
    let start = entry.range.lowerBound
    return entry.isDeflated
      ? nil : FilePlace(file: file, range: start + part.lowerBound..<start + part.upperBound)
  }

  /// Unpacking takes both the record and what it unpacks to.
  var workingByteCount: Int { entry.isDeflated ? entry.range.count + entry.size : 0 }

  func discard() {
    state.withLock { $0.unpacked = nil }
    file.discard(entry.range)
  }

  private func stored(_ range: Range<Int>) throws(TensorError) -> TensorBytes {
    let start = entry.range.lowerBound
    return try file.bytes(in: start + range.lowerBound..<start + range.upperBound)
  }

  private func unpack() throws(TensorError) -> TensorBytes {
    let packed = try file.bytes(in: entry.range)
    guard let unpacked = Deflate.inflate(packed.span, to: entry.size) else {
      throw TensorError(
        .corrupt, "the compressed record '\(entry.displayName)' does not unpack to \(entry.size) bytes",
        remedy: "fetch the file again", file: file.path, byteOffset: entry.localOffset)
    }
    if !entry.lacksChecksum { try compare(Deflate.crc32(unpacked.span)) }
    return unpacked
  }

  /// Sums up the rest of a stored record in pieces, whose pages are let go, and compares.
  private func verify(_ state: inout State) throws(TensorError) {
    while !state.isVerified, !entry.lacksChecksum {
      let end = min(entry.size, state.place + ZipRecordStorage.sliceSize)
      let place = entry.range.lowerBound + state.place..<entry.range.lowerBound + end
      try sum(try stored(state.place..<end), &state)
      if entry.size > ZipRecordStorage.keptSize { file.discard(place) }
    }
  }

  /// Adds the bytes that come next; after the last ones it compares.
  private func sum(_ bytes: TensorBytes, _ state: inout State) throws(TensorError) {
    if entry.lacksChecksum { return }
    state.sum = Deflate.crc32(bytes.span, continuing: state.sum)
    state.place += bytes.byteCount
    guard state.place == entry.size else { return }
    try compare(state.sum)
    state.isVerified = true
  }

  private func compare(_ crc: UInt32) throws(TensorError) {
    guard crc == entry.crc else {
      throw TensorError(
        .corrupt, "the record '\(entry.displayName)' has the CRC-32 \(String(crc, radix: 16))",
        expected: "\(String(entry.crc, radix: 16)), which the archive's directory says",
        remedy: "the file was damaged: fetch it again", file: file.path, byteOffset: entry.range.lowerBound)
    }
  }
}
