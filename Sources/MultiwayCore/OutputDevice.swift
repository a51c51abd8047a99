import CMultiwayFiles
import Glibc

/// The error number of a system call that failed.
public struct SystemCallError: Error, Hashable {
  /// The number, such as `ENOSPC`.
  public var code: Int32

  /// Makes an error.
  public init(_ code: Int32) { self.code = code }
}

/// The system calls that `OutputFile` makes a file with. Tests put another one in its place that fails where they want.
public protocol OutputDevice: Sendable {
  /// Opens a file without a name for writing; it is on the file system of `folder`, and nothing is left of it if it gets no name.
  /// Throws `EOPNOTSUPP` where the file system or the machine cannot do that.
  func openUnnamed(in folder: String) throws(SystemCallError) -> Int32
  /// Creates a file for writing under a name that nothing has.
  func create(_ path: String) throws(SystemCallError) -> Int32
  /// Appends bytes, and says how many were written, which may be fewer than all.
  func write(_ bytes: borrowing RawSpan, to descriptor: Int32) throws(SystemCallError) -> Int
  /// Writes bytes at a place, and says how many were written, which may be fewer than all.
  func write(_ bytes: borrowing RawSpan, to descriptor: Int32, at offset: Int) throws(SystemCallError) -> Int
  /// Lets the system begin to put on the disk what was written so far; a hint, and no promise.
  func startFlushing(_ descriptor: Int32)
  /// Waits until the file's bytes are on the disk.
  func synchronize(_ descriptor: Int32) throws(SystemCallError)
  /// Gives a file without a name the name `path`, which nothing may have.
  func name(_ descriptor: Int32, _ path: String) throws(SystemCallError)
  /// Gives a file a second name, which nothing may have.
  func link(_ path: String, to newPath: String) throws(SystemCallError)
  /// Gives a file another name, in the place of whatever has it.
  func rename(_ path: String, to newPath: String) throws(SystemCallError)
  /// Takes a name away.
  func unlink(_ path: String) throws(SystemCallError)
  /// Waits until the names in a folder are on the disk.
  func synchronizeFolder(_ path: String) throws(SystemCallError)
}

/// The file systems of the machine.
public struct SystemDevice: OutputDevice {
  /// Makes the device; it has no state.
  public init() {}

  /// `open` with `O_TMPFILE`, where `/proc` is there to name the file by later.
  public func openUnnamed(in folder: String) throws(SystemCallError) -> Int32 {
    let descriptor = unsafe open(folder, Self.unnamed | O_WRONLY | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else {
      // Kernels and file systems that do not know the flag say that the folder is one, or that they do not support it.
      let code = errno
      throw SystemCallError([EISDIR, EINVAL, ENOSYS].contains(code) ? EOPNOTSUPP : code)
    }
    guard unsafe access(SystemDevice.place(of: descriptor), F_OK) == 0 else {
      close(descriptor)
      throw SystemCallError(EOPNOTSUPP)
    }
    return descriptor
  }

  /// `O_TMPFILE`, which is a macro that Swift does not import.
  private static let unnamed = 0o20_000_000 | O_DIRECTORY

  private static func place(of descriptor: Int32) -> String { "/proc/self/fd/\(descriptor)" }

  /// `open` with `O_EXCL`.
  public func create(_ path: String) throws(SystemCallError) -> Int32 {
    let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else { throw SystemCallError(errno) }
    return descriptor
  }

  /// The largest number of bytes that one call is asked to write; Linux writes no more than 2 GiB at once.
  private static let maximumWrite = 1 << 30

  /// `write`.
  public func write(_ bytes: borrowing RawSpan, to descriptor: Int32) throws(SystemCallError) -> Int {
    let (count, code) = unsafe bytes.withUnsafeBytes { source in
      let count = unsafe Glibc.write(descriptor, source.baseAddress, min(source.count, SystemDevice.maximumWrite))
      return (count, errno)
    }
    guard count >= 0 else { throw SystemCallError(code) }
    return count
  }

  /// `pwrite`.
  public func write(_ bytes: borrowing RawSpan, to descriptor: Int32, at offset: Int) throws(SystemCallError) -> Int {
    let (count, code) = unsafe bytes.withUnsafeBytes { source in
      let size = min(source.count, SystemDevice.maximumWrite)
      let count = unsafe Glibc.pwrite(descriptor, source.baseAddress, size, off_t(offset))
      return (count, errno)
    }
    guard count >= 0 else { throw SystemCallError(code) }
    return count
  }

  /// `sync_file_range`.
  public func startFlushing(_ descriptor: Int32) { mwf_start_flushing(descriptor) }

  /// `fsync`.
  public func synchronize(_ descriptor: Int32) throws(SystemCallError) { try check(fsync(descriptor)) }

  /// `linkat` from the place where `/proc` shows the file.
  public func name(_ descriptor: Int32, _ path: String) throws(SystemCallError) {
    try check(unsafe linkat(AT_FDCWD, SystemDevice.place(of: descriptor), AT_FDCWD, path, AT_SYMLINK_FOLLOW))
  }

  /// `link`.
  public func link(_ path: String, to newPath: String) throws(SystemCallError) {
    try check(unsafe Glibc.link(path, newPath))
  }

  /// `rename`.
  public func rename(_ path: String, to newPath: String) throws(SystemCallError) {
    try check(unsafe Glibc.rename(path, newPath))
  }

  /// `unlink`.
  public func unlink(_ path: String) throws(SystemCallError) { try check(unsafe Glibc.unlink(path)) }

  /// `open` and `fsync`.
  public func synchronizeFolder(_ path: String) throws(SystemCallError) {
    let descriptor = unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw SystemCallError(errno) }
    defer { close(descriptor) }
    try check(fsync(descriptor))
  }

  private func check(_ result: Int32) throws(SystemCallError) {
    guard result == 0 else { throw SystemCallError(errno) }
  }
}

/// The device that files are written to, in a task and what it calls.
public enum OutputDevices {
  /// The machine's file systems, unless a test says otherwise for its own task.
  @TaskLocal public static var current: any OutputDevice = SystemDevice()
}

/// What interrupts of the process do to files that are being written.
public enum Interrupts {
  /// From now on SIGHUP, SIGINT and SIGTERM remove the temporary files of outputs before they end the process as they would have anyway.
  /// Programs call it once.
  public static func removeTemporaryFiles() { mwf_remove_temporaries_on_signals() }

  /// From now on these signals wait until `release()` was called as often: what is done meanwhile, which must be short, is done whole.
  static func hold() { mwf_interrupts_hold() }

  /// Lets a signal that waited end the process.
  static func release() { mwf_interrupts_release() }
}

/// The name of a temporary file, which an interrupt removes for as long as the value lives.
@safe
final class TemporaryName {
  let path: String
  private let registration: OpaquePointer?

  init(_ path: String) {
    self.path = path
    unsafe registration = mwf_temporary_register(path)
  }

  deinit { unsafe mwf_temporary_release(registration) }
}
