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

  /// How many bytes of headers (a zip directory, a JSON or GGUF header, a text in a pickle) a reader may hold in memory: whatever the
  /// file holds where they lie in place; where they are unpacked, 16 times the file and 4 MiB more, as a few bytes can unpack to many
  /// and what is parsed takes some times its size.
  public var headerLimit: Int { isInPlace ? byteCount : min(byteCount, 4 << 20 + min(fileByteCount, 1 << 32) * 16) }
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

/// Bytes in memory as a source: an unpacked record, bytes that a pickle holds, or a file that somebody fetched.
public final class MemorySource: ByteSource {
  /// The path of the file that the bytes are from.
  public let path: String
  /// Which file that is.
  public let identity: FileIdentity
  /// The size of that file in bytes.
  public let fileByteCount: Int
  private let contents: TensorBytes

  /// A part of `file`, whose path and identity it has.
  public init(_ bytes: TensorBytes, of file: any ByteSource) {
    contents = bytes
    path = file.path
    identity = file.identity
    fileByteCount = file.fileByteCount
  }

  /// A whole file that is nowhere but in memory; `path` is what errors call it, and where files are looked for that lie beside it.
  public init(_ bytes: TensorBytes, path: String) {
    contents = bytes
    self.path = path
    identity = FileIdentity(device: 0, inode: 0)
    fileByteCount = bytes.byteCount
  }

  /// The number of bytes.
  public var byteCount: Int { contents.byteCount }
  /// The bytes are unpacked already.
  public var packing: String? { nil }
  /// The bytes in place.
  public func bytes(in range: Range<Int>) -> TensorBytes { contents.extracting(range) }
  /// Nothing to let go.
  public func discard(_ range: Range<Int>) {}
}

extension MappedFile: ByteSource {
  /// The size of the file in bytes.
  public var fileByteCount: Int { byteCount }
  /// A mapped file is not packed.
  public var packing: String? { nil }
  /// The bytes in place.
  public func bytes(in range: Range<Int>) -> TensorBytes { bytes.extracting(range) }
}
