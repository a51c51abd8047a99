import MultiwayCore

/// The bytes that a long text spells, one character each, as pickles of protocol 2 write bytes. The text stays in its place
/// in UTF-8 and is decoded piece by piece when bytes are asked for.
final class Latin1Source: ByteSource {
  private let text: SourceSlice
  /// Where in the text every 65,536th byte is spelled, and where the text ends.
  private let marks: [Int]
  let byteCount: Int

  private static let markSize = 64 << 10
  private static let pieceSize = 256 << 10

  /// Counts the characters; nil if the text has others than U+0000 to U+00FF, or is not UTF-8.
  init?(_ text: SourceSlice) throws(CheckpointError) {
    var marks: [Int] = []
    var count = 0
    var lead: UInt8 = 0
    for start in stride(from: 0, to: text.byteCount, by: Latin1Source.pieceSize) {
      let piece = try text.contents(in: start..<min(text.byteCount, start + Latin1Source.pieceSize))
      for index in 0..<piece.byteCount {
        let byte = piece.span.byte(at: index)
        if lead != 0 {
          guard byte & 0xC0 == 0x80 else { return nil }
          lead = 0
          continue
        }
        guard byte < 0x80 || byte == 0xC2 || byte == 0xC3 else { return nil }
        if byte >= 0x80 { lead = byte }
        if count % Latin1Source.markSize == 0 { marks.append(start + index) }
        count += 1
      }
      text.discard(start..<start + piece.byteCount)
    }
    guard lead == 0 else { return nil }
    self.text = text
    self.marks = marks + [text.byteCount]
    byteCount = count
  }

  var path: String { text.path }
  var fileByteCount: Int { text.fileByteCount }
  var identity: FileIdentity { text.identity }
  /// Bytes are decoded when they are asked for, so that asking for many costs memory.
  var packing: String? { "latin1" }

  /// The part of the text that spells the bytes in `range`, from the mark before it to the one behind it.
  private func spelling(of range: Range<Int>) -> Range<Int> {
    let last = (range.upperBound + Latin1Source.markSize - 1) / Latin1Source.markSize
    return marks[range.lowerBound / Latin1Source.markSize]..<marks[min(last, marks.count - 1)]
  }

  func bytes(in range: Range<Int>) throws(TensorError) -> TensorBytes {
    precondition(range.lowerBound >= 0 && range.upperBound <= byteCount)
    let result = AlignedBuffer(byteCount: range.count)
    if range.isEmpty { return result.bytes }
    let spelled = try text.bytes(in: spelling(of: range))
    result.fill { target in
      var skip = range.lowerBound % Latin1Source.markSize
      var position = 0
      var output = 0
      while output < range.count, position < spelled.byteCount {
        let byte = spelled.span.byte(at: position)
        let isLong = byte >= 0x80 && position + 1 < spelled.byteCount
        let value = isLong ? byte << 6 | spelled.span.byte(at: position + 1) & 0x3F : byte
        position += isLong ? 2 : 1
        if skip > 0 {
          skip -= 1
        } else {
          target.storeBytes(of: value, toByteOffset: output, as: UInt8.self)
          output += 1
        }
      }
    }
    return result.bytes
  }

  func discard(_ range: Range<Int>) {
    if !range.isEmpty, range.lowerBound >= 0, range.upperBound <= byteCount { text.discard(spelling(of: range)) }
  }
}
