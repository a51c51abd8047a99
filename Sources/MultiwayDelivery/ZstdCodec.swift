private import CZstd
import Glibc
import MultiwayCore

/// What libzstd says when it refuses to go on.
struct ZstdRefusal: Error {
  enum Kind {
    /// The bytes start no frame.
    case noFrame
    /// There is not enough memory.
    case memory
    /// A setting is out of range.
    case setting
    /// A broken stream, a wrong checksum, a missing dictionary.
    case broken
  }

  var kind: Kind
  /// libzstd's own words.
  var message: String

  fileprivate init(_ status: Int) {
    kind =
      switch ZSTD_getErrorCode(status) {
      case ZSTD_error_prefix_unknown, ZSTD_error_version_unsupported: .noFrame
      case ZSTD_error_memory_allocation, ZSTD_error_frameParameter_windowTooLarge: .memory
      case ZSTD_error_parameter_outOfBound, ZSTD_error_parameter_unsupported: .setting
      default: .broken
      }
    message = unsafe String(cString: ZSTD_getErrorName(status))
  }

  fileprivate init(noMemoryFor what: String) {
    kind = .memory
    message = "no memory for \(what)"
  }
}

/// The place in a buffer that libzstd reads or writes, as both sides move it on.
private func step(
  _ input: RawSpan, _ inputOffset: inout Int, _ output: inout MutableRawSpan, _ outputOffset: inout Int,
  _ body: (inout ZSTD_outBuffer, inout ZSTD_inBuffer) -> Int
) throws(ZstdRefusal) -> Int {
  precondition(inputOffset <= input.byteCount && outputOffset <= output.byteCount)
  let size = output.byteCount
  var (read, written) = (inputOffset, outputOffset)
  let status = unsafe input.withUnsafeBytes { source in
    unsafe output.withUnsafeMutableBytes { target in
      var inBuffer = unsafe ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: read)
      var outBuffer = unsafe ZSTD_outBuffer(dst: target.baseAddress, size: size, pos: written)
      let status = unsafe body(&outBuffer, &inBuffer)
      (read, written) = unsafe (inBuffer.pos, outBuffer.pos)
      return status
    }
  }
  (inputOffset, outputOffset) = (read, written)
  guard ZSTD_isError(status) == 0 else { throw ZstdRefusal(status) }
  return status
}

/// libzstd's streaming encoder behind checked spans: one frame with its content size and a checksum.
@safe
struct ZstdEncoder: ~Copyable {
  private let context: OpaquePointer
  /// Kept for as long as the encoder may look at it.
  private let prefix: TensorBytes?

  /// Makes an encoder.
  /// - Parameters:
  ///   - contentSize: the number of bytes that will come, which the frame's header says.
  ///   - workers: threads beside the caller's; the frame's bytes do not depend on their number.
  ///   - prefix: what the content is described as a change of, with a window that reaches back to its beginning.
  static func make(
    level: Int, contentSize: Int, workers: Int, prefix: TensorBytes? = nil
  ) throws(ZstdRefusal) -> ZstdEncoder {
    let encoder = try ZstdEncoder(prefix: prefix)
    try encoder.configure(level: level, contentSize: contentSize, workers: workers)
    return encoder
  }

  private init(prefix: TensorBytes?) throws(ZstdRefusal) {
    guard let context = unsafe ZSTD_createCCtx() else { throw ZstdRefusal(noMemoryFor: "an encoder") }
    unsafe self.context = context
    self.prefix = prefix
  }

  private func configure(level: Int, contentSize: Int, workers: Int) throws(ZstdRefusal) {
    try set(ZSTD_c_compressionLevel, level)
    try set(ZSTD_c_checksumFlag, 1)
    try check(unsafe ZSTD_CCtx_setPledgedSrcSize(context, UInt64(contentSize)))
    guard let prefix else {
      try set(ZSTD_c_nbWorkers, max(1, workers))
      return
    }
    // As the zstd tool does for --patch-from: the window must reach from the content's end to the prefix's beginning.
    try set(ZSTD_c_windowLog, ZstdEncoder.windowLog(max(contentSize, prefix.byteCount)))
    try set(ZSTD_c_enableLongDistanceMatching, 1)
    try check(
      unsafe prefix.withUnsafeBaseAddress { unsafe ZSTD_CCtx_refPrefix(context, $0, prefix.byteCount) })
  }

  deinit { unsafe _ = ZSTD_freeCCtx(context) }

  /// The power of two above a size, within what libzstd takes.
  static func windowLog(_ size: Int) -> Int {
    let log = Int.bitWidth - max(1, size).leadingZeroBitCount
    return min(max(log, 17), 31)
  }

  private func set(_ parameter: ZSTD_cParameter, _ value: Int) throws(ZstdRefusal) {
    try check(unsafe ZSTD_CCtx_setParameter(context, parameter, Int32(clamping: value)))
  }

  private func check(_ status: Int) throws(ZstdRefusal) {
    guard ZSTD_isError(status) == 0 else { throw ZstdRefusal(status) }
  }

  /// Encodes from `input` on into `output` and moves both places on; true where, with `isLast`, the frame is complete.
  func encode(
    _ input: RawSpan, at inputOffset: inout Int, into output: inout MutableRawSpan, at outputOffset: inout Int,
    isLast: Bool
  ) throws(ZstdRefusal) -> Bool {
    let remaining = unsafe try step(input, &inputOffset, &output, &outputOffset) { target, source in
      unsafe ZSTD_compressStream2(context, &target, &source, isLast ? ZSTD_e_end : ZSTD_e_continue)
    }
    // Before the end, 0 only means that nothing waits in the encoder.
    return isLast && remaining == 0
  }
}

/// libzstd's streaming decoder behind checked spans.
@safe
struct ZstdExpander: ~Copyable {
  private let context: OpaquePointer
  private let prefix: TensorBytes?

  /// Makes a decoder.
  /// - Parameters:
  ///   - maximumWindowLog: the largest window that a frame may ask for, as a power of two.
  ///   - prefix: what the content was described as a change of.
  static func make(maximumWindowLog: Int, prefix: TensorBytes? = nil) throws(ZstdRefusal) -> ZstdExpander {
    let expander = try ZstdExpander(prefix: prefix)
    try expander.configure(maximumWindowLog: maximumWindowLog)
    return expander
  }

  private init(prefix: TensorBytes?) throws(ZstdRefusal) {
    guard let context = unsafe ZSTD_createDCtx() else { throw ZstdRefusal(noMemoryFor: "a decoder") }
    unsafe self.context = context
    self.prefix = prefix
  }

  private func configure(maximumWindowLog: Int) throws(ZstdRefusal) {
    unsafe _ = ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, Int32(clamping: maximumWindowLog))
    guard let prefix else { return }
    let status = unsafe prefix.withUnsafeBaseAddress { unsafe ZSTD_DCtx_refPrefix(context, $0, prefix.byteCount) }
    guard ZSTD_isError(status) == 0 else { throw ZstdRefusal(status) }
  }

  deinit { unsafe _ = ZSTD_freeDCtx(context) }

  /// Decodes from `input` on into `output` and moves both places on; true where a frame has ended, its checksum compared.
  func expand(
    _ input: RawSpan, at inputOffset: inout Int, into output: inout MutableRawSpan, at outputOffset: inout Int
  ) throws(ZstdRefusal) -> Bool {
    unsafe try step(input, &inputOffset, &output, &outputOffset) { target, source in
      unsafe ZSTD_decompressStream(context, &target, &source)
    } == 0
  }

  /// How many bytes the frame at the beginning of `input` says that it holds; nil where it does not say, or is no frame.
  static func claimedSize(_ input: RawSpan) -> UInt64? {
    let size = unsafe input.withUnsafeBytes { source in
      unsafe ZSTD_getFrameContentSize(source.baseAddress, source.count)
    }
    // The two largest numbers stand for "unknown" and "error".
    return size < UInt64.max - 1 ? size : nil
  }
}

/// The number of bytes that can be written to the file system of a folder; nil where nobody knows.
func freeSpace(folderOf path: String) -> UInt64? {
  let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
  var status = statvfs()
  guard unsafe statvfs(folder, &status) == 0 else { return nil }
  let (bytes, overflow) = UInt64(status.f_bavail).multipliedReportingOverflow(by: UInt64(status.f_frsize))
  return overflow ? nil : bytes
}
