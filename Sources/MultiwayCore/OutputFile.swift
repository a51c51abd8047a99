import Glibc

/// A file that appears under its name whole or not at all.
///
/// The bytes go to a temporary file in the same folder; `commit()` flushes them to the disk, renames the file and flushes the
/// folder. If the value goes away before that, the temporary file is removed and whatever stood under the name stays.
@safe
public struct OutputFile: ~Copyable {
  private let descriptor: Int32
  private let temporaryPath: String
  /// The name that the file will have.
  public let path: String
  private let replaces: Bool
  private var buffer: [UInt8] = []
  private var isOpen = true
  /// The number of bytes written so far.
  public private(set) var byteCount = 0

  private static let bufferSize = 1 << 20

  /// Starts writing `path`.
  /// - Parameters:
  ///   - overwrite: allow an existing regular file to be replaced.
  ///   - inputs: files that are being read; the output may not be one of them, whatever `overwrite` says.
  public init(path: String, overwrite: Bool, inputs: [FileIdentity] = []) throws(FileError) {
    try OutputFile.checkDestination(path, overwrite: overwrite, inputs: inputs)
    var name = path
    var folder = ""
    if let slash = path.lastIndex(of: "/") {
      folder = String(path[...slash])
      name = String(path[path.index(after: slash)...])
    }
    let candidate = "\(folder).\(name).\(getpid()).partial"
    let opened = unsafe open(candidate, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o666)
    guard opened >= 0 else {
      throw FileError(
        .cannotCreate, "cannot create the output: \(systemMessage(errno))",
        remedy: "check that the folder exists and can be written to", file: path)
    }
    descriptor = opened
    temporaryPath = candidate
    self.path = path
    replaces = overwrite
    buffer.reserveCapacity(OutputFile.bufferSize)
  }

  deinit {
    if isOpen {
      close(descriptor)
      unsafe _ = unlink(temporaryPath)
    }
  }

  /// Refuses a destination that exists (unless it may be replaced), is no regular file, or is an input.
  public static func checkDestination(_ path: String, overwrite: Bool, inputs: [FileIdentity] = []) throws(FileError) {
    var status = stat()
    guard unsafe lstat(path, &status) == 0 else {
      let code = errno
      if code == ENOENT { return }
      throw FileError(.cannotCreate, "cannot create the output: \(systemMessage(code))", file: path)
    }
    if inputs.contains(FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))) {
      throw FileError(
        .cannotCreate, "the output is also an input", remedy: "write to another file", file: path)
    }
    let kind = status.st_mode & S_IFMT
    guard kind == S_IFREG || kind == S_IFLNK else {
      throw FileError(
        .cannotCreate, "the output exists and is not a regular file", expected: "a file name to create", file: path)
    }
    guard overwrite else {
      throw FileError(
        .exists, "the output exists", remedy: "choose another name, or pass --force to replace it", file: path)
    }
  }

  /// Appends bytes.
  public mutating func write(_ bytes: borrowing RawSpan) throws(FileError) {
    if buffer.count + bytes.byteCount > OutputFile.bufferSize { try flush() }
    if bytes.byteCount >= OutputFile.bufferSize {
      try OutputFile.writeAll(descriptor, bytes, path: path)
    } else {
      buffer.append(contentsOf: bytes.array)
    }
    byteCount += bytes.byteCount
  }

  /// Appends the bytes of an array of plain numbers, in memory order (little-endian on every machine that we build for).
  public mutating func write<Element: BitwiseCopyable>(_ elements: [Element]) throws(FileError) {
    try withBytes(of: elements) { (bytes) throws(FileError) in try write(bytes) }
  }

  /// Appends zero bytes until the count is a multiple of `alignment`.
  public mutating func pad(toMultipleOf alignment: Int) throws(FileError) {
    let excess = byteCount % alignment
    if excess != 0 { try write([UInt8](repeating: 0, count: alignment - excess)) }
  }

  /// Makes the file appear under its name, flushed to the disk.
  public consuming func commit() throws(FileError) {
    try flush()
    guard fsync(descriptor) == 0 else { throw OutputFile.failed(path, errno) }
    try giveName()
    isOpen = false
    close(descriptor)
    try OutputFile.syncFolder(of: path)
  }

  private func giveName() throws(FileError) {
    if !replaces {
      // A link, unlike a rename, never replaces what somebody else created in the meantime.
      if unsafe link(temporaryPath, path) == 0 {
        unsafe _ = unlink(temporaryPath)
        return
      }
      let code = errno
      if code == EEXIST { throw FileError(.exists, "the output appeared while it was being written", file: path) }
      guard code == EPERM || code == EOPNOTSUPP else { throw OutputFile.failed(path, code) }
    }
    guard unsafe rename(temporaryPath, path) == 0 else { throw OutputFile.failed(path, errno) }
  }

  private mutating func flush() throws(FileError) {
    guard !buffer.isEmpty else { return }
    try withBytes(of: buffer) { (bytes) throws(FileError) in
      try OutputFile.writeAll(descriptor, bytes, path: path)
    }
    buffer.removeAll(keepingCapacity: true)
  }

  private static func writeAll(_ descriptor: Int32, _ bytes: borrowing RawSpan, path: String) throws(FileError) {
    let failure: Int32 = unsafe bytes.withUnsafeBytes { source in
      var done = 0
      while done < source.count, let base = source.baseAddress {
        let count = unsafe Glibc.write(descriptor, base + done, min(source.count - done, 1 << 30))
        if count < 0 {
          let code = errno
          if code == EINTR { continue }
          return code
        }
        done += count
      }
      return 0
    }
    guard failure == 0 else { throw failed(path, failure) }
  }

  private static func syncFolder(of path: String) throws(FileError) {
    let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
    let descriptor = unsafe open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    // Some file systems cannot flush a folder; the file itself is safe by then.
    _ = fsync(descriptor)
  }

  private static func failed(_ path: String, _ code: Int32) -> FileError {
    FileError(
      .inputOutput, "writing failed: \(systemMessage(code))",
      remedy: code == ENOSPC ? "free some space on the disk; nothing was left behind" : nil, file: path)
  }
}
