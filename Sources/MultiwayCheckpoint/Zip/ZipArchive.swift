import MultiwayCore

/// One record of a zip archive, as the central directory and the local header agree about it.
struct ZipEntry {
  /// The name's bytes; never used as a path.
  var name: [UInt8]
  var isDeflated: Bool
  var flags: UInt16
  var crc: UInt32
  var compressedSize: Int
  var size: Int
  var localOffset: Int
  /// Where its entry of the central directory starts.
  var directoryOffset: Int
  /// The payload's place in the file.
  var range: Range<Int> = 0..<0

  /// Where its checksum stands: in the directory and, where it follows them, behind its bytes.
  var checksumPlaces: [Range<Int>] {
    let follows = flags & 8 != 0 ? [range.upperBound + ZipWriter.checksumInDescriptor] : []
    return (follows + [directoryOffset + ZipWriter.checksumInDirectory]).map { $0..<$0 + MemoryLayout<UInt32>.size }
  }

  /// The name for people.
  var displayName: String { String(decoding: name, as: UTF8.self) }
  /// True where the writer did not compute a checksum (PyTorch can be told so): there is nothing to compare with.
  var lacksChecksum: Bool { crc == 0 && size > 0 }
}

/// The directory of a zip archive. There is one view of it only: every local header must say what the central directory says,
/// names are unique, and records do not overlap.
struct ZipArchive {
  let file: any ByteSource
  let entries: [ZipEntry]
  private let index: [[UInt8]: Int]

  init(file: any ByteSource) throws(CheckpointError) {
    let entries = try ZipParser(file).parse()
    // The local headers lie between the weights: their pages need not stay.
    file.discard(0..<file.byteCount)
    var index: [[UInt8]: Int] = [:]
    for (position, entry) in entries.enumerated() {
      guard index.updateValue(position, forKey: entry.name) == nil else {
        throw CheckpointError(
          .duplicateName, "two records are called '\(entry.displayName)'", file: file.path,
          byteOffset: entry.localOffset)
      }
    }
    self.file = file
    self.entries = entries
    self.index = index
  }

  /// The record of exactly that name.
  func entry(named name: String) -> ZipEntry? { index[Array(name.utf8)].map { entries[$0] } }

  /// The bytes of a record, after its checksum was compared; `limit` bounds what is unpacked, of the record or of the file.
  func contents(_ entry: ZipEntry, limit: Int) throws(CheckpointError) -> TensorBytes {
    guard (!entry.isDeflated && file.isInPlace) || entry.size <= limit else {
      throw CheckpointError(
        .overBudget, "the record '\(entry.displayName)' unpacks to \(entry.size) bytes", expected: "at most \(limit)",
        file: file.path, byteOffset: entry.localOffset)
    }
    do {
      return try ZipRecordStorage(file: file, entry: entry).load()
    } catch {
      throw CheckpointError(.corrupt, error.diagnosis)
    }
  }
}
