/// Reads little-endian numbers from a span, every one checked against its end.
public struct ByteReader: ~Escapable {
  /// The bytes.
  public let bytes: RawSpan
  /// The next byte to read.
  public private(set) var offset: Int

  /// Reads `bytes` from `offset` on.
  @_lifetime(copy bytes)
  public init(_ bytes: RawSpan, at offset: Int = 0) {
    self.bytes = bytes
    self.offset = min(max(0, offset), bytes.byteCount)
  }

  /// How many bytes are left.
  public var remaining: Int { bytes.byteCount - offset }

  /// Moves on by `count` bytes; false, without moving, if fewer are left.
  public mutating func skip(_ count: Int) -> Bool {
    guard count >= 0, count <= remaining else { return false }
    offset += count
    return true
  }

  /// Reads one plain number in little-endian order, nil at the end.
  public mutating func read<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type) -> T? {
    guard let value = bytes.load(type, at: offset) else { return nil }
    offset += MemoryLayout<T>.size
    return value
  }

  /// Reads `count` bytes, nil if fewer are left.
  public mutating func readBytes(_ count: Int) -> [UInt8]? {
    guard count >= 0, count <= remaining else { return nil }
    let result = bytes.array(in: offset..<offset + count)
    offset += count
    return result
  }
}

extension RawSpan {
  /// The little-endian number at `offset`, nil if it does not lie within.
  public func load<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, at offset: Int) -> T? {
    guard offset >= 0, offset <= byteCount, byteCount - offset >= MemoryLayout<T>.size else { return nil }
    return T(littleEndian: unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: type))
  }

  /// The byte at `offset`, which must lie within.
  public func byte(at offset: Int) -> UInt8 {
    precondition(offset >= 0 && offset < byteCount)
    return unsafe unsafeLoad(fromUncheckedByteOffset: offset, as: UInt8.self)
  }

  /// A copy of the bytes in `range`, which must lie within.
  public func array(in range: Range<Int>) -> [UInt8] {
    let part = extracting(range)
    return unsafe [UInt8](unsafeUninitializedCapacity: part.byteCount) { buffer, filled in
      unsafe part.withUnsafeBytes { source in
        if let start = source.baseAddress, let target = buffer.baseAddress {
          unsafe UnsafeMutableRawPointer(target).copyMemory(from: start, byteCount: source.count)
        }
      }
      filled = part.byteCount
    }
  }

  /// A copy of all bytes.
  public var array: [UInt8] { array(in: 0..<byteCount) }

  /// True where the bytes at `offset` are those of `prefix`.
  public func starts(with prefix: [UInt8], at offset: Int = 0) -> Bool {
    guard offset >= 0, offset <= byteCount, byteCount - offset >= prefix.count else { return false }
    for index in prefix.indices where byte(at: offset + index) != prefix[index] { return false }
    return true
  }
}

/// Calls `body` with the bytes of an array.
///
/// Not `elements.span.bytes`: where that is inlined into another module, the optimiser of Swift 6.3.1 takes a temporary
/// array for unread and drops its elements before the span's reader sees them.
func withBytes<Element: BitwiseCopyable, R, E: Error>(
  of elements: [Element], _ body: (RawSpan) throws(E) -> R
) throws(E) -> R {
  let result: Result<R, E> = unsafe elements.withUnsafeBytes { buffer in
    do throws(E) {
      return .success(try body(unsafe RawSpan(_unsafeBytes: buffer)))
    } catch {
      return .failure(error)
    }
  }
  return try result.get()
}
