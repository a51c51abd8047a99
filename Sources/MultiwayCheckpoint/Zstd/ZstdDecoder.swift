import MultiwayCore

/// A place in a zstd file where decoding can start: the beginning of a frame.
struct ZstdRestart {
  /// Where the frame starts in the file.
  var fileOffset: Int
  /// How many bytes the frames before it unpack to.
  var contentOffset: Int
}

/// Decodes a zstd file from one frame to the next. It knows where it stands, and can go back to the start of a frame.
struct ZstdDecoder: ~Copyable {
  private let file: any ByteSource
  private let input: TensorBytes
  private let stream: ZstdStream
  /// The next byte of the file to read.
  private var fileOffset = 0
  /// Where the frame that is being read started.
  private var frameOffset = 0
  /// True where the next byte starts a frame.
  private(set) var isBetweenFrames = true
  /// Up to where the pages of the file have been let go.
  private var discardedOffset = 0
  /// The next byte of the contents to be decoded.
  private(set) var contentOffset = 0

  /// How much of the file is read before its pages are let go.
  private static let sliceSize = 4 << 20

  init(file: any ByteSource) throws(CheckpointError) {
    let input = try file.contents(in: 0..<file.byteCount)
    self.stream = try ZstdStream()
    self.file = file
    self.input = input
  }

  /// True where everything has been decoded.
  var isAtEnd: Bool { isBetweenFrames && fileOffset == input.byteCount }

  /// Where the decoder stands, if a frame starts there.
  var restart: ZstdRestart? {
    isBetweenFrames && !isAtEnd ? ZstdRestart(fileOffset: fileOffset, contentOffset: contentOffset) : nil
  }

  /// Goes to the start of a frame.
  mutating func go(to restart: ZstdRestart) {
    stream.restart()
    fileOffset = restart.fileOffset
    frameOffset = restart.fileOffset
    discardedOffset = restart.fileOffset
    contentOffset = restart.contentOffset
    isBetweenFrames = true
  }

  /// Decodes into `output` until `limit` bytes are there, a frame ends, or nothing is left. Returns the number of bytes.
  mutating func decode(into output: inout MutableRawSpan, from start: Int, limit: Int) throws(CheckpointError) -> Int {
    var written = start
    while written < limit, !isAtEnd {
      let before = written
      var read = fileOffset
      if isBetweenFrames { frameOffset = fileOffset }
      do throws(ZstdFault) {
        isBetweenFrames = try stream.decode(input.span, at: &read, into: &output, at: &written, limit: limit)
      } catch {
        throw problem(error)
      }
      let hasMoved = read > fileOffset || written > before
      fileOffset = read
      contentOffset += written - before
      discardRead()
      if isBetweenFrames { break }
      guard hasMoved else {
        throw CheckpointError(
          .truncated, "the zstd file ends within a frame, which starts at byte \(frameOffset)",
          remedy: "the download or copy is incomplete: fetch the file again", file: file.path,
          byteOffset: input.byteCount)
      }
    }
    return written - start
  }

  /// The error for contents beyond every measure.
  func tooLarge() -> CheckpointError {
    CheckpointError(
      .overBudget, "the zstd file unpacks to more than \(ZstdSource.maximumByteCount) bytes", expected: "a checkpoint",
      remedy: "do not trust this file", file: file.path, byteOffset: frameOffset)
  }

  /// The error for a file that unpacks to something else than before.
  func changed() -> CheckpointError {
    CheckpointError(
      .corrupt, "the zstd file no longer unpacks to what it did when it was opened",
      remedy: "do not change a file while it is read", file: file.path, byteOffset: frameOffset)
  }

  private mutating func discardRead() {
    guard isAtEnd || fileOffset - discardedOffset >= ZstdDecoder.sliceSize else { return }
    file.discard(discardedOffset..<fileOffset)
    discardedOffset = fileOffset
  }

  private func problem(_ fault: ZstdFault) -> CheckpointError {
    func error(
      _ code: CheckpointErrorCode, _ found: String, expected: String? = nil, remedy: String? = nil
    ) -> CheckpointError {
      CheckpointError(
        code, found, expected: expected, remedy: remedy, file: file.path, byteOffset: frameOffset)
    }
    switch fault.kind {
    case .window:
      return error(
        .unsupported, "a zstd frame that needs a window of more than 128 MiB",
        expected: "a window of at most 2^\(ZstdStream.maximumWindowLog) bytes",
        remedy: "compress the file again without --long=28 or more")
    case .dictionary:
      return error(
        .unsupported, "a zstd frame that was made with a dictionary", expected: "frames that need nothing else",
        remedy: "unpack it with `zstd -d -D DICTIONARY` and give the file inside")
    case .noFrame:
      return error(
        .trailingData, "\(input.byteCount - frameOffset) bytes that are no zstd frame", expected: "the end of the file",
        remedy: "something was appended to the file, or it was damaged: fetch it again")
    case .memory:
      return error(.overBudget, "there is no memory for the window of a zstd frame")
    case .broken:
      return error(
        .corrupt, "the zstd frame is damaged (\(fault.message))", remedy: "the file was damaged: fetch it again")
    }
  }
}
