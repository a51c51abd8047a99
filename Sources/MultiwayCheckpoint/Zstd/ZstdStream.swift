private import CZstd
import MultiwayCore

/// Why libzstd refuses to go on.
struct ZstdFault: Error {
  enum Kind {
    /// The frame needs a larger window than is allowed.
    case window
    /// The frame was made with a dictionary.
    case dictionary
    /// The bytes start no frame.
    case noFrame
    /// There is not enough memory.
    case memory
    /// Anything else: a broken stream, a wrong checksum.
    case broken
  }

  var kind: Kind
  /// libzstd's own words.
  var message: String
}

/// libzstd's streaming decoder behind checked spans. The only file of the target that handles its pointers.
@safe
struct ZstdStream: ~Copyable {
  /// The largest window that is allowed, as a power of two: 128 MiB, as for the zstd tool unless told otherwise.
  static let maximumWindowLog: Int32 = 27

  private let context: OpaquePointer

  /// Makes a decoder.
  init() throws(CheckpointError) {
    guard let context = unsafe ZSTD_createDCtx() else {
      throw CheckpointError(.overBudget, "there is no memory for a zstd decoder")
    }
    unsafe self.context = context
    unsafe _ = ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, ZstdStream.maximumWindowLog)
  }

  deinit { unsafe _ = ZSTD_freeDCtx(context) }

  /// Forgets the stream so far; the next bytes must start a frame.
  func restart() { unsafe _ = ZSTD_DCtx_reset(context, ZSTD_reset_session_only) }

  /// Decodes from `input` on into the first `limit` bytes of `output` and moves both places on; true where a frame has ended, its
  /// checksum compared.
  func decode(
    _ input: RawSpan, at inputOffset: inout Int, into output: inout MutableRawSpan, at outputOffset: inout Int,
    limit: Int
  ) throws(ZstdFault) -> Bool {
    precondition(inputOffset <= input.byteCount && outputOffset <= limit && limit <= output.byteCount)
    var (read, written) = (inputOffset, outputOffset)
    let status = unsafe input.withUnsafeBytes { source in
      unsafe output.withUnsafeMutableBytes { target in
        var inBuffer = unsafe ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: read)
        var outBuffer = unsafe ZSTD_outBuffer(dst: target.baseAddress, size: limit, pos: written)
        let status = unsafe ZSTD_decompressStream(context, &outBuffer, &inBuffer)
        (read, written) = unsafe (inBuffer.pos, outBuffer.pos)
        return status
      }
    }
    (inputOffset, outputOffset) = (read, written)
    guard ZSTD_isError(status) != 0 else { return status == 0 }
    throw ZstdStream.fault(status)
  }

  private static func fault(_ status: Int) -> ZstdFault {
    let kind: ZstdFault.Kind =
      switch ZSTD_getErrorCode(status) {
      case ZSTD_error_frameParameter_windowTooLarge: .window
      case ZSTD_error_dictionary_wrong, ZSTD_error_dictionary_corrupted: .dictionary
      case ZSTD_error_prefix_unknown, ZSTD_error_version_unsupported: .noFrame
      case ZSTD_error_memory_allocation: .memory
      default: .broken
      }
    return ZstdFault(kind: kind, message: unsafe String(cString: ZSTD_getErrorName(status)))
  }
}
