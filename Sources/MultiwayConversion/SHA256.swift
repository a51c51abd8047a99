import CCrypto
import MultiwayCore

/// The SHA-256 of whole files, by OpenSSL's libcrypto, which uses the CPU's instructions for it.
enum SHA256 {
  /// How much of a file is read before its pages are let go.
  private static let sliceSize = 16 << 20

  /// The digest of an input's bytes as they lie on the disk, as 64 hexadecimal digits: what `sha256sum` prints.
  static func digest(of input: InputFile) throws -> String {
    let file = try MappedFile(path: input.path)
    guard file.identity == input.identity, file.byteCount == input.byteCount else {
      throw FileError(
        .changed, "the input is another file than a moment ago", expected: "a file that stays as it is",
        file: input.path)
    }
    guard let context = unsafe EVP_MD_CTX_new() else { fatalError("out of memory") }
    defer { unsafe EVP_MD_CTX_free(context) }
    var isDone = unsafe EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1
    let bytes = file.bytes
    for start in stride(from: 0, to: bytes.byteCount, by: sliceSize) {
      let range = start..<min(bytes.byteCount, start + sliceSize)
      let slice = bytes.extracting(range)
      unsafe slice.withUnsafeBaseAddress { base in
        isDone = unsafe EVP_DigestUpdate(context, base, slice.byteCount) == 1 && isDone
      }
      file.discard(range)
    }
    var digest = [UInt8](repeating: 0, count: 32)
    unsafe digest.withUnsafeMutableBufferPointer { buffer in
      isDone = unsafe EVP_DigestFinal_ex(context, buffer.baseAddress, nil) == 1 && isDone
    }
    guard isDone else {
      throw ConversionError(
        .unavailable, "libcrypto has no SHA-256", remedy: "leave out --hash-source", file: input.path)
    }
    return digest.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
  }
}
