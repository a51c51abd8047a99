/// Bytes that a reader may ask for by place: a mapped file, or the contents of a compressed one.
///
/// Readers ask for headers and records only, so that a source whose bytes are unpacked as they are asked for never holds them all.
public protocol ByteSource: AnyObject, Sendable {
  /// The path of the file, for errors.
  var path: String { get }
  /// The number of bytes that can be asked for; of a compressed file, those after unpacking.
  var byteCount: Int { get }
  /// Which file it is, by which an output is kept from replacing its own input.
  var identity: FileIdentity { get }
  /// The bytes in `range`, which must lie within: in place where the file holds them so, in new memory otherwise.
  func bytes(in range: Range<Int>) throws(TensorError) -> TensorBytes
  /// Tells that the bytes in `range` are not needed now.
  func discard(_ range: Range<Int>)
}

extension MappedFile: ByteSource {
  /// The bytes in place.
  public func bytes(in range: Range<Int>) -> TensorBytes { bytes.extracting(range) }
}
