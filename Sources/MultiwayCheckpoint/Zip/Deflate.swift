private import CDeflate
import MultiwayCore

/// The two functions of libdeflate that are used, behind checked spans. The only file of the target that handles pointers.
enum Deflate {
  /// The CRC-32 of zip archives over `bytes`, continued from `crc`.
  static func crc32(_ bytes: RawSpan, continuing crc: UInt32 = 0) -> UInt32 {
    unsafe bytes.withUnsafeBytes { buffer in
      guard let start = buffer.baseAddress else { return crc }
      return unsafe libdeflate_crc32(crc, start, buffer.count)
    }
  }

  /// Decompresses a raw deflate stream that must end with the last byte of `bytes` and give exactly `size` bytes; nil if
  /// it does not. Nothing is written beyond `size` bytes, whatever the stream says.
  static func inflate(_ bytes: RawSpan, to size: Int) -> TensorBytes? {
    guard let decompressor = unsafe libdeflate_alloc_decompressor() else { return nil }
    defer { unsafe libdeflate_free_decompressor(decompressor) }
    let result = AlignedBuffer(byteCount: size)
    var isWhole = false
    result.fill { target in
      isWhole = unsafe target.withUnsafeMutableBytes { output in
        unsafe bytes.withUnsafeBytes { input in
          var consumed = 0
          let status = unsafe libdeflate_deflate_decompress_ex(
            decompressor, input.baseAddress, input.count, output.baseAddress, output.count, &consumed, nil)
          return status == LIBDEFLATE_SUCCESS && consumed == input.count
        }
      }
    }
    return isWhole ? result.bytes : nil
  }
}
