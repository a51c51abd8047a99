/// Builds zip archives record by record, also those that no tool would make.
struct ZipBuilder {
  struct Record {
    var name: String
    var data: [UInt8]
    var isDeflated = false
    /// Writes the sizes after the payload, as `torch.save` does.
    var isStreamed = true
    var crc: UInt32?
    var claimedSize: Int?
    var localName: String?
    var flags: UInt16?
    var usesZip64 = false
  }

  var records: [Record] = []
  var prefix: [UInt8] = []
  var suffix: [UInt8] = []
  var comment: [UInt8] = []
  var countOffset = 0
  var hasZip64End = true
  var alignment = 64

  mutating func add(_ name: String, _ data: [UInt8]) { records.append(Record(name: name, data: data)) }

  func build() -> [UInt8] {
    var file = prefix
    var directory: [UInt8] = []
    for record in records { append(record, to: &file, directory: &directory) }
    let directoryOffset = file.count
    file += directory
    let count = records.count + countOffset
    if hasZip64End {
      let end = file.count
      file += [0x50, 0x4B, 6, 6] + number(44, 8) + number(0, 4) + number(0, 4) + number(0, 4)
      file += number(count, 8) + number(count, 8) + number(directory.count, 8) + number(directoryOffset, 8)
      file += [0x50, 0x4B, 6, 7] + number(0, 4) + number(end, 8) + number(1, 4)
    }
    file += [0x50, 0x4B, 5, 6] + number(0, 4) + number(count, 2) + number(count, 2)
    file += number(directory.count, 4) + number(directoryOffset, 4) + number(comment.count, 2) + comment
    return file + suffix
  }

  private func append(_ record: Record, to file: inout [UInt8], directory: inout [UInt8]) {
    let payload = record.isDeflated ? ZipBuilder.storedDeflate(record.data) : record.data
    let crc = Int(record.crc ?? ZipBuilder.crc32(record.data))
    let size = record.claimedSize ?? record.data.count
    let packed = record.isDeflated ? payload.count : size
    let flags = record.flags ?? (record.isStreamed ? 0x0808 : 0x0800)
    let name = Array(record.name.utf8)
    let localName = record.localName.map { Array($0.utf8) } ?? name
    let offset = file.count
    let method = record.isDeflated ? 8 : 0
    file += [0x50, 0x4B, 3, 4] + number(0, 2) + number(Int(flags), 2) + number(method, 2) + number(0, 4)
    file += record.isStreamed ? number(0, 12) : number(crc, 4) + number(packed, 4) + number(size, 4)
    let padding = alignment - (file.count + 4 + localName.count + 4) % alignment
    file += number(localName.count, 2) + number(padding + 4, 2) + localName
    file += [0x46, 0x42] + number(padding, 2) + [UInt8](repeating: 0x5A, count: padding)
    file += payload
    if record.isStreamed { file += [0x50, 0x4B, 7, 8] + number(crc, 4) + number(packed, 4) + number(size, 4) }

    let extra = record.usesZip64 ? number(1, 2) + number(16, 2) + number(size, 8) + number(packed, 8) : []
    let narrow = Int(UInt32.max)
    directory += [0x50, 0x4B, 1, 2] + number(0, 4) + number(Int(flags), 2) + number(method, 2) + number(0, 4)
    directory += number(crc, 4) + number(record.usesZip64 ? narrow : packed, 4)
    directory += number(record.usesZip64 ? narrow : size, 4)
    directory += number(name.count, 2) + number(extra.count, 2) + number(0, 2) + number(0, 8) + number(offset, 4)
    directory += name + extra
  }

  private func number(_ value: Int, _ count: Int) -> [UInt8] {
    (0..<count).map { $0 < 8 ? UInt8(truncatingIfNeeded: value >> ($0 * 8)) : 0 }
  }

  /// A deflate stream of stored blocks.
  static func storedDeflate(_ data: [UInt8]) -> [UInt8] {
    var stream: [UInt8] = []
    var start = 0
    repeat {
      let end = min(data.count, start + 65_535)
      let count = UInt16(end - start)
      stream.append(end == data.count ? 1 : 0)
      for value in [count, ~count] { stream += [UInt8(truncatingIfNeeded: value), UInt8(value >> 8)] }
      stream += data[start..<end]
      start = end
    } while start < data.count
    return stream
  }

  static func crc32(_ data: [UInt8]) -> UInt32 {
    var crc: UInt32 = .max
    for byte in data { crc = table[Int(UInt8(truncatingIfNeeded: crc) ^ byte)] ^ crc >> 8 }
    return ~crc
  }

  private static let table: [UInt32] = (0..<256).map { index in
    (0..<8).reduce(UInt32(index)) { value, _ in value & 1 == 1 ? 0xEDB8_8320 ^ value >> 1 : value >> 1 }
  }
}
