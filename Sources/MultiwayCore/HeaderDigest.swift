/// The digest of all bytes of a file that belong to no tensor: its header, metadata and graph, and what fills the space between tensors.
///
/// It is written among the very bytes that it is of, as `xxh3-128:` and 32 hexadecimal digits. Wherever this text stands, its digits
/// count as zeros, so that a writer takes the digest with zeros in their place and puts the digits there when it knows them.
public struct HeaderDigest: ~Copyable {
  private static let mark = TensorDigest.algorithm + ":"
  /// The text before the digest is known; as long as every other.
  public static let placeholder = mark + TensorDigest.placeholder

  /// How many bytes are looked at in one go.
  private static let windowSize = 64 << 10

  private var digest = TensorDigest()
  private let text: [UInt8]
  private let neutral = Array(HeaderDigest.placeholder.utf8)
  /// The last bytes that came, in which the text may have begun.
  private var held: [UInt8] = []

  /// True for a text that can be such a digest.
  public static func isDigest(_ text: String) -> Bool {
    text.hasPrefix(mark) && TensorDigest.isDigest(String(text.dropFirst(mark.count)))
  }

  /// Starts a digest of bytes in which `text` stands: the digest that a file records, or the placeholder.
  public init(of text: String = HeaderDigest.placeholder) { self.text = Array(text.utf8) }

  /// Adds the bytes that come next.
  public mutating func update(_ bytes: borrowing RawSpan) {
    for start in stride(from: 0, to: bytes.byteCount, by: HeaderDigest.windowSize) {
      add(bytes.array(in: start..<min(bytes.byteCount, start + HeaderDigest.windowSize)))
    }
  }

  /// Adds the bytes that come next.
  public mutating func update(_ bytes: [UInt8]) {
    for start in stride(from: 0, to: bytes.count, by: HeaderDigest.windowSize) {
      add(bytes[start..<min(bytes.count, start + HeaderDigest.windowSize)])
    }
  }

  /// Gives the digest of everything that was added, as text.
  public consuming func finish() -> String {
    feed(held)
    return HeaderDigest.mark + digest.finish()
  }

  private mutating func add(_ bytes: some Collection<UInt8>) {
    var window = held
    window += bytes
    var place = 0
    while let found = HeaderDigest.place(of: text, in: window, from: place) {
      window.replaceSubrange(found..<found + text.count, with: neutral)
      place = found + text.count
    }
    let kept = min(text.count - 1, window.count - place)
    held = Array(window.suffix(kept))
    window.removeLast(kept)
    feed(window)
  }

  private mutating func feed(_ bytes: [UInt8]) { withBytes(of: bytes) { digest.update($0) } }

  /// Where a text stands first in bytes.
  private static func place(of text: [UInt8], in bytes: [UInt8], from start: Int) -> Int? {
    guard bytes.count - start >= text.count else { return nil }
    for place in start...bytes.count - text.count
    where bytes[place] == text[0] && bytes[place..<place + text.count].elementsEqual(text) {
      return place
    }
    return nil
  }

  /// Where the placeholder stands last in bytes that a writer has made.
  public static func lastPlaceholder(in bytes: RawSpan) -> Int? {
    let text = Array(placeholder.utf8)
    return stride(from: bytes.byteCount - text.count, through: 0, by: -1).first { bytes.starts(with: text, at: $0) }
  }
}

extension ByteSource {
  /// What of the file lies outside of `ranges`, which may overlap and stand in any order.
  public func gaps(between ranges: [Range<Int>]) -> [Range<Int>] {
    var gaps: [Range<Int>] = []
    var end = 0
    for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) where !range.isEmpty {
      if range.lowerBound > end { gaps.append(end..<range.lowerBound) }
      end = max(end, range.upperBound)
    }
    if end < byteCount { gaps.append(end..<byteCount) }
    return gaps
  }

  /// Gives the bytes in `range` piece by piece, and lets them go.
  public func read(_ range: Range<Int>, _ body: (borrowing RawSpan) throws -> Void) throws {
    for start in stride(from: range.lowerBound, to: range.upperBound, by: StoredTensor.pieceSize) {
      let bytes = try bytes(in: start..<min(range.upperBound, start + StoredTensor.pieceSize))
      try body(bytes.span)
    }
    discard(range)
  }
}

/// What of a file belongs to no tensor, digested while its tensors are read in the file's order.
public struct HeaderReader: ~Copyable {
  private let file: any ByteSource
  private var gaps: ArraySlice<Range<Int>>
  private let zeros: [Range<Int>]
  private var digest: HeaderDigest

  /// - Parameters:
  ///   - recorded: the digest that the file records of these bytes.
  ///   - tensors: where tensors lie in the file, in any order; they may share bytes.
  ///   - zeros: bytes that count as zeros: checksums of what holds the digest.
  public init(_ file: any ByteSource, recorded: String, tensors: [Range<Int>], zeros: [Range<Int>] = []) {
    self.file = file
    self.zeros = zeros
    digest = HeaderDigest(of: recorded)
    gaps = (file.gaps(between: tensors + zeros) + zeros).sorted { $0.lowerBound < $1.lowerBound }[...]
  }

  /// Reads what lies before a place of the file and has not been read.
  public mutating func read(before place: Int) throws {
    while let gap = gaps.first, gap.upperBound <= place {
      gaps.removeFirst()
      if zeros.contains(gap) {
        digest.update([UInt8](repeating: 0, count: gap.count))
      } else {
        try file.read(gap) { digest.update($0) }
      }
    }
  }

  /// Reads the rest and gives the digest.
  public consuming func finish() throws -> String {
    try read(before: .max)
    return digest.finish()
  }
}
