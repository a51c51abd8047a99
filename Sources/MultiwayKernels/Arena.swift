import Glibc
public import MultiwayCore

/// A part of an arena, in bytes.
public struct Region: Sendable, Hashable {
  /// The first byte.
  public var byteOffset: Int
  /// The number of bytes.
  public var byteCount: Int

  /// Makes a region; it is checked against an arena where it is used.
  public init(byteOffset: Int, byteCount: Int) {
    self.byteOffset = byteOffset
    self.byteCount = byteCount
  }

  /// True where the two share a byte.
  public func overlaps(_ other: Region) -> Bool {
    byteCount > 0 && other.byteCount > 0 && byteOffset < other.byteOffset + other.byteCount
      && other.byteOffset < byteOffset + byteCount
  }

  /// The part that starts `elements` 4-byte elements further on.
  public func dropping(elements: Int) -> Region {
    precondition(elements >= 0 && elements * 4 <= byteCount, "the elements lie outside the region")
    return Region(byteOffset: byteOffset + elements * 4, byteCount: byteCount - elements * 4)
  }
}

/// Lays regions out one after the other, each on a 64-byte boundary.
public struct RegionLayout: Sendable {
  /// The bytes laid out so far.
  public private(set) var byteCount = 0

  /// An empty layout.
  public init() {}

  /// Room for `count` bytes.
  public mutating func bytes(_ count: Int) -> Region {
    precondition(count >= 0, "a region's size is negative")
    let region = Region(byteOffset: byteCount, byteCount: count)
    byteCount += (count + 63) / 64 * 64
    return region
  }

  /// Room for `count` 4-byte elements.
  public mutating func floats(_ count: Int) -> Region { bytes(product(count, 4)) }
}

/// The memory of a run: zero at first, aligned to 64 bytes, and given to the process page by page as it is touched.
@safe
public struct Arena: ~Copyable, @unchecked Sendable {
  /// The number of bytes.
  public let byteCount: Int
  private let base: UnsafeMutableRawPointer

  /// Reserves `byteCount` zero bytes. Throws `.outOfMemory`.
  public init(byteCount: Int) throws(KernelError) {
    precondition(byteCount >= 0, "an arena's size is negative")
    let address = unsafe mmap(
      nil, max(byteCount, 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let address = unsafe address, unsafe address != MAP_FAILED else {
      throw KernelError(
        .outOfMemory, "the system does not grant \(byteCount) bytes of working memory",
        remedy: "use a smaller batch, or free memory")
    }
    unsafe base = address
    self.byteCount = byteCount
  }

  deinit { unsafe _ = munmap(base, max(byteCount, 1)) }

  /// The bytes of `region`.
  @_lifetime(borrow self)
  public func bytes(in region: Region) -> RawSpan {
    let span = unsafe RawSpan(_unsafeStart: pointer(region, byteCount: region.byteCount), byteCount: region.byteCount)
    return unsafe _overrideLifetime(span, borrowing: self)
  }

  /// The numbers in `region`: `Float`, `Int32` or another plain type whose alignment the region has.
  @_lifetime(borrow self)
  public func elements<Element: BitwiseCopyable>(of type: Element.Type, in region: Region) -> Span<Element> {
    let (start, count) = unsafe typed(type, region)
    let span = unsafe Span(_unsafeStart: UnsafePointer(start), count: count)
    return unsafe _overrideLifetime(span, borrowing: self)
  }

  /// The numbers in `region`, to change.
  @_lifetime(&self)
  public mutating func mutableElements<Element: BitwiseCopyable>(
    of type: Element.Type, in region: Region
  ) -> MutableSpan<Element> {
    let (start, count) = unsafe typed(type, region)
    let span = unsafe MutableSpan(_unsafeStart: start, count: count)
    return unsafe _overrideLifetime(span, mutating: &self)
  }

  /// A copy of the floats in `region`.
  public func read(_ region: Region) -> [Float] { read(region, as: Float.self) }

  /// A copy of the numbers in `region`.
  public func read<Element: BitwiseCopyable>(_ region: Region, as type: Element.Type) -> [Element] {
    let (start, count) = unsafe typed(type, region)
    return unsafe Array(UnsafeBufferPointer(start: start, count: count))
  }

  /// Copies `values` to the beginning of `region`, which must hold them all.
  public mutating func write<Element: BitwiseCopyable>(_ values: borrowing Span<Element>, at region: Region) {
    let (start, count) = unsafe typed(Element.self, region)
    precondition(values.count <= count, "the values do not fit in the region")
    unsafe values.withUnsafeBufferPointer { source in
      guard let first = source.baseAddress else { return }
      unsafe start.update(from: first, count: source.count)
    }
  }

  /// Copies `values` to the beginning of `region`, which must hold them all.
  public mutating func write<Element: BitwiseCopyable>(_ values: [Element], at region: Region) {
    let (start, count) = unsafe typed(Element.self, region)
    precondition(values.count <= count, "the values do not fit in the region")
    // Not through `Array.span`: the optimizer of Swift 6.3 drops the stores to an array that only a span reads.
    unsafe values.withUnsafeBufferPointer { source in
      guard let first = source.baseAddress else { return }
      unsafe start.update(from: first, count: source.count)
    }
  }

  /// Copies constant bytes to the beginning of `region`, which must hold them all.
  public mutating func write(_ bytes: TensorBytes, at region: Region) {
    precondition(bytes.byteCount <= region.byteCount, "the bytes do not fit in the region")
    let target = unsafe pointer(region, byteCount: bytes.byteCount)
    unsafe bytes.withUnsafeBaseAddress { unsafe target.copyMemory(from: $0, byteCount: bytes.byteCount) }
  }

  private func typed<Element: BitwiseCopyable>(
    _ type: Element.Type, _ region: Region
  ) -> (UnsafeMutablePointer<Element>, Int) {
    let start = unsafe pointer(region, byteCount: region.byteCount)
    precondition(region.byteOffset % MemoryLayout<Element>.alignment == 0, "the region is not aligned")
    return unsafe (
      start.assumingMemoryBound(to: Element.self), region.byteCount / MemoryLayout<Element>.stride
    )
  }

  /// The address of a region that must lie inside and hold `byteCount` bytes.
  @unsafe func pointer(_ region: Region, byteCount needed: Int) -> UnsafeMutableRawPointer {
    precondition(
      region.byteOffset >= 0 && region.byteCount >= 0 && region.byteOffset <= byteCount
        && region.byteCount <= byteCount - region.byteOffset, "the region lies outside the arena")
    precondition(needed >= 0 && needed <= region.byteCount, "the region is too small")
    return unsafe base + region.byteOffset
  }

  /// The address of `count` 4-byte elements.
  @unsafe func pointer<Element: BitwiseCopyable>(
    _ region: Region, count: Int, of type: Element.Type = Float.self
  ) -> UnsafeMutablePointer<Element> {
    precondition(region.byteOffset % MemoryLayout<Element>.alignment == 0, "the region is not aligned")
    return unsafe pointer(region, byteCount: product(count, MemoryLayout<Element>.stride))
      .assumingMemoryBound(to: Element.self)
  }
}

extension TensorBytes {
  /// The address of `count` elements. The caller keeps the bytes alive while it uses it.
  @unsafe func pointer<Element: BitwiseCopyable>(count: Int, of type: Element.Type) -> UnsafePointer<Element> {
    precondition(product(count, MemoryLayout<Element>.stride) <= byteCount, "the constant is too small")
    return unsafe withUnsafeBaseAddress { unsafe $0.assumingMemoryBound(to: type) }
  }
}
