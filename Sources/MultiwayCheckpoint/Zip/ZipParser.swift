import MultiwayCore

/// Reads the directory of a zip archive from its end, then compares every local header with it. It asks the file for these parts
/// and for nothing between them.
struct ZipParser {
  private let file: any ByteSource

  private static let endSize = 22
  private static let end64Size = 56
  private static let locatorSize = 20
  private static let centralSize = 46
  private static let localSize = 30
  private static let extra64: UInt16 = 1
  private static let longestComment = 0xFFFF
  /// Bit 3: the sizes follow the payload. Bit 11: the name is UTF-8. Bits 1 and 2: how hard deflate tried.
  private static let allowedFlags: UInt16 = 0x080E

  init(_ file: any ByteSource) { self.file = file }

  func parse() throws(CheckpointError) -> [ZipEntry] {
    let directory = try findDirectory()
    var entries = try readDirectory(directory)
    for position in entries.indices {
      try place(&entries[position], before: directory.offset)
      // Local headers lie everywhere between the records, and so would the pages that they bring into memory.
      if position % 64 == 63 { file.discard(0..<directory.offset) }
    }
    try checkOverlap(entries)
    return entries
  }

  private func error(
    _ code: CheckpointErrorCode, _ found: String, expected: String? = nil, remedy: String? = nil, at offset: Int
  ) -> CheckpointError {
    CheckpointError(code, found, expected: expected, remedy: remedy, file: file.path, byteOffset: offset)
  }

  /// A part of the file, which must lie within; what reaches over the file's ends is left out.
  private func part(_ start: Int, _ end: Int) throws(CheckpointError) -> ZipPart {
    let start = min(max(0, start), file.byteCount)
    let range = start..<min(max(start, end), file.byteCount)
    return ZipPart(bytes: try file.contents(in: range), start: start, path: file.path)
  }
}

/// A part of a zip archive. Offsets are those in the file.
private struct ZipPart {
  let bytes: TensorBytes
  let start: Int
  let path: String

  var end: Int { start + bytes.byteCount }

  func number<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, _ offset: Int) throws(CheckpointError) -> Int {
    guard let raw = bytes.span.load(type, at: offset - start) else {
      throw CheckpointError(.truncated, "the zip archive ends too early", file: path, byteOffset: offset)
    }
    guard let value = Int(exactly: raw) else {
      throw CheckpointError(.malformed, "a size of \(raw) bytes", file: path, byteOffset: offset)
    }
    return value
  }

  func hasSignature(_ third: UInt8, _ fourth: UInt8, at offset: Int) -> Bool {
    bytes.span.starts(with: [0x50, 0x4B, third, fourth], at: offset - start)
  }

  func array(in range: Range<Int>) -> [UInt8] {
    bytes.span.array(in: range.lowerBound - start..<range.upperBound - start)
  }
}

// MARK: - The end records

extension ZipParser {
  /// Where the central directory is, and what it should hold.
  private struct Directory {
    var offset: Int
    var size: Int
    var count: Int
  }

  private func findDirectory() throws(CheckpointError) -> Directory {
    let tail = try part(
      file.byteCount - ZipParser.longestComment - ZipParser.endSize - ZipParser.locatorSize, file.byteCount)
    let end = try findEnd(tail)
    guard try tail.number(UInt16.self, end + 4) == 0, try tail.number(UInt16.self, end + 6) == 0 else {
      throw error(.unsupported, "a zip archive split over several disks", at: end)
    }
    var directory = Directory(
      offset: try tail.number(UInt32.self, end + 16), size: try tail.number(UInt32.self, end + 12),
      count: try tail.number(UInt16.self, end + 10))
    guard try tail.number(UInt16.self, end + 8) == directory.count else {
      throw error(.malformed, "the zip archive's two record counts differ", at: end)
    }
    var directoryEnd = end
    if tail.hasSignature(6, 7, at: end - ZipParser.locatorSize) {
      directoryEnd = try tail.number(UInt64.self, end - ZipParser.locatorSize + 8)
      directory = try widened(directory, endRecord: directoryEnd, locator: end - ZipParser.locatorSize)
    }
    let (sum, overflow) = directory.offset.addingReportingOverflow(directory.size)
    guard !overflow, sum == directoryEnd else {
      throw error(
        .malformed, "the central directory should lie at \(directory.offset), \(directory.size) bytes long",
        expected: "its end to be the end record's start, byte \(directoryEnd)", at: end)
    }
    return directory
  }

  /// The end record; a comment may follow it, nothing else.
  private func findEnd(_ tail: ZipPart) throws(CheckpointError) -> Int {
    var offset = tail.end - ZipParser.endSize
    let lowest = max(0, offset - ZipParser.longestComment)
    var candidate: Int?
    while offset >= lowest {
      if tail.hasSignature(5, 6, at: offset) {
        let comment = try tail.number(UInt16.self, offset + 20)
        if offset + ZipParser.endSize + comment == tail.end { return offset }
        candidate = candidate ?? offset
      }
      offset -= 1
    }
    if let candidate {
      throw error(
        .trailingData, "the zip archive's last record is not where its comment says", expected: "the end of the file",
        remedy: "the file was cut off, or something was appended to it: fetch it again", at: candidate)
    }
    throw error(
      .truncated, "the zip archive has no central directory",
      remedy: "the download or copy is incomplete: fetch it again",
      at: file.byteCount)
  }

  /// The directory as the ZIP64 end record describes it, which must agree with the classic one.
  private func widened(
    _ classic: Directory, endRecord: Int, locator: Int
  ) throws(CheckpointError) -> Directory {
    let record = try part(endRecord, endRecord <= locator - ZipParser.end64Size ? endRecord + ZipParser.end64Size : 0)
    guard record.hasSignature(6, 6, at: endRecord) else {
      throw error(.malformed, "the ZIP64 end record is not at \(endRecord)", at: locator)
    }
    let size = try record.number(UInt64.self, endRecord + 4)
    guard size == locator - endRecord - 12, try record.number(UInt32.self, endRecord + 16) == 0 else {
      throw error(.malformed, "the ZIP64 end record has the wrong size", at: endRecord)
    }
    let wide = Directory(
      offset: try record.number(UInt64.self, endRecord + 48), size: try record.number(UInt64.self, endRecord + 40),
      count: try record.number(UInt64.self, endRecord + 32))
    let narrow = Int(UInt32.max)
    guard wide.count == classic.count || classic.count == 0xFFFF,
      wide.size == classic.size || classic.size == narrow,
      wide.offset == classic.offset || classic.offset == narrow
    else { throw error(.malformed, "the ZIP64 end record contradicts the classic one", at: endRecord) }
    return wide
  }
}

// MARK: - The central directory

extension ZipParser {
  private func readDirectory(_ directory: Directory) throws(CheckpointError) -> [ZipEntry] {
    guard directory.count <= directory.size / ZipParser.centralSize else {
      throw error(
        .malformed, "\(directory.count) records in a directory of \(directory.size) bytes", at: directory.offset)
    }
    guard directory.size <= file.headerLimit else {
      throw error(
        .overBudget, "a directory of \(directory.size) bytes", expected: "at most \(file.headerLimit)",
        at: directory.offset)
    }
    let part = try part(directory.offset, directory.offset + directory.size)
    var entries: [ZipEntry] = []
    entries.reserveCapacity(directory.count)
    var offset = directory.offset
    let end = directory.offset + directory.size
    for _ in 0..<directory.count { entries.append(try readEntry(part, &offset, end: end)) }
    guard offset == end else {
      throw error(.malformed, "the central directory holds more than its \(directory.count) records", at: offset)
    }
    return entries
  }

  private func readEntry(_ part: ZipPart, _ offset: inout Int, end: Int) throws(CheckpointError) -> ZipEntry {
    let start = offset
    guard part.hasSignature(1, 2, at: start), end - start >= ZipParser.centralSize else {
      throw error(.malformed, "a central directory record should start here", at: start)
    }
    let nameSize = try part.number(UInt16.self, start + 28)
    let extraSize = try part.number(UInt16.self, start + 30)
    let commentSize = try part.number(UInt16.self, start + 32)
    let nameStart = start + ZipParser.centralSize
    offset = nameStart + nameSize + extraSize + commentSize
    guard offset <= end else { throw error(.truncated, "a record leaves the central directory", at: start) }
    var entry = ZipEntry(
      name: part.array(in: nameStart..<nameStart + nameSize), isDeflated: false,
      flags: UInt16(truncatingIfNeeded: try part.number(UInt16.self, start + 8)),
      crc: UInt32(truncatingIfNeeded: try part.number(UInt32.self, start + 16)),
      compressedSize: try part.number(UInt32.self, start + 20), size: try part.number(UInt32.self, start + 24),
      localOffset: try part.number(UInt32.self, start + 42), directoryOffset: start)
    try widen(&entry, part, extra: nameStart + nameSize..<nameStart + nameSize + extraSize)
    try checkMethod(&entry, method: try part.number(UInt16.self, start + 10), at: start)
    return entry
  }

  private func checkMethod(_ entry: inout ZipEntry, method: Int, at offset: Int) throws(CheckpointError) {
    guard !entry.name.contains(0) else {
      throw error(.malformed, "a record name with a zero byte, '\(entry.displayName)'", at: offset)
    }
    guard entry.flags & ~ZipParser.allowedFlags == 0 else {
      throw error(
        .unsupported, "the record '\(entry.displayName)' has the flags \(String(entry.flags, radix: 16))",
        expected: "no encryption and no other special features", remedy: "unpack the archive and zip it again",
        at: offset)
    }
    guard method == 0 || method == 8 else {
      throw error(
        .unsupported, "the record '\(entry.displayName)' is compressed by method \(method)",
        expected: "0 (stored) or 8 (deflate)", remedy: "unpack the archive and zip it again", at: offset)
    }
    entry.isDeflated = method == 8
    // Deflate cannot shrink anything to less than a 1032nd.
    let isPlausible =
      entry.isDeflated ? entry.size / 1032 <= entry.compressedSize : entry.size == entry.compressedSize
    guard isPlausible else {
      throw error(
        .sizeMismatch, "the record '\(entry.displayName)' has \(entry.compressedSize) bytes for \(entry.size)",
        at: offset)
    }
  }

  /// Replaces saturated 32-bit fields by those of the ZIP64 extra field.
  private func widen(_ entry: inout ZipEntry, _ part: ZipPart, extra: Range<Int>) throws(CheckpointError) {
    let narrow = Int(UInt32.max)
    guard entry.size == narrow || entry.compressedSize == narrow || entry.localOffset == narrow else { return }
    var offset = extra.lowerBound
    while extra.upperBound - offset >= 4 {
      let id = try part.number(UInt16.self, offset)
      let next = offset + 4 + (try part.number(UInt16.self, offset + 2))
      guard next <= extra.upperBound else { break }
      if id == ZipParser.extra64 {
        var position = offset + 4
        try widen(&entry.size, part, at: &position, end: next)
        try widen(&entry.compressedSize, part, at: &position, end: next)
        try widen(&entry.localOffset, part, at: &position, end: next)
        return
      }
      offset = next
    }
    throw error(
      .malformed, "the record '\(entry.displayName)' lacks its ZIP64 sizes", expected: "an extra field 1",
      at: extra.lowerBound)
  }

  private func widen(_ field: inout Int, _ part: ZipPart, at position: inout Int, end: Int) throws(CheckpointError) {
    guard field == Int(UInt32.max) else { return }
    guard end - position >= 8 else { throw error(.malformed, "a ZIP64 extra field that is too short", at: position) }
    field = try part.number(UInt64.self, position)
    position += 8
  }
}

// MARK: - Local headers

extension ZipParser {
  /// Finds the payload, which must end before the central directory, and checks that the local header agrees.
  private func place(_ entry: inout ZipEntry, before limit: Int) throws(CheckpointError) {
    let start = entry.localOffset
    let header = try part(
      start, start <= limit - ZipParser.localSize ? start + ZipParser.localSize + entry.name.count : 0)
    guard header.hasSignature(3, 4, at: start) else {
      throw error(.malformed, "the record '\(entry.displayName)' has no local header", at: start)
    }
    let nameSize = try header.number(UInt16.self, start + 26)
    let nameStart = start + ZipParser.localSize
    let payload = nameStart + nameSize + (try header.number(UInt16.self, start + 28))
    guard payload <= limit, nameSize == entry.name.count,
      header.bytes.span.starts(with: entry.name, at: ZipParser.localSize)
    else {
      throw error(
        .malformed, "the record '\(entry.displayName)' has another name in its local header", expected: "the same",
        at: start)
    }
    guard entry.compressedSize <= limit - payload else {
      throw error(
        .truncated, "the record '\(entry.displayName)' of \(entry.compressedSize) bytes",
        expected: "at most \(limit - payload), which are left", at: start)
    }
    try checkLocal(entry, header, at: start)
    entry.range = payload..<payload + entry.compressedSize
  }

  private func checkLocal(_ entry: ZipEntry, _ header: ZipPart, at start: Int) throws(CheckpointError) {
    let isLater = entry.flags & 8 != 0
    let crc = try header.number(UInt32.self, start + 14)
    func agrees(_ offset: Int, _ value: Int) throws(CheckpointError) -> Bool {
      let local = try header.number(UInt32.self, start + offset)
      return local == value || local == Int(UInt32.max) || (isLater && local == 0)
    }
    guard try header.number(UInt16.self, start + 6) == Int(entry.flags),
      try header.number(UInt16.self, start + 8) == (entry.isDeflated ? 8 : 0),
      try agrees(18, entry.compressedSize), try agrees(22, entry.size),
      crc == Int(entry.crc) || (isLater && crc == 0)
    else {
      throw error(
        .malformed, "the local header of the record '\(entry.displayName)' contradicts the central directory",
        expected: "the same flags, method, sizes and checksum", remedy: "do not trust this file", at: start)
    }
  }

  /// Records may not share bytes, and the first must stand at the file's start.
  private func checkOverlap(_ entries: [ZipEntry]) throws(CheckpointError) {
    var end = 0
    for entry in entries.sorted(by: { $0.localOffset < $1.localOffset }) {
      guard entry.localOffset >= end, end > 0 || entry.localOffset == 0 else {
        throw error(
          .malformed,
          end == 0 ? "bytes before the first record" : "the record '\(entry.displayName)' overlaps the one before it",
          expected: "one record after the other", at: entry.localOffset)
      }
      end = entry.range.upperBound
    }
  }
}
