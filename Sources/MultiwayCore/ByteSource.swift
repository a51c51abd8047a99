/// Bytes that a reader may ask for by place: a mapped file, or the contents of a compressed one.
///
/// Readers ask for headers and records only, so that a source whose bytes are unpacked as they are asked for never holds them all.
public protocol ByteSource: AnyObject, Sendable {
  /// The path of the file, for errors.
  var path: String { get }
  /// The number of bytes that can be asked for; of a compressed file, those after unpacking.
  var byteCount: Int { get }
  /// The size of the file on the disk in bytes.
  var fileByteCount: Int { get }
  /// Which file it is, by which an output is kept from replacing its own input.
  var identity: FileIdentity { get }
  /// What the bytes are packed with in the file, such as `zstd`; nil where they lie there as they are.
  var packing: String? { get }
  /// The bytes in `range`, which must lie within: in place where the file holds them so, in new memory otherwise.
  func bytes(in range: Range<Int>) throws(TensorError) -> TensorBytes
  /// Tells that the bytes in `range` are not needed now.
  func discard(_ range: Range<Int>)
}

extension ByteSource {
  /// True where bytes are given in place, so that asking for many costs no memory.
  public var isInPlace: Bool { packing == nil }

  /// How many bytes of headers (a zip directory, a GGUF header, a pickle) a reader may hold in memory: whatever the file holds where
  /// they lie in place, 256 MiB where they are unpacked, as a few bytes can unpack to many.
  public var headerLimit: Int { isInPlace ? byteCount : min(byteCount, 256 << 20) }
}

/// One of the files that a model is read from.
public struct InputFile: Hashable, Sendable {
  /// The path by which it was opened.
  public var path: String
  /// The size on the disk in bytes.
  public var byteCount: Int
  /// Which file it is.
  public var identity: FileIdentity
  /// The SHA-256 of its bytes in hexadecimal digits, where somebody asked for it.
  public var sha256: String?

  /// Describes the file of a source.
  public init(_ source: any ByteSource) {
    path = source.path
    byteCount = source.fileByteCount
    identity = source.identity
  }
}

extension MappedFile: ByteSource {
  /// The size of the file in bytes.
  public var fileByteCount: Int { byteCount }
  /// A mapped file is not packed.
  public var packing: String? { nil }
  /// The bytes in place.
  public func bytes(in range: Range<Int>) -> TensorBytes { bytes.extracting(range) }
}
