/// Builds zstd frames out of blocks that are not compressed, so that tests can say what stands where.
struct ZstdBuilder {
  /// What a block holds.
  enum Block {
    case raw([UInt8])
    /// One byte, many times.
    case repeated(UInt8, count: Int)
  }

  /// The largest block that the format allows.
  static let blockSize = 128 << 10

  /// A frame with a window of 128 KiB and no checksum; it says its size only if it is told one.
  static func frame(_ blocks: [Block], claimedSize: UInt64? = nil) -> [UInt8] {
    var bytes: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, claimedSize == nil ? 0 : 0xC0, 7 << 3]
    if let claimedSize { bytes += number(claimedSize, 8) }
    for (index, block) in blocks.enumerated() {
      let isLast = UInt64(index == blocks.count - 1 ? 1 : 0)
      switch block {
      case .raw(let content): bytes += number(UInt64(content.count) << 3 | isLast, 3) + content
      case .repeated(let byte, let count): bytes += number(UInt64(count) << 3 | 2 | isLast, 3) + [byte]
      }
    }
    return bytes
  }

  /// A frame that holds `content` as it is.
  static func frame(of content: [UInt8]) -> [UInt8] {
    if content.isEmpty { return frame([.raw([])]) }
    return frame(
      stride(from: 0, to: content.count, by: blockSize).map { start in
        .raw(Array(content[start..<min(start + blockSize, content.count)]))
      }, claimedSize: UInt64(content.count))
  }

  /// Little-endian bytes.
  static func number(_ value: UInt64, _ count: Int) -> [UInt8] {
    (0..<UInt64(count)).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
  }
}
