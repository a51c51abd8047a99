import CXXHash

/// The digest of a tensor's bytes: XXH3 of 128 bits, which finds damage at the speed of memory. It does not protect against somebody
/// who chooses the bytes.
@safe
public struct TensorDigest: ~Copyable {
  /// The name of the algorithm in files.
  public static let algorithm = "xxh3-128"
  /// The text of no digest yet: as long as every digest, so that a header's size does not depend on them.
  public static let placeholder = String(repeating: "0", count: 32)

  private let state: OpaquePointer

  /// Starts a digest.
  public init() {
    guard let state = unsafe XXH3_createState() else { fatalError("out of memory") }
    unsafe self.state = state
    unsafe _ = XXH3_128bits_reset(state)
  }

  deinit { unsafe _ = XXH3_freeState(state) }

  /// Adds bytes.
  public mutating func update(_ bytes: borrowing RawSpan) {
    unsafe bytes.withUnsafeBytes { source in unsafe _ = mwx_xxh3_128_update(state, source.baseAddress, source.count) }
  }

  /// Gives the digest of the bytes added since the last one, as 32 hexadecimal digits in the canonical (big-endian) order, and starts anew.
  public mutating func finish() -> String {
    let hash = unsafe XXH3_128bits_digest(state)
    unsafe _ = XXH3_128bits_reset(state)
    return TensorDigest.hexadecimal(hash.high64) + TensorDigest.hexadecimal(hash.low64)
  }

  /// True for a text that can be a digest.
  public static func isDigest(_ text: String) -> Bool {
    text.utf8.count == placeholder.utf8.count
      && text.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
  }

  private static func hexadecimal(_ word: UInt64) -> String {
    let digits = String(word, radix: 16)
    return String(repeating: "0", count: 16 - digits.utf8.count) + digits
  }
}
