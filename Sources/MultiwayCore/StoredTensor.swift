/// Where a tensor's elements are kept. One storage may serve several tensors (tied weights, views).
public protocol TensorStorage: AnyObject, Sendable {
  /// The number of bytes of the storage.
  var byteCount: Int { get }
  /// The bytes after every check that the container offers (checksum, length, decompression); in place where possible.
  func load() throws(TensorError) -> TensorBytes
  /// The bytes of `load()` in `range`, which must lie within: without the rest where the storage can do that.
  func load(in range: Range<Int>) throws(TensorError) -> TensorBytes
  /// Lets the pages go that `load()` touched; they come back when they are read again.
  func discard()
  /// The tensors that the elements are computed from, nil for a storage that is not computed.
  var origins: [StoredTensor]? { get }
  /// The bytes of `load(in:)` for a reader that goes through them once and in order, and calls `verify()` before anything comes of them:
  /// checks may wait until then.
  func peek(in range: Range<Int>) throws(TensorError) -> TensorBytes
  /// Does the checks that `peek` left out.
  func verify() throws(TensorError)
  /// How much memory it takes to read a small part, besides the part: nothing where parts can be read without the rest.
  var workingByteCount: Int { get }
  /// True where the bytes are unpacked from a file in order, so that reading here and there costs time.
  var isPacked: Bool { get }
  /// Where in a file the bytes in `range` lie as they are; nil where they are computed, unpacked, or in memory alone.
  func place(of range: Range<Int>) -> FilePlace?
  /// Gives the bytes in `range`, which must lie within, in pieces of at most about `pieceSize`, as `peek` does. A storage that is computed
  /// tells `claim` what it reads.
  func stream(
    in range: Range<Int>, pieceSize: Int, noting claim: SourceClaim?, _ body: (TensorBytes) throws -> Void
  ) throws
}

extension TensorStorage {
  /// Loads everything and takes the part.
  public func load(in range: Range<Int>) throws(TensorError) -> TensorBytes { try load().extracting(range) }
  /// Nil: the elements are stored.
  public var origins: [StoredTensor]? { nil }
  /// The same as `load(in:)`, with all checks.
  public func peek(in range: Range<Int>) throws(TensorError) -> TensorBytes { try load(in: range) }
  /// Nothing was left out.
  public func verify() {}
  /// All of it, for a storage that does not say more.
  public var workingByteCount: Int { byteCount }
  /// False: the bytes lie in a file or in memory.
  public var isPacked: Bool { false }
  /// Nil: in no file.
  public func place(of range: Range<Int>) -> FilePlace? { nil }
  /// Cuts what `peek` gives: of everything at once where parts cannot be had without the rest.
  public func stream(
    in range: Range<Int>, pieceSize: Int, noting claim: SourceClaim?, _ body: (TensorBytes) throws -> Void
  ) throws {
    let whole = workingByteCount > 0 && !range.isEmpty ? try peek(in: range) : nil
    for start in stride(from: range.lowerBound, to: range.upperBound, by: max(1, pieceSize)) {
      let part = start..<min(range.upperBound, start + max(1, pieceSize))
      try body(
        try whole?.extracting(part.lowerBound - range.lowerBound..<part.upperBound - range.lowerBound) ?? peek(in: part)
      )
    }
  }
}

/// A range of a file.
public struct FilePlace: Sendable {
  /// The file, or the contents of a packed one.
  public var file: any ByteSource
  /// The bytes in it.
  public var range: Range<Int>

  /// Names a range.
  public init(file: any ByteSource, range: Range<Int>) {
    self.file = file
    self.range = range
  }
}

/// A storage in memory.
public final class MemoryStorage: TensorStorage {
  private let bytes: TensorBytes

  /// Keeps `bytes`.
  public init(_ bytes: TensorBytes) { self.bytes = bytes }
  /// The number of bytes.
  public var byteCount: Int { bytes.byteCount }
  /// The bytes.
  public func load() -> TensorBytes { bytes }
  /// Nothing to let go.
  public func discard() {}
  /// Nothing: the bytes are in memory.
  public var workingByteCount: Int { 0 }
}

/// A storage that is a range of a file, with no checksum of its own.
public final class FileRange: TensorStorage {
  private let file: any ByteSource
  private let range: Range<Int>

  /// The bytes of `file` in `range`, which must lie within.
  public init(file: any ByteSource, range: Range<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= file.byteCount)
    self.file = file
    self.range = range
  }

  /// The number of bytes.
  public var byteCount: Int { range.count }
  /// The bytes, in place where the file is mapped.
  public func load() throws(TensorError) -> TensorBytes { try file.bytes(in: range) }
  /// The bytes of a part, in place where the file is mapped.
  public func load(in part: Range<Int>) throws(TensorError) -> TensorBytes {
    precondition(part.lowerBound >= 0 && part.upperBound <= range.count)
    return try file.bytes(in: range.lowerBound + part.lowerBound..<range.lowerBound + part.upperBound)
  }
  /// Lets the pages go.
  public func discard() { file.discard(range) }
  /// Nothing: parts are read without the rest.
  public var workingByteCount: Int { 0 }
  /// True where the file is packed.
  public var isPacked: Bool { file.packing != nil }
  /// The part of the range.
  public func place(of part: Range<Int>) -> FilePlace? {
    FilePlace(file: file, range: range.lowerBound + part.lowerBound..<range.lowerBound + part.upperBound)
  }
}

/// A storage that is a part of another one.
public final class StorageSlice: TensorStorage {
  private let whole: any TensorStorage
  private let range: Range<Int>

  /// The bytes of `whole` in `range`, which must lie within.
  public init(of whole: any TensorStorage, range: Range<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= whole.byteCount)
    self.whole = whole
    self.range = range
  }

  /// The number of bytes.
  public var byteCount: Int { range.count }
  /// The bytes of the part.
  public func load() throws(TensorError) -> TensorBytes { try whole.load(in: range) }
  /// The bytes of a part of the part.
  public func load(in part: Range<Int>) throws(TensorError) -> TensorBytes {
    precondition(part.lowerBound >= 0 && part.upperBound <= range.count)
    return try whole.load(in: range.lowerBound + part.lowerBound..<range.lowerBound + part.upperBound)
  }
  /// The bytes of a part of the part, unchecked as yet.
  public func peek(in part: Range<Int>) throws(TensorError) -> TensorBytes {
    precondition(part.lowerBound >= 0 && part.upperBound <= range.count)
    return try whole.peek(in: range.lowerBound + part.lowerBound..<range.lowerBound + part.upperBound)
  }
  /// Checks the whole storage.
  public func verify() throws(TensorError) { try whole.verify() }
  /// True where the whole storage is.
  public var isPacked: Bool { whole.isPacked }
  /// Where the whole storage has the part of the part.
  public func place(of part: Range<Int>) -> FilePlace? {
    whole.place(of: range.lowerBound + part.lowerBound..<range.lowerBound + part.upperBound)
  }
  /// What the whole storage takes.
  public var workingByteCount: Int { whole.workingByteCount }
  /// Lets the pages of the whole storage go.
  public func discard() { whole.discard() }
}

/// A tensor as a container holds it: a name, a dtype, a shape, and a view of a storage. Nothing is read until it is asked for.
public struct StoredTensor: Sendable {
  /// The name in the container.
  public var name: String
  /// The element type.
  public var dtype: DType
  /// The dimensions.
  public var shape: Shape
  /// Strides in elements; equal to `shape.contiguousStrides` for a tensor in C order.
  public var strides: [Int]
  /// The first element's position in the storage, in elements.
  public var elementOffset: Int
  /// Where the elements are.
  public var storage: any TensorStorage
  /// True where the elements are stored in big-endian order.
  public var isBigEndian: Bool

  /// Describes a tensor in C order that starts at the beginning of `storage` unless told otherwise.
  public init(
    name: String, dtype: DType, shape: Shape, strides: [Int]? = nil, elementOffset: Int = 0, storage: any TensorStorage,
    isBigEndian: Bool = false
  ) {
    self.name = name
    self.dtype = dtype
    self.shape = shape
    self.strides = strides ?? shape.contiguousStrides
    self.elementOffset = elementOffset
    self.storage = storage
    self.isBigEndian = isBigEndian
  }

  /// Makes a tensor in memory from plain numbers whose layout is that of `dtype`.
  public init<Element: BitwiseCopyable>(name: String, dtype: DType, shape: Shape, elements: [Element]) {
    self.init(
      name: name, dtype: dtype, shape: shape, storage: MemoryStorage(TensorBytes(copying: elements)))
  }

  /// The size of the elements in C order, in bytes. Readers have checked that it does not overflow.
  public var byteCount: Int { shape.byteCount(of: dtype) ?? 0 }

  /// True where the elements lie in C order without gaps.
  public var isContiguous: Bool {
    if shape.elementCount == 0 { return true }
    for (index, stride) in shape.contiguousStrides.enumerated() where shape[index] > 1 && strides[index] != stride {
      return false
    }
    return true
  }

  /// The elements in C order and little-endian: in place where the storage holds them so, gathered into new memory otherwise.
  public func contiguousBytes() throws(TensorError) -> TensorBytes {
    if byteCount == 0 { return AlignedBuffer(byteCount: 0).bytes }
    guard isContiguous && !isBigEndian else { return try gathered(from: try storage.load()) }
    guard let range = contiguousRange else { throw outside(storage.byteCount) }
    return try storage.load(in: range)
  }

  /// Where the elements lie in the storage, nil where they do not lie there in C order and little-endian.
  public var contiguousRange: Range<Int>? {
    guard isContiguous && !isBigEndian else { return nil }
    let (start, overflow) = elementOffset.multipliedReportingOverflow(by: dtype.bitWidth)
    guard !overflow, start >= 0, start % 8 == 0, start / 8 <= storage.byteCount,
      storage.byteCount - start / 8 >= byteCount
    else { return nil }
    return start / 8..<start / 8 + byteCount
  }

  /// Where the elements lie in a file in C order and little-endian; nil where they do not.
  public var place: FilePlace? { byteCount == 0 ? nil : contiguousRange.flatMap { storage.place(of: $0) } }

  /// How large the pieces are in which tensors pass through: they stay in a core's second-level cache.
  public static let pieceSize = 1 << 20

  /// `contiguousBytes()` for a reader that sees to it that the storage is verified before anything comes of the bytes.
  public func peekedBytes(noting claim: SourceClaim?) throws(TensorError) -> TensorBytes {
    guard byteCount > 0, let range = contiguousRange else { return try contiguousBytes() }
    let bytes = try storage.peek(in: range)
    claim?.note(bytes, at: range.lowerBound, of: storage)
    return bytes
  }

  /// Gives the elements in C order and little-endian in pieces of at most about `pieceSize` bytes. Checks of the container may be left
  /// to `storage.verify()`.
  public func stream(
    pieceSize: Int, noting claim: SourceClaim? = nil, _ body: (TensorBytes) throws -> Void
  ) throws {
    if byteCount == 0 { return }
    if let range = contiguousRange {
      var start = range.lowerBound
      return try storage.stream(in: range, pieceSize: pieceSize, noting: claim) { piece in
        claim?.note(piece, at: start, of: storage)
        start += piece.byteCount
        try body(piece)
      }
    }
    let bytes = try contiguousBytes()
    for start in stride(from: 0, to: bytes.byteCount, by: pieceSize) {
      try body(bytes.extracting(start..<min(bytes.byteCount, start + pieceSize)))
    }
  }

  /// How much memory `stream` takes besides a piece.
  public var workingByteCount: Int {
    contiguousRange == nil ? storage.byteCount + byteCount : storage.workingByteCount
  }

  /// Lets the pages of the storage go.
  public func discard() { storage.discard() }

  private func outside(_ byteCount: Int) -> TensorError {
    TensorError(
      .invalidShape, "the view of shape \(shape), strides \(strides), offset \(elementOffset) leaves its storage",
      expected: "at most \(byteCount) bytes", tensor: name)
  }

  private func gathered(from stored: TensorBytes) throws(TensorError) -> TensorBytes {
    guard let width = dtype.byteWidth else {
      throw TensorError(.unsupported, "a view of packed \(dtype.rawValue) elements", tensor: name)
    }
    var last = elementOffset
    for (dimension, stride) in zip(shape.dimensions, strides) {
      let (reach, overflow) = (dimension - 1).multipliedReportingOverflow(by: stride)
      let (sum, overflow2) = last.addingReportingOverflow(reach)
      guard !overflow, !overflow2, stride >= 0 else { throw outside(stored.byteCount) }
      last = sum
    }
    guard elementOffset >= 0, last < stored.byteCount / width else { throw outside(stored.byteCount) }
    let result = AlignedBuffer(byteCount: byteCount)
    let swap = isBigEndian ? dtype.swapWidth : 1
    result.fill { target in
      StoredTensor.gather(
        stored.span, into: &target, dimensions: shape.dimensions, strides: strides, offset: elementOffset, width: width,
        swap: swap)
    }
    return result.bytes
  }

  /// Copies element by element in C order; the caller has checked the reach of the strides.
  private static func gather(
    _ source: RawSpan, into target: inout MutableRawSpan, dimensions: [Int], strides: [Int], offset: Int, width: Int,
    swap: Int
  ) {
    var position = [Int](repeating: 0, count: dimensions.count)
    var element = offset
    var output = 0
    while true {
      let start = element * width
      for byte in 0..<width {
        let from = swap == 1 ? byte : byte / swap * swap + (swap - 1 - byte % swap)
        target.storeBytes(of: source.byte(at: start + from), toByteOffset: output + byte, as: UInt8.self)
      }
      output += width
      var axis = dimensions.count - 1
      while axis >= 0 {
        // A dimension of size 1 may have any stride: it is added and taken away again, so wrapping does no harm.
        position[axis] += 1
        element &+= strides[axis]
        if position[axis] < dimensions[axis] { break }
        element &-= dimensions[axis] &* strides[axis]
        position[axis] = 0
        axis -= 1
      }
      if axis < 0 { return }
    }
  }

  /// The elements as fp32 in C order. Integers and f64 round to nearest; packed, complex and exotic 8-bit floats are refused.
  public func floats() throws(TensorError) -> [Float] {
    try checkDecodable()
    return try floats(from: try contiguousBytes())
  }

  /// The elements as fp32, from the bytes that `contiguousBytes()` or `peekedBytes(noting:)` gave.
  public func floats(from bytes: TensorBytes) throws(TensorError) -> [Float] {
    try checkDecodable()
    switch dtype {
    case .f32: return bytes.array(of: Float.self)
    case .f64: return bytes.array(of: Double.self).map { Float($0) }
    case .f16: return bytes.array(of: UInt16.self).map(HalfPrecision.float(fromF16:))
    case .bf16: return bytes.array(of: UInt16.self).map(HalfPrecision.float(fromBF16:))
    case .f8e5m2: return bytes.array(of: UInt8.self).map(HalfPrecision.float(fromF8E5M2:))
    case .f8e4m3: return bytes.array(of: UInt8.self).map(HalfPrecision.float(fromF8E4M3:))
    case .bool: return bytes.array(of: UInt8.self).map { $0 == 0 ? 0 : 1 }
    default: return integers(bytes).map { Float($0) }
    }
  }

  private func checkDecodable() throws(TensorError) {
    guard dtype.isDecodable else {
      throw TensorError(
        .unsupported, "\(dtype.rawValue) elements cannot be read as numbers",
        expected: "one of " + DType.allCases.filter(\.isDecodable).map(\.rawValue).joined(separator: ", "), tensor: name
      )
    }
  }

  /// The elements as integers in C order, for integer and bool tensors.
  public func integers() throws(TensorError) -> [Int] {
    switch dtype {
    case .i8, .i16, .i32, .i64, .u8, .u16, .u32, .bool: return integers(try contiguousBytes())
    default:
      throw TensorError(.unsupported, "\(dtype.rawValue) elements are not integers", tensor: name)
    }
  }

  private func integers(_ bytes: TensorBytes) -> [Int] {
    switch dtype {
    case .i8: bytes.array(of: Int8.self).map(Int.init)
    case .i16: bytes.array(of: Int16.self).map(Int.init)
    case .i32: bytes.array(of: Int32.self).map(Int.init)
    case .i64: bytes.array(of: Int64.self).map(Int.init)
    case .u16: bytes.array(of: UInt16.self).map(Int.init)
    case .u32: bytes.array(of: UInt32.self).map(Int.init)
    case .u64: bytes.array(of: UInt64.self).map { Int(clamping: $0) }
    default: bytes.array(of: UInt8.self).map(Int.init)
    }
  }
}
