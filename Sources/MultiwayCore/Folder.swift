import Glibc

/// A folder whose files are opened by name, and never anything outside it, whatever the names and the links in it say.
@safe
public struct Folder: ~Copyable {
  /// The path as it was given.
  public let path: String
  private let descriptor: Int32

  /// How many names are listed at most.
  private static let maximumNames = 100_000

  /// Opens a folder. Throws `.notFound` or `.unreadable`.
  public init(path: String) throws(FileError) {
    descriptor = unsafe Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileError.opening(path, errno: errno) }
    self.path = path
  }

  deinit { close(descriptor) }

  /// True where there is a folder under the path; a link to one counts.
  public static func exists(_ path: String) -> Bool {
    var status = stat()
    return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
  }

  /// Creates a folder; false where there is one already.
  static func create(_ path: String) throws(FileError) -> Bool {
    if unsafe mkdir(path, 0o777) == 0 { return true }
    let code = errno
    guard code == EEXIST, exists(path) else {
      throw FileError(
        .cannotCreate, "cannot create the output's folder: \(systemMessage(code))",
        remedy: "check that the folder around it exists and can be written to", file: path)
    }
    return false
  }

  /// Removes a folder that holds nothing; leaves any other.
  static func removeEmpty(_ path: String) { unsafe _ = rmdir(path) }

  /// The path of a file in the folder, for errors.
  public func path(of name: String) -> String { path.hasSuffix("/") ? path + name : path + "/" + name }

  /// The names in the folder, sorted by their bytes.
  public var names: [String] {
    let copy = unsafe openat(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard copy >= 0 else { return [] }
    guard let stream = unsafe fdopendir(copy) else {
      close(copy)
      return []
    }
    defer { unsafe _ = closedir(stream) }
    var names: [String] = []
    while names.count < Folder.maximumNames, let entry = unsafe readdir(stream) {
      let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  /// Maps a file of the folder or of a folder in it.
  ///
  /// The name is a path with slashes between plain parts. No part but the last may be a link; the last may be one to a plain name in its
  /// own folder, or, as in the caches of Hugging Face, to `../../blobs/NAME`, and never to another link.
  /// Throws `.leavesFolder` for any other name or link, else what `MappedFile` throws.
  public func open(_ name: String) throws(FileError) -> MappedFile {
    let parts = name.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    guard let last = parts.last, parts.allSatisfy({ Folder.isPlain($0) }) else {
      throw leaving(name, "the name '\(name)' does not stay inside the folder")
    }
    var parents: [Int32] = []
    defer { for parent in parents { close(parent) } }
    var parent = descriptor
    for part in parts.dropLast() {
      parent = try enter(part, of: parent, name: name)
      parents.append(parent)
    }
    let opened = unsafe openat(parent, last, Folder.fileFlags)
    if opened >= 0 { return try MappedFile(descriptor: opened, path: path(of: name)) }
    let code = errno
    guard code == ELOOP else { throw FileError.opening(path(of: name), errno: code) }
    return try follow(last, in: parent, depth: parts.count, name: name)
  }

  private static let fileFlags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK

  /// True for a name that is one part of a path and nothing else on any system.
  private static func isPlain(_ name: String) -> Bool {
    !name.isEmpty && name != "." && name != ".." && !name.utf8.contains { $0 == 0 || $0 == 0x2F || $0 == 0x5C }
  }

  private func leaving(_ name: String, _ found: String) -> FileError {
    FileError(
      .leavesFolder, found, expected: "a file in the folder, or a link as in the caches of Hugging Face",
      remedy: "put the file itself there, or give its own path", file: path(of: name))
  }

  private func enter(_ part: String, of parent: Int32, name: String) throws(FileError) -> Int32 {
    let opened = unsafe openat(parent, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    if opened >= 0 { return opened }
    let code = errno
    var status = stat()
    if unsafe fstatat(parent, part, &status, AT_SYMLINK_NOFOLLOW) == 0, status.st_mode & S_IFMT == S_IFLNK {
      throw leaving(name, "the folder '\(part)' is a link")
    }
    throw FileError.opening(path(of: name), errno: code)
  }

  /// Opens what a link stands for, if it is one of the two that are allowed.
  private func follow(_ link: String, in parent: Int32, depth: Int, name: String) throws(FileError) -> MappedFile {
    let target = Folder.target(of: link, in: parent)
    // A file of a snapshot lies `depth` folders below the one that holds `blobs`, and the snapshot's own name is one more.
    let blobs = String(repeating: "../", count: depth + 1) + "blobs"
    var folder = parent
    var file = target
    if target.hasPrefix(blobs + "/") {
      folder = unsafe openat(parent, blobs, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
      file = String(target.dropFirst(blobs.count + 1))
    }
    defer { if folder != parent { close(folder) } }
    guard Folder.isPlain(file) else { throw leaving(name, "the link to '\(target)' leads out of the folder") }
    let opened = unsafe openat(folder, file, Folder.fileFlags)
    if opened >= 0 { return try MappedFile(descriptor: opened, path: path(of: name)) }
    let code = errno
    if code == ELOOP { throw leaving(name, "the link to '\(target)' leads to another link") }
    throw FileError.opening(path(of: name), errno: code)
  }

  private static func target(of link: String, in parent: Int32) -> String {
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: Int(PATH_MAX)) { buffer, count in
      let length = unsafe buffer.withMemoryRebound(to: CChar.self) { characters in
        guard let start = characters.baseAddress else { return 0 }
        return unsafe readlinkat(parent, link, start, characters.count)
      }
      count = max(0, length)
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
