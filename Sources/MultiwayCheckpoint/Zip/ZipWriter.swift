import MultiwayCore

/// Writes zip archives as `torch.save` does: records stored and aligned, sizes and checksums behind the bytes and in the directory, so
/// that nothing is read twice or written again.
struct ZipWriter: ~Copyable {
  private struct Record {
    var name: [UInt8]
    var offset: Int
    var size: Int
    var crc: UInt32 = 0

    /// What does not fit into the 32 bits of the classic fields, in the order of the ZIP64 extra field.
    var wideFields: [UInt64] {
      (size >= ZipWriter.limit ? [UInt64(size), UInt64(size)] : [])
        + (offset >= ZipWriter.limit ? [UInt64(offset)] : [])
    }
  }

  private var output: OutputFile
  private var records: [Record] = []
  /// The digest of everything but the bytes that `append` brings.
  private var header = HeaderDigest()
  /// The record that takes the digest: its contents, where in them, and where in the file they and its checksums are.
  private var last: (contents: [UInt8], digest: Int, offset: Int, checksums: [Int])?
  private let alignment: Int

  /// From here on a number stands in a ZIP64 field.
  private static let limit = Int(UInt32.max)
  /// Names are UTF-8; sizes and the checksum follow the bytes.
  private static let utf8: UInt16 = 0x800
  private static let sizesFollow: UInt16 = 8

  /// Starts an archive in a file that is empty.
  /// - Parameter alignment: what the place of every record's bytes is a multiple of.
  init(_ output: consuming OutputFile, alignment: Int) {
    self.output = output
    self.alignment = alignment
  }

  /// Writes a record that is in memory.
  ///
  /// Where the text `HeaderDigest.placeholder` stands in the last one, `finish` puts the digest of everything that belongs to no tensor. The
  /// checksums of that record, which follow from the digest, count as zeros.
  mutating func add(_ name: String, _ contents: [UInt8], isLast: Bool = false) throws(FileError) {
    try begin(name, size: contents.count)
    let offset = output.byteCount
    let bytes = TensorBytes(copying: contents)
    try append(bytes.span)
    header.update(contents)
    guard isLast, let place = HeaderDigest.lastPlaceholder(in: bytes.span) else { return try end() }
    records[records.count - 1].crc = 0
    last = (contents, place, offset, [output.byteCount + ZipWriter.checksumInDescriptor])
    try end()
  }

  /// Starts a record whose `size` bytes `append` will bring.
  mutating func begin(_ name: String, size: Int) throws(FileError) {
    let record = Record(name: Array(name.utf8), offset: output.byteCount, size: size)
    var fields = LittleEndianBytes()
    fields.add(UInt32(0x0403_4B50))
    fields.add([0, ZipWriter.flags(record), 0, 0, 0] as [UInt16])
    // The checksum and both sizes: they follow.
    fields.add([0, 0, 0] as [UInt32])
    let wide = ZipWriter.extra(record)
    let start = output.byteCount + fields.bytes.count + 4 + record.name.count + wide.count + 4
    let padding = (alignment - start % alignment) % alignment
    fields.add([UInt16(record.name.count), UInt16(wide.count + 4 + padding)])
    fields.bytes += record.name + wide
    // PyTorch's filler: a field "FB" full of Z.
    fields.bytes += Array("FB".utf8)
    fields.add(UInt16(padding))
    fields.bytes += [UInt8](repeating: UInt8(ascii: "Z"), count: padding)
    try write(fields.bytes)
    records.append(record)
  }

  /// Adds bytes to the record.
  mutating func append(_ bytes: borrowing RawSpan) throws(FileError) {
    records[records.count - 1].crc = Deflate.crc32(bytes, continuing: records[records.count - 1].crc)
    try output.write(bytes)
  }

  /// Ends the record.
  mutating func end() throws(FileError) {
    guard let record = records.last, record.size > 0 else { return }
    var fields = LittleEndianBytes()
    fields.add([0x0807_4B50, record.crc])
    if record.wideFields.isEmpty {
      fields.add([UInt32(record.size), UInt32(record.size)])
    } else {
      fields.add([UInt64(record.size), UInt64(record.size)])
    }
    try write(fields.bytes)
  }

  private mutating func write(_ bytes: [UInt8]) throws(FileError) {
    header.update(bytes)
    try output.write(bytes)
  }

  /// Writes the directory and makes the file appear.
  consuming func finish() throws(FileError) {
    let start = output.byteCount
    for (index, record) in records.enumerated() {
      if index == records.count - 1 { last?.checksums.append(output.byteCount + ZipWriter.checksumInDirectory) }
      try write(ZipWriter.directoryEntry(record))
    }
    let end = output.byteCount
    var fields = LittleEndianBytes()
    // The ZIP64 end record and its locator stand in every file of PyTorch's.
    fields.add(UInt32(0x0606_4B50))
    fields.add(UInt64(44))
    fields.add([0x031E, 45] as [UInt16])
    fields.add([0, 0] as [UInt32])
    fields.add([UInt64(records.count), UInt64(records.count), UInt64(end - start), UInt64(start)])
    fields.add([0x0706_4B50, 0] as [UInt32])
    fields.add(UInt64(end))
    fields.add([1, 0x0605_4B50, 0] as [UInt32])
    fields.add([UInt16(clamping: records.count), UInt16(clamping: records.count)])
    fields.add([UInt32(clamping: end - start), UInt32(clamping: start)])
    fields.add(UInt16(0))
    try write(fields.bytes)
    let digest = header.finish()
    if var last {
      last.contents.replaceSubrange(last.digest..<last.digest + digest.utf8.count, with: digest.utf8)
      try output.rewrite(last.contents, at: last.offset)
      let contents = TensorBytes(copying: last.contents)
      var sum = LittleEndianBytes()
      sum.add(Deflate.crc32(contents.span, continuing: 0))
      for offset in last.checksums { try output.rewrite(sum.bytes, at: offset) }
    }
    try output.commit()
  }

  /// Where the checksum stands in what follows a record's bytes, and in its entry of the directory.
  static let checksumInDescriptor = 4
  static let checksumInDirectory = 16

  private static func flags(_ record: Record) -> UInt16 { utf8 | (record.size > 0 ? sizesFollow : 0) }

  /// The ZIP64 field, empty where nothing needs it.
  private static func extra(_ record: Record) -> [UInt8] {
    let values = record.wideFields
    guard !values.isEmpty else { return [] }
    var fields = LittleEndianBytes()
    fields.add([1, UInt16(8 * values.count)])
    fields.add(values)
    return fields.bytes
  }

  private static func directoryEntry(_ record: Record) -> [UInt8] {
    let extra = extra(record)
    var fields = LittleEndianBytes()
    fields.add(UInt32(0x0201_4B50))
    fields.add([0, 0, flags(record), 0, 0, 0] as [UInt16])
    fields.add([record.crc, UInt32(clamping: record.size), UInt32(clamping: record.size)])
    fields.add([UInt16(record.name.count), UInt16(extra.count), 0, 0, 0])
    fields.add([0, UInt32(clamping: record.offset)])
    return fields.bytes + record.name + extra
  }
}

/// Numbers as bytes, the least significant first.
private struct LittleEndianBytes {
  var bytes: [UInt8] = []

  mutating func add(_ value: some FixedWidthInteger) {
    for shift in stride(from: 0, to: value.bitWidth, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
  }

  mutating func add<Number: FixedWidthInteger>(_ values: [Number]) {
    for value in values { add(value) }
  }
}
