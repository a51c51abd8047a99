import CMultiwayFiles
import Glibc

/// Bytes that stay where they are for as long as this value lives: a part of a mapped file, or memory of our own.
///
/// The kernels read weights through it in place. It is `Sendable` because nothing ever writes through it.
@safe
public struct TensorBytes: @unchecked Sendable {
  /// Keeps the memory alive.
  private let owner: any AnyObject & Sendable
  private let base: UnsafeRawPointer
  /// The number of bytes.
  public let byteCount: Int

  /// Wraps `byteCount` bytes at `base`, which must stay valid and unchanged while `owner` lives.
  @unsafe public init(owner: any AnyObject & Sendable, base: UnsafeRawPointer, byteCount: Int) {
    self.owner = owner
    unsafe self.base = base
    self.byteCount = byteCount
  }

  /// Copies `bytes` into memory of its own, aligned to 64 bytes.
  public init(copying bytes: borrowing RawSpan) {
    self = AlignedBuffer(copying: bytes).bytes
  }

  /// Copies an array of plain numbers into memory of its own, aligned to 64 bytes.
  public init<Element: BitwiseCopyable>(copying elements: [Element]) {
    self = withBytes(of: elements) { TensorBytes(copying: $0) }
  }

  /// The bytes.
  public var span: RawSpan {
    @_lifetime(borrow self) get {
      let span = unsafe RawSpan(_unsafeStart: base, byteCount: byteCount)
      return unsafe _overrideLifetime(span, borrowing: self)
    }
  }

  /// The part of the bytes in `range`, which must lie within.
  public func extracting(_ range: Range<Int>) -> TensorBytes {
    precondition(range.lowerBound >= 0 && range.upperBound <= byteCount, "the range lies outside the bytes")
    return unsafe TensorBytes(owner: owner, base: base + range.lowerBound, byteCount: range.count)
  }

  /// True where the first byte's address is a multiple of `alignment`.
  public func isAligned(to alignment: Int) -> Bool { unsafe UInt(bitPattern: base) % UInt(alignment) == 0 }

  /// Calls `body` with the address; kernels written in C need it.
  @unsafe public func withUnsafeBaseAddress<R, E: Error>(_ body: (UnsafeRawPointer) throws(E) -> R) throws(E) -> R {
    defer { withExtendedLifetime(owner) {} }
    return try unsafe body(base)
  }

  /// A copy of the bytes as an array of plain numbers; trailing bytes that do not fill an element are left out.
  public func array<Element: BitwiseCopyable>(of type: Element.Type) -> [Element] {
    let count = byteCount / MemoryLayout<Element>.stride
    // All empty arrays are one object, whose count the initializer below would write.
    guard count > 0 else { return [] }
    return unsafe [Element](unsafeUninitializedCapacity: count) { buffer, filled in
      if let start = buffer.baseAddress, count > 0 {
        unsafe UnsafeMutableRawPointer(start).copyMemory(
          from: base, byteCount: count * MemoryLayout<Element>.stride)
      }
      filled = count
    }
  }
}

/// Memory aligned to 64 bytes that is freed with its last reference.
@safe
public final class AlignedBuffer: @unchecked Sendable {
  fileprivate let base: UnsafeMutableRawPointer
  /// The number of bytes.
  public let byteCount: Int

  /// From this size on, memory is mapped: the heap keeps what is freed between smaller pieces, and tensors come and go.
  private static let mappedSize = 1 << 20

  /// Allocates `byteCount` zero bytes.
  public init(byteCount: Int) {
    precondition(byteCount >= 0)
    self.byteCount = byteCount
    unsafe base = AlignedBuffer.allocate(byteCount)
    if byteCount < AlignedBuffer.mappedSize {
      unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    }
  }

  /// A copy of `bytes`.
  fileprivate init(copying bytes: borrowing RawSpan) {
    byteCount = bytes.byteCount
    unsafe base = AlignedBuffer.allocate(bytes.byteCount)
    copy(bytes, at: 0)
  }

  /// Memory for a number of bytes: zeros if it is mapped, anything if it comes from the heap.
  @unsafe private static func allocate(_ byteCount: Int) -> UnsafeMutableRawPointer {
    guard byteCount >= mappedSize else {
      return UnsafeMutableRawPointer.allocate(byteCount: max(1, byteCount), alignment: 64)
    }
    let address = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let address = unsafe address, unsafe address != MAP_FAILED else { fatalError("out of memory") }
    return unsafe address
  }

  deinit {
    if byteCount >= AlignedBuffer.mappedSize {
      unsafe _ = munmap(base, byteCount)
    } else {
      unsafe base.deallocate()
    }
  }

  /// Gives `body` the bytes to fill. Only for use before the buffer is shared.
  public func fill<E: Error>(_ body: (inout MutableRawSpan) throws(E) -> Void) throws(E) {
    var span = unsafe MutableRawSpan(_unsafeStart: base, byteCount: byteCount)
    try body(&span)
  }

  /// Copies `source` to `offset`, where it must fit. Only for use before the buffer is shared.
  public func copy(_ source: RawSpan, at offset: Int) {
    precondition(offset >= 0 && offset <= byteCount && source.byteCount <= byteCount - offset)
    unsafe source.withUnsafeBytes { bytes in
      guard let start = bytes.baseAddress else { return }
      unsafe (base + offset).copyMemory(from: start, byteCount: bytes.count)
    }
  }

  /// The address, for kernels written in C. Only for use before the buffer is shared.
  @unsafe public func mutablePointer<Element: BitwiseCopyable>(to type: Element.Type) -> UnsafeMutablePointer<Element> {
    unsafe base.assumingMemoryBound(to: type)
  }

  /// The bytes, to read.
  public var bytes: TensorBytes { unsafe TensorBytes(owner: self, base: UnsafeRawPointer(base), byteCount: byteCount) }
}

/// A read-only memory mapping of a regular file, unmapped with its last reference.
///
/// The file's size is taken once, when it is opened. If somebody shortens the file afterwards, or the disk fails, reading the lost part
/// raises SIGBUS, which ends the process, unless it has called `survivesLostPages()`: then zeros are read in its place, and the file
/// counts as changed. `OutputFile` makes no file from inputs that have changed.
@safe
public final class MappedFile: @unchecked Sendable {
  /// The path as it was given.
  public let path: String
  /// The size in bytes.
  public let byteCount: Int
  private let base: UnsafeMutableRawPointer?
  private let registration: OpaquePointer?
  /// Device and inode, by which an output is kept from replacing its own input.
  public let identity: FileIdentity

  /// Opens and maps `path`. Throws `.notFound`, `.unreadable` or `.inputOutput`.
  public convenience init(path: String) throws(FileError) {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw FileError.opening(path, errno: errno) }
    try self.init(descriptor: descriptor, path: path)
  }

  /// Maps the file that was opened as `descriptor`, and closes it.
  init(descriptor: Int32, path: String) throws(FileError) {
    defer { close(descriptor) }
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else { throw FileError.opening(path, errno: errno) }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw FileError(
        .unreadable, status.st_mode & S_IFMT == S_IFDIR ? "this is a directory" : "this is not a regular file",
        expected: "a checkpoint or artifact file", file: path)
    }
    guard let size = Int(exactly: status.st_size) else {
      throw FileError(.unreadable, "the file is too large to map", file: path)
    }
    self.path = path
    byteCount = size
    identity = FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    guard size > 0 else {
      unsafe base = nil
      unsafe registration = nil
      return
    }
    let address = unsafe mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0)
    guard let address = unsafe address, unsafe address != MAP_FAILED else {
      throw FileError(.inputOutput, "cannot map the file: \(systemMessage(errno))", file: path)
    }
    unsafe base = address
    // Else one byte that is read can make two megabytes of the page cache resident: headers lie everywhere in a checkpoint.
    unsafe _ = madvise(address, size, MADV_NOHUGEPAGE)
    var file = mwf_file(
      device: identity.device, inode: identity.inode, size: UInt64(size),
      modified_seconds: Int64(status.st_mtim.tv_sec), modified_nanoseconds: Int64(status.st_mtim.tv_nsec))
    unsafe registration = mwf_mapping_register(address, &file, path)
  }

  deinit {
    guard let base = unsafe base else { return }
    unsafe mwf_mapping_release(registration)
    unsafe _ = munmap(base, byteCount)
  }

  /// From now on a mapped file of this process that loses bytes reads as zeros and counts as changed, where the process would end by
  /// SIGBUS. Programs call it once, before they open files; SIGBUS of other causes goes where it went.
  public static func survivesLostPages() { mwf_survive_lost_pages() }

  /// The error for the first mapped file of this process that lost bytes while it was read, if any did.
  public static var firstLoss: FileError? { unsafe mwf_first_lost_file().map { unsafe .changed(String(cString: $0)) } }

  /// Throws `.changed` if a mapped file lost bytes, or has another size or time of change than when it was mapped.
  static func checkUnchanged(_ identity: FileIdentity) throws(FileError) {
    guard let path = unsafe mwf_changed_file(identity.device, identity.inode) else { return }
    throw unsafe .changed(String(cString: path))
  }

  /// All bytes of the file.
  public var bytes: TensorBytes {
    guard let base = unsafe base else { return AlignedBuffer(byteCount: 0).bytes }
    return unsafe TensorBytes(owner: self, base: UnsafeRawPointer(base), byteCount: byteCount)
  }

  /// The most that one page fault maps: the page cache may hold a file in blocks of 2 MiB, which then come whole.
  private static let faultReach = 2 << 20

  /// Tells the kernel that the pages of `range` are not needed now, so that they do not count as resident, nor those around it that came
  /// with them: nobody else may ever read these. They come back from the file when they are read again.
  public func discard(_ range: Range<Int>) {
    guard let base = unsafe base, !range.isEmpty else { return }
    let reach = MappedFile.faultReach
    let first = max(0, range.lowerBound) / reach * reach
    let last = min(byteCount, (min(range.upperBound, byteCount) + reach - 1) / reach * reach)
    guard first < last else { return }
    unsafe _ = madvise(base + first, last - first, MADV_DONTNEED)
  }
}

/// What makes two paths the same file.
public struct FileIdentity: Hashable, Sendable {
  /// The device number.
  public var device: UInt64
  /// The inode number.
  public var inode: UInt64
}

extension FileError {
  /// The error for an input that was not the same file from beginning to end.
  static func changed(_ path: String) -> FileError {
    FileError(
      .changed, "the input was shortened or written to, or its disk failed, while it was read",
      expected: "a file that stays as it is", remedy: "wait until it is complete, or copy it, and try again", file: path
    )
  }

  /// The error for a file that cannot be opened for reading.
  static func opening(_ path: String, errno code: Int32) -> FileError {
    if code == ENOENT || code == ENOTDIR {
      return FileError(.notFound, "there is no such file", remedy: "check the path", file: path)
    }
    return FileError(.unreadable, "cannot open the file: \(systemMessage(code))", file: path)
  }
}

/// The C library's text for an error number.
func systemMessage(_ code: Int32) -> String {
  guard let text = unsafe strerror(code) else { return "error \(code)" }
  return unsafe String(cString: text)
}
