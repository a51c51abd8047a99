import MultiwayCore

/// The members of an uncompressed tar archive, by name. Nothing is ever extracted; names are only compared.
struct TarArchive {
  /// The places of the regular files' bytes, with names in the order of the archive.
  private(set) var members: [(name: String, range: Range<Int>)] = []

  private static let blockSize = 512

  init(_ file: any ByteSource) throws(CheckpointError) {
    var offset = 0
    while true {
      guard file.byteCount - offset >= TarArchive.blockSize else {
        throw CheckpointError(
          .truncated, "the tar archive ends without its end mark", expected: "a block of 512 zero bytes",
          remedy: "the download or copy is incomplete: fetch it again", byteOffset: offset)
      }
      let header = try file.contents(in: offset..<offset + TarArchive.blockSize).array(of: UInt8.self)
      if header.allSatisfy({ $0 == 0 }) { break }
      offset = try add(header, at: offset, size: file.byteCount)
    }
    try TarArchive.checkPadding(file, from: offset)
  }

  /// The place of a member's bytes.
  func range(of name: String) -> Range<Int>? { members.first { $0.name == name }?.range }

  /// Reads one header and returns where the next starts.
  private mutating func add(_ header: [UInt8], at offset: Int, size: Int) throws(CheckpointError) -> Int {
    // The checksum is the sum of all bytes, its own field taken as spaces.
    let sum = header.indices.reduce(0) { $0 + ((148..<156).contains($1) ? 0x20 : Int(header[$1])) }
    guard TarArchive.octal(header[148..<156]) == sum else {
      throw CheckpointError(
        .corrupt, "a tar header whose checksum is wrong", expected: "\(sum) in octal",
        remedy: "the file is damaged: fetch it again", byteOffset: offset)
    }
    let start = offset + TarArchive.blockSize
    guard let count = TarArchive.octal(header[124..<136]) else {
      throw CheckpointError(.malformed, "a tar member whose size is no octal number", byteOffset: offset)
    }
    guard count <= size - start else {
      throw CheckpointError(
        .truncated, "a tar member of \(count) bytes", expected: "at most \(size - start), which are left",
        remedy: "the download or copy is incomplete: fetch it again", byteOffset: offset)
    }
    // Only regular files are of interest; the rest (folders, links, long names) is passed over.
    if header[156] == 0 || header[156] == UInt8(ascii: "0") {
      guard let name = String(validating: header[0..<100].prefix { $0 != 0 }, as: UTF8.self) else {
        throw CheckpointError(.malformed, "a tar member whose name is not UTF-8", byteOffset: offset)
      }
      guard range(of: name) == nil else {
        throw CheckpointError(.duplicateName, "two tar members are called '\(name)'", byteOffset: offset)
      }
      guard members.count < TarArchive.maximumMembers else {
        throw CheckpointError(.overBudget, "more than \(TarArchive.maximumMembers) tar members", byteOffset: offset)
      }
      members.append((name, start..<start + count))
    }
    return start + (count + TarArchive.blockSize - 1) / TarArchive.blockSize * TarArchive.blockSize
  }

  private static let maximumMembers = 1000

  /// An octal number of at most 12 digits, ended by a zero byte or a space; nil for anything else.
  private static func octal(_ field: ArraySlice<UInt8>) -> Int? {
    var value = 0
    var digits = 0
    for byte in field.drop(while: { $0 == 0x20 }) {
      if byte == 0 || byte == 0x20 { break }
      guard (UInt8(ascii: "0")...UInt8(ascii: "7")).contains(byte) else { return nil }
      value = value << 3 | Int(byte - UInt8(ascii: "0"))
      digits += 1
    }
    return digits > 0 && digits <= 12 ? value : nil
  }

  /// Everything from the end mark on is zero, in whole blocks.
  private static func checkPadding(_ file: any ByteSource, from start: Int) throws(CheckpointError) {
    guard (file.byteCount - start) % blockSize == 0 else {
      throw CheckpointError(
        .trailingData, "the tar archive does not end with a whole block", expected: "a multiple of 512 bytes",
        byteOffset: file.byteCount)
    }
    var offset = start
    while offset < file.byteCount {
      let bytes = try file.contents(in: offset..<min(file.byteCount, offset + 64 << 10)).array(of: UInt8.self)
      guard bytes.allSatisfy({ $0 == 0 }) else {
        throw CheckpointError(.trailingData, "bytes after the end mark of the tar archive", byteOffset: offset)
      }
      offset += bytes.count
    }
  }
}
