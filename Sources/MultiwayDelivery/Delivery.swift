import MultiwayCore

/// What became of a file.
public struct DeliveryReport: Sendable {
  /// The output.
  public var output: String
  /// The size of the input in bytes; of a delta, of the new file.
  public var inputBytes: Int
  /// The size of the output in bytes.
  public var outputBytes: Int
}

/// Small files for the way to the box: whole ones packed, and new ones as changes of old ones. All of them are plain zstd frames with
/// checksums, which the zstd tool opens too (RFC 8878).
public enum Delivery {
  /// Told how many bytes of how many are read.
  public typealias Progress = (_ done: Int, _ total: Int) -> Void

  /// How much is read before its pages are let go.
  private static let sliceSize = 16 << 20
  private static let bufferSize = 1 << 20
  /// The level of `zstd` itself.
  public static let defaultLevel = 3
  /// The windows that `zstd -d` takes without being told: 128 MiB.
  private static let ordinaryWindowLog = 27

  /// `pack`: compresses a file. The bytes do not depend on the number of threads.
  public static func pack(
    _ path: String, to output: String, level: Int = defaultLevel, threads: Int, overwrite: Bool,
    progress: Progress? = nil
  ) throws -> DeliveryReport {
    let file = try MappedFile(path: path)
    let encoder = try refusing(path) { () throws(ZstdRefusal) in
      try ZstdEncoder.make(level: level, contentSize: file.byteCount, workers: threads)
    }
    return try write(file, encoder, to: output, overwrite: overwrite, inputs: [file.identity], progress: progress)
  }

  /// `unpack`: the contents of a zstd file, every frame's checksum compared.
  public static func unpack(
    _ path: String, to output: String, overwrite: Bool, progress: Progress? = nil
  ) throws -> DeliveryReport {
    let file = try MappedFile(path: path)
    let expander = try refusing(path) { () throws(ZstdRefusal) in
      try ZstdExpander.make(maximumWindowLog: ordinaryWindowLog)
    }
    return try expand(
      file, expander, to: output, overwrite: overwrite, inputs: [file.identity], isDelta: false, progress: progress)
  }

  /// `delta`: describes `new` as a change of `old`, as `zstd --patch-from` does. Takes memory of the size of the new file.
  public static func delta(
    from old: String, to new: String, output: String, level: Int = defaultLevel, overwrite: Bool,
    progress: Progress? = nil
  ) throws -> DeliveryReport {
    let (base, file) = (try MappedFile(path: old), try MappedFile(path: new))
    try checkSizes(base, file)
    let encoder = try refusing(new) { () throws(ZstdRefusal) in
      try ZstdEncoder.make(level: level, contentSize: file.byteCount, workers: 0, prefix: base.bytes)
    }
    return try write(
      file, encoder, to: output, overwrite: overwrite, inputs: [base.identity, file.identity], progress: progress)
  }

  /// `apply`: the new file, from the old one and a delta. It appears only if its checksum is right.
  public static func apply(
    _ delta: String, to old: String, output: String, overwrite: Bool, progress: Progress? = nil
  ) throws -> DeliveryReport {
    let (base, file) = (try MappedFile(path: old), try MappedFile(path: delta))
    let expander = try refusing(delta) { () throws(ZstdRefusal) in
      try ZstdExpander.make(maximumWindowLog: windowLog(of: file, base: base), prefix: base.bytes)
    }
    return try expand(
      file, expander, to: output, overwrite: overwrite, inputs: [base.identity, file.identity], isDelta: true,
      progress: progress)
  }

  /// The largest window that a delta of its size can need, as a power of two: memory that no file can make us take for nothing.
  private static func windowLog(of delta: MappedFile, base: MappedFile) -> Int {
    // A block gives at most 128 KiB and takes at least four bytes.
    let (most, overflow) = (delta.byteCount / 4 + 1).multipliedReportingOverflow(by: 128 << 10)
    let contents = delta.bytes
    let claimed = ZstdExpander.claimedSize(contents.span).map { Int(clamping: $0) } ?? Int.max
    let size = max(base.byteCount, min(claimed, overflow ? Int.max : most))
    return max(ordinaryWindowLog, ZstdEncoder.windowLog(size))
  }

  private static func checkSizes(_ base: MappedFile, _ file: MappedFile) throws(DeliveryError) {
    for file in [base, file] where file.byteCount > Int(Int32.max) {
      throw DeliveryError(
        .usage, "a delta of a file of \(file.byteCount) bytes", expected: "at most \(Int32.max)",
        remedy: "deliver it packed instead", file: file.path)
    }
  }
}

extension Delivery {
  /// Encodes a file, a slice at a time.
  private static func write(
    _ file: MappedFile, _ encoder: borrowing ZstdEncoder, to path: String, overwrite: Bool, inputs: [FileIdentity],
    progress: Progress?
  ) throws -> DeliveryReport {
    var output = try OutputFile(path: path, overwrite: overwrite, inputs: inputs)
    let buffer = AlignedBuffer(byteCount: bufferSize)
    var offset = 0
    var isDone = false
    while !isDone {
      let end = min(file.byteCount, offset + sliceSize)
      let slice = file.bytes(in: offset..<end)
      let isLast = end == file.byteCount
      var read = 0
      while read < slice.byteCount || isLast && !isDone {
        var written = 0
        try buffer.fill { target in
          isDone = try refusing(file.path) { () throws(ZstdRefusal) in
            try encoder.encode(slice.span, at: &read, into: &target, at: &written, isLast: isLast)
          }
        }
        try output.write(buffer.bytes.extracting(0..<written).span)
      }
      file.discard(offset..<end)
      offset = end
      progress?(offset, file.byteCount)
    }
    let size = output.byteCount
    try output.commit()
    return DeliveryReport(output: path, inputBytes: file.byteCount, outputBytes: size)
  }

  /// Decodes all frames of a file.
  private static func expand(
    _ file: MappedFile, _ expander: borrowing ZstdExpander, to path: String, overwrite: Bool, inputs: [FileIdentity],
    isDelta: Bool, progress: Progress?
  ) throws -> DeliveryReport {
    let contents = file.bytes
    if let claimed = ZstdExpander.claimedSize(contents.span), let free = freeSpace(folderOf: path), claimed > free {
      throw DeliveryError(
        .tooLarge, "the file says that it unpacks to \(claimed) bytes", expected: "at most the \(free) that are free",
        remedy: "do not trust this file, or make room", file: file.path, byteOffset: 0)
    }
    var output = try OutputFile(path: path, overwrite: overwrite, inputs: inputs)
    let buffer = AlignedBuffer(byteCount: bufferSize)
    var (offset, discarded) = (0, 0)
    var isBetweenFrames = true
    repeat {
      let before = offset
      var written = 0
      try buffer.fill { target in
        isBetweenFrames = try refusing(file.path, isDelta: isDelta) { () throws(ZstdRefusal) in
          try expander.expand(contents.span, at: &offset, into: &target, at: &written)
        }
      }
      try output.write(buffer.bytes.extracting(0..<written).span)
      guard isBetweenFrames || offset > before || written > 0 else {
        throw DeliveryError(
          .truncated, "the file ends within a frame", remedy: "fetch the file again", file: file.path,
          byteOffset: offset)
      }
      if offset - discarded >= sliceSize {
        file.discard(discarded..<offset)
        discarded = offset
      }
      progress?(offset, file.byteCount)
    } while !isBetweenFrames || offset < file.byteCount
    let size = output.byteCount
    try output.commit()
    return DeliveryReport(output: path, inputBytes: file.byteCount, outputBytes: size)
  }

  /// Gives libzstd's refusals a place and a remedy.
  private static func refusing<Result: ~Copyable>(
    _ path: String, isDelta: Bool = false, _ body: () throws(ZstdRefusal) -> Result
  ) throws(DeliveryError) -> Result {
    do throws(ZstdRefusal) {
      return try body()
    } catch {
      switch error.kind {
      case .noFrame:
        throw DeliveryError(
          .notPacked, "the file is no zstd file", expected: "what `multiway pack` or zstd writes", file: path)
      case .memory:
        throw DeliveryError(
          .memory, "the file cannot be processed in the memory that is allowed (\(error.message))", file: path)
      case .setting:
        throw DeliveryError(.usage, "libzstd refuses a setting (\(error.message))", expected: "a level from 1 to 22")
      case .broken where isDelta:
        throw DeliveryError(
          .wrongBase, "the delta does not fit the base (\(error.message))", expected: "the base that it was made from",
          remedy: "apply it to that file; if it was, fetch the delta again", file: path)
      case .broken:
        throw DeliveryError(
          .corrupt, "the file is damaged (\(error.message))", remedy: "fetch the file again", file: path)
      }
    }
  }
}
