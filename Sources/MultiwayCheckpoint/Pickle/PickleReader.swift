import MultiwayCore

/// Reads the bytes of a pickle through a window, so that a stream of any length is never held whole.
struct PickleReader {
  let source: any ByteSource
  private(set) var offset: Int
  private var window: TensorBytes
  private var windowStart: Int

  private static let windowSize = 256 << 10

  /// Reads `source` from `offset` on.
  init(_ source: any ByteSource, at offset: Int = 0) {
    self.source = source
    self.offset = min(max(0, offset), source.byteCount)
    window = AlignedBuffer(byteCount: 0).bytes
    windowStart = self.offset
  }

  /// How many bytes are left.
  var remaining: Int { source.byteCount - offset }

  /// Makes the window hold the next `count` bytes, of which there are so many.
  private mutating func fill(_ count: Int) throws(CheckpointError) {
    if count <= windowStart + window.byteCount - offset { return }
    window = try source.contents(in: offset..<offset + min(remaining, max(count, PickleReader.windowSize)))
    windowStart = offset
  }

  /// Reads one plain number in little-endian order, nil at the end.
  mutating func read<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type) throws(CheckpointError) -> T? {
    guard MemoryLayout<T>.size <= remaining else { return nil }
    try fill(MemoryLayout<T>.size)
    let window = window
    let value = window.span.load(type, at: offset - windowStart)
    offset += MemoryLayout<T>.size
    return value
  }

  /// Reads `count` bytes, nil if fewer are left.
  mutating func readBytes(_ count: Int) throws(CheckpointError) -> [UInt8]? {
    guard count >= 0, count <= remaining else { return nil }
    guard count <= source.headerLimit else {
      throw CheckpointError(.overBudget, "a text of \(count) bytes", expected: "at most \(source.headerLimit)")
    }
    try fill(count)
    let start = offset - windowStart
    offset += count
    return window.extracting(start..<start + count).array(of: UInt8.self)
  }

  /// The place of the next `count` bytes, which are skipped; nil if fewer are left.
  mutating func skip(_ count: Int) -> Range<Int>? {
    guard count >= 0, count <= remaining else { return nil }
    offset += count
    return offset - count..<offset
  }

  /// Reads up to the next line feed and over it; nil if there is none.
  mutating func readLine() throws(CheckpointError) -> [UInt8]? {
    var line: [UInt8] = []
    while remaining > 0 {
      try fill(1)
      let window = window
      let start = offset - windowStart
      var end = start
      while end < window.byteCount, window.span.byte(at: end) != 0x0A { end += 1 }
      line += window.extracting(start..<end).array(of: UInt8.self)
      offset += end - start
      if end < window.byteCount {
        offset += 1
        return line
      }
    }
    return nil
  }
}

/// A part of a source as a source of its own.
final class SourceSlice: ByteSource {
  private let whole: any ByteSource
  private let range: Range<Int>

  init(of whole: any ByteSource, range: Range<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= whole.byteCount)
    self.whole = whole
    self.range = range
  }

  var path: String { whole.path }
  var identity: FileIdentity { whole.identity }
  var byteCount: Int { range.count }
  var fileByteCount: Int { whole.fileByteCount }
  var packing: String? { whole.packing }

  func bytes(in part: Range<Int>) throws(TensorError) -> TensorBytes { try whole.bytes(in: place(part)) }
  func discard(_ part: Range<Int>) { whole.discard(place(part)) }

  private func place(_ part: Range<Int>) -> Range<Int> {
    precondition(part.lowerBound >= 0 && part.upperBound <= range.count)
    return range.lowerBound + part.lowerBound..<range.lowerBound + part.upperBound
  }
}
