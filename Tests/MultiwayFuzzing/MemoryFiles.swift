import Glibc
import MultiwayCore

/// A file without a name, in memory where the system can do that, for what reads a path.
final class MemoryFile {
  private let descriptor: Int32
  /// The path of the file in this process.
  let path: String
  /// In memory where the system has such a folder.
  static let folder = Folder.exists("/dev/shm") ? "/dev/shm" : "/tmp"

  init(_ bytes: TensorBytes) {
    let device = SystemDevice()
    guard let descriptor = try? device.openUnnamed(in: MemoryFile.folder),
      (try? device.write(bytes.span, to: descriptor)) == bytes.byteCount
    else { fatalError("\(MemoryFile.folder) takes no files without names") }
    self.descriptor = descriptor
    path = "/proc/self/fd/\(descriptor)"
  }

  deinit { close(descriptor) }
}

/// A device that takes every output and keeps nothing of it.
struct DiscardingDevice: OutputDevice {
  private static let nowhere = unsafe open("/dev/null", O_WRONLY | O_CLOEXEC)

  func openUnnamed(in folder: String) throws(SystemCallError) -> Int32 {
    let descriptor = dup(DiscardingDevice.nowhere)
    guard descriptor >= 0 else { throw SystemCallError(errno) }
    return descriptor
  }

  func create(_ path: String) throws(SystemCallError) -> Int32 { try openUnnamed(in: path) }
  func write(_ bytes: borrowing RawSpan, to descriptor: Int32) -> Int { bytes.byteCount }
  func write(_ bytes: borrowing RawSpan, to descriptor: Int32, at offset: Int) -> Int { bytes.byteCount }
  func startFlushing(_ descriptor: Int32) {}
  func synchronize(_ descriptor: Int32) {}
  func name(_ descriptor: Int32, _ path: String) {}
  func link(_ path: String, to newPath: String) {}
  func rename(_ path: String, to newPath: String) {}
  func unlink(_ path: String) {}
  func synchronizeFolder(_ path: String) {}
}
