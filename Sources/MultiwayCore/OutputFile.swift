import Glibc

/// A file that appears under its name whole or not at all.
///
/// The bytes go to a file without a name in the same folder; `commit()` flushes them to the disk, gives the file its name and flushes
/// the folder. If the value goes away before that, or the process does in whatever way, whatever stood under the name stays and nothing
/// else is left. A file that replaces another has a temporary name for the moment between two system calls, as only a renamed file
/// replaces one; and where the file system knows no files without names, the file has it from the beginning. Errors and, in a program
/// that asked for it by `Interrupts.removeTemporaryFiles()`, interrupts remove that name; only SIGKILL and power failures leave it.
public struct OutputFile: ~Copyable {
  private let device: any OutputDevice
  private let descriptor: Int32
  /// The temporary name, nil while there is none.
  private var temporary: TemporaryName?
  /// The name that the file will have.
  public private(set) var path: String
  private let replaces: Bool
  private let inputs: [FileIdentity]
  private var buffer: [UInt8] = []
  /// True where everything is on the disk.
  private var isPrepared = false
  /// The number of bytes written so far.
  public private(set) var byteCount = 0

  private static let bufferSize = 1 << 20
  /// So much is written before the disk is told to begin with it: what is on its way already need not be waited for at the end.
  private static let flushingSize = 8 << 20
  private var notYetFlushing = 0

  /// Starts writing `path`.
  /// - Parameters:
  ///   - overwrite: allow an existing regular file to be replaced.
  ///   - inputs: files that are being read; the output may not be one of them, whatever `overwrite` says, and it does not appear if one
  ///     of them changes in the meantime.
  public init(path: String, overwrite: Bool, inputs: [FileIdentity] = []) throws(FileError) {
    try OutputFile.checkDestination(path, overwrite: overwrite, inputs: inputs)
    let device = OutputDevices.current
    do throws(SystemCallError) {
      let folder = OutputFile.folder(of: path)
      descriptor = try OutputFile.retrying { () throws(SystemCallError) in try device.openUnnamed(in: folder) }
      temporary = nil
    } catch {
      guard error.code == EOPNOTSUPP else { throw OutputFile.cannotCreate(path, error) }
      var created: Int32 = -1
      temporary = try OutputFile.withTemporaryName(for: path, onFailure: OutputFile.cannotCreate) {
        (name) throws(SystemCallError) in created = try device.create(name)
      }
      descriptor = created
    }
    self.device = device
    self.path = path
    self.inputs = inputs
    replaces = overwrite
    buffer.reserveCapacity(OutputFile.bufferSize)
  }

  deinit {
    close(descriptor)
    if let name = temporary?.path { _ = OutputFile.hasRemoved(name, on: device) }
  }

  /// Refuses a destination that exists (unless it may be replaced), is no regular file, or is an input.
  public static func checkDestination(_ path: String, overwrite: Bool, inputs: [FileIdentity] = []) throws(FileError) {
    guard let status = try status(of: path) else { return }
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

  /// True where anything has the name, a link too, whatever it leads to.
  static func exists(_ path: String) throws(FileError) -> Bool { try status(of: path) != nil }

  private static func status(of path: String) throws(FileError) -> stat? {
    var status = stat()
    guard unsafe lstat(path, &status) == 0 else {
      let code = errno
      if code == ENOENT { return nil }
      throw cannotCreate(path, SystemCallError(code))
    }
    return status
  }

  /// Appends bytes.
  public mutating func write(_ bytes: borrowing RawSpan) throws(FileError) {
    if buffer.count + bytes.byteCount > OutputFile.bufferSize { try flush() }
    if bytes.byteCount >= OutputFile.bufferSize {
      try writeAll(bytes, at: nil)
      noteWritten(bytes.byteCount)
    } else {
      buffer.append(contentsOf: bytes.array)
    }
    byteCount += bytes.byteCount
  }

  /// Appends the bytes of an array of plain numbers, in memory order (little-endian on every machine that we build for).
  public mutating func write<Element: BitwiseCopyable>(_ elements: [Element]) throws(FileError) {
    try withBytes(of: elements) { (bytes) throws(FileError) in try write(bytes) }
  }

  /// Writes bytes once more that were written before, from `offset` on: what a header says about what comes after it.
  public mutating func rewrite(_ bytes: [UInt8], at offset: Int) throws(FileError) {
    precondition(offset >= 0 && bytes.count <= byteCount - offset, "only what was written can be written again")
    try flush()
    try withBytes(of: bytes) { (bytes) throws(FileError) in try writeAll(bytes, at: offset) }
  }

  /// Appends zero bytes until the count is a multiple of `alignment`.
  public mutating func pad(toMultipleOf alignment: Int) throws(FileError) {
    let excess = byteCount % alignment
    if excess != 0 { try write([UInt8](repeating: 0, count: alignment - excess)) }
  }

  /// Writes what is buffered and lets the buffer go: for a file that waits for others before it is committed.
  public mutating func settle() throws(FileError) {
    try flush()
    buffer = []
  }

  /// Does all that takes time before the file appears, for one of several that shall appear together.
  mutating func prepare() throws(FileError) {
    try finish()
    isPrepared = true
    buffer = []
  }

  /// Makes the file appear, without flushing its folder. Where that fails, nothing has its name that had not before.
  consuming func appear() throws(FileError) { try giveName() }

  /// Makes the file appear under its name, flushed to the disk.
  ///
  /// If the folder cannot be flushed, the error says so: the file is there and whole, but a power failure might still undo it.
  public consuming func commit() throws(FileError) {
    if !isPrepared { try finish() }
    try giveName()
    try OutputFile.synchronizeFolder(of: path, on: device)
  }

  /// Makes two files of one folder appear, the first of which the second refers to. What can fail is done before either has its name; if
  /// the second still does not get its own, the first loses it again, unless a file stood under it before.
  public static func commit(_ first: consuming OutputFile, then second: consuming OutputFile) throws(FileError) {
    try first.finish()
    try second.finish()
    let (path, device) = (first.path, first.device)
    let isNew = try !exists(path)
    Interrupts.hold()
    defer { Interrupts.release() }
    try first.giveName()
    do throws(FileError) {
      try second.giveName()
    } catch {
      if isNew { _ = OutputFile.hasRemoved(path, on: device) }
      throw error
    }
    try OutputFile.synchronizeFolder(of: second.path, on: second.device)
  }

  /// Gives the file another name in the same folder, before it appears: one that depends on what was written.
  public mutating func rename(to name: String) throws(FileError) {
    let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
    try OutputFile.checkDestination(folder + name, overwrite: replaces, inputs: inputs)
    path = folder + name
  }

  /// Puts everything on the disk that the file will hold.
  private mutating func finish() throws(FileError) {
    try flush()
    for input in inputs { try MappedFile.checkUnchanged(input) }
    try MemoryBudget.current?.check(for: path)
    try calling { (device, descriptor) throws(SystemCallError) in try device.synchronize(descriptor) }
  }

  private static func synchronizeFolder(of path: String, on device: any OutputDevice) throws(FileError) {
    do throws(SystemCallError) {
      try synchronize(folder(of: path), on: device)
    } catch {
      throw FileError(
        .inputOutput, "the output is complete, but its folder could not be flushed: \(systemMessage(error.code))",
        remedy: "check the disk: after a power failure the file might be missing", file: path)
    }
  }
}

extension OutputFile {
  private mutating func giveName() throws(FileError) {
    if temporary == nil, !replaces {
      // A new name, unlike a rename, never replaces what somebody else created in the meantime.
      let path = path
      return try appear { (device, descriptor) throws(SystemCallError) in try device.name(descriptor, path) }
    }
    if temporary == nil {
      let (device, descriptor) = (device, descriptor)
      temporary = try OutputFile.withTemporaryName(for: path, onFailure: OutputFile.failed) {
        (name) throws(SystemCallError) in try device.name(descriptor, name)
      }
    }
    guard let name = temporary?.path else { return }
    let path = path
    if !replaces {
      do throws(SystemCallError) {
        let device = device
        try OutputFile.retrying { () throws(SystemCallError) in try device.link(name, to: path) }
        // Where this fails, the deinitializer tries again.
        if OutputFile.hasRemoved(name, on: device) { temporary = nil }
        return
      } catch {
        guard error.code == EPERM || error.code == EOPNOTSUPP else { throw OutputFile.appearing(path, error) }
      }
    }
    try calling { (device, _) throws(SystemCallError) in try device.rename(name, to: path) }
    temporary = nil
  }

  private func appear(_ body: (any OutputDevice, Int32) throws(SystemCallError) -> Void) throws(FileError) {
    do throws(SystemCallError) {
      let (device, descriptor) = (device, descriptor)
      try OutputFile.retrying { () throws(SystemCallError) in try body(device, descriptor) }
    } catch {
      throw OutputFile.appearing(path, error)
    }
  }

  private mutating func flush() throws(FileError) {
    guard !buffer.isEmpty else { return }
    try withBytes(of: buffer) { (bytes) throws(FileError) in try writeAll(bytes, at: nil) }
    noteWritten(buffer.count)
    buffer.removeAll(keepingCapacity: true)
  }

  /// Lets the disk begin, now and then.
  private mutating func noteWritten(_ count: Int) {
    notYetFlushing += count
    guard notYetFlushing >= OutputFile.flushingSize else { return }
    device.startFlushing(descriptor)
    notYetFlushing = 0
  }

  /// Writes all bytes, however many calls that takes: at the end of the file, or at a place in it.
  private func writeAll(_ bytes: borrowing RawSpan, at offset: Int?) throws(FileError) {
    var done = 0
    while done < bytes.byteCount {
      let rest = bytes.extracting(done..<bytes.byteCount)
      do throws(SystemCallError) {
        let written =
          if let offset {
            try device.write(rest, to: descriptor, at: offset + done)
          } else {
            try device.write(rest, to: descriptor)
          }
        // A device that takes nothing and does not say why would be asked for ever.
        guard written > 0 else { throw SystemCallError(EIO) }
        done += written
      } catch {
        if error.code == EINTR { continue }
        // The bytes lie in a mapped file that has lost them.
        if error.code == EFAULT {
          for input in inputs { try MappedFile.checkUnchanged(input) }
        }
        throw OutputFile.failed(path, error)
      }
    }
  }

  private func calling(_ body: (any OutputDevice, Int32) throws(SystemCallError) -> Void) throws(FileError) {
    do throws(SystemCallError) {
      let (device, descriptor) = (device, descriptor)
      try OutputFile.retrying { () throws(SystemCallError) in try body(device, descriptor) }
    } catch {
      throw OutputFile.failed(path, error)
    }
  }

  /// Makes a call until no signal comes between.
  static func retrying<R>(_ body: () throws(SystemCallError) -> R) throws(SystemCallError) -> R {
    while true {
      do throws(SystemCallError) {
        return try body()
      } catch {
        guard error.code == EINTR else { throw error }
      }
    }
  }

  /// Waits until the names in a folder are on the disk, where that can be had.
  static func synchronize(_ folder: String, on device: any OutputDevice) throws(SystemCallError) {
    do throws(SystemCallError) {
      try retrying { () throws(SystemCallError) in try device.synchronizeFolder(folder) }
    } catch {
      // Some file systems cannot flush a folder, and some folders may be written to but not read.
      guard [EINVAL, EOPNOTSUPP, EACCES, EBADF].contains(error.code) else { throw error }
    }
  }

  /// How many temporary names are tried: those of processes that were killed and had the same number stand in the way.
  private static let maximumNames = 100

  /// Makes a call with the first temporary name in the output's folder that nothing has, and gives the name.
  static func withTemporaryName(
    for path: String, onFailure: (String, SystemCallError) -> FileError,
    _ body: (String) throws(SystemCallError) -> Void
  ) throws(FileError) -> TemporaryName {
    let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
    let file = path.dropFirst(folder.count)
    for number in 0..<maximumNames {
      // An interrupt must find the name from the moment on that the file has it.
      let name = TemporaryName("\(folder).\(file).\(getpid())\(number == 0 ? "" : ".\(number)").partial")
      let candidate = name.path
      do throws(SystemCallError) {
        try retrying { () throws(SystemCallError) in try body(candidate) }
        return name
      } catch {
        guard error.code == EEXIST else { throw onFailure(path, error) }
      }
    }
    throw onFailure(path, SystemCallError(EEXIST))
  }

  /// Takes a name away; true where nothing has it any more.
  static func hasRemoved(_ name: String, on device: any OutputDevice) -> Bool {
    do throws(SystemCallError) {
      try retrying { () throws(SystemCallError) in try device.unlink(name) }
      return true
    } catch {
      return error.code == ENOENT
    }
  }

  static func folder(of path: String) -> String { path.lastIndex(of: "/").map { String(path[...$0]) } ?? "." }

  private static func cannotCreate(_ path: String, _ error: SystemCallError) -> FileError {
    let isFull = error.code == ENOSPC || error.code == EDQUOT
    return FileError(
      .cannotCreate, "cannot create the output: \(systemMessage(error.code))",
      remedy: isFull ? "free some space on the disk" : "check that the folder exists and can be written to", file: path)
  }

  /// The error of a file that could not be given its name without replacing one.
  private static func appearing(_ path: String, _ error: SystemCallError) -> FileError {
    guard error.code == EEXIST else { return failed(path, error) }
    return FileError(
      .exists, "the output appeared while it was being written", remedy: "choose another name", file: path)
  }

  static func failed(_ path: String, _ error: SystemCallError) -> FileError {
    let isFull = error.code == ENOSPC || error.code == EDQUOT
    return FileError(
      .inputOutput, "writing failed: \(systemMessage(error.code))",
      remedy: isFull ? "free some space on the disk; nothing was left behind" : nil, file: path)
  }
}
