import Glibc

/// Old files of a folder that give way to new ones, with the way back open until all is done.
///
/// Old files are set aside under temporary names, so no step destroys anything. Those by which readers find the others, the keys, go first
/// and the new ones come last, in both directions: at no moment does a reader find a mixture.
struct FolderChange {
  private let folder: String
  private let device = OutputDevices.current
  private var keys: [OldFile] = []
  private var others: [OldFile] = []
  /// The new files that have their names.
  private var named: [String] = []

  private struct OldFile {
    var path: String
    var temporary: String
  }

  init(folder: String) { self.folder = folder }

  /// Takes the keys out of the way that there are, for good: not even a power failure shows them beside what is named later.
  mutating func setAside(keys paths: [String]) throws(FileError) {
    for path in paths where try OutputFile.exists(path) { keys.append(try moved(path)) }
    if !keys.isEmpty { try flush() }
  }

  /// Takes a file out of the way, if it is there.
  mutating func setAside(_ path: String) throws(FileError) {
    if try OutputFile.exists(path) { others.append(try moved(path)) }
  }

  /// Gives a new file its name.
  mutating func name(_ file: consuming OutputFile) throws(FileError) {
    let path = file.path
    try file.appear()
    named.append(path)
  }

  /// Waits until the folder's names are on the disk.
  func flush() throws(FileError) { try flush(folder) }

  /// Waits until the names of another folder are on the disk.
  func flush(_ folder: String) throws(FileError) {
    do throws(SystemCallError) {
      try OutputFile.synchronize(folder, on: device)
    } catch {
      throw OutputFile.failed(folder, error)
    }
  }

  /// Removes the old files; what cannot be removed keeps its temporary name.
  consuming func finish() {
    for file in others + keys where !OutputFile.hasRemoved(file.temporary, on: device) {
      _ = OutputFile.hasRemoved(file.temporary, on: device)
    }
  }

  /// Puts everything back as it was, as far as the disk does what it is told, and gives the error that led to it; it tells where old
  /// files are that could not be put back.
  consuming func undo(after error: FileError) -> FileError {
    // The key goes first, as it was named last.
    while let path = named.last, OutputFile.hasRemoved(path, on: device) { named.removeLast() }
    if named.isEmpty {
      try? flush()
      others = unrestored(others)
      try? flush()
      if others.isEmpty { keys = unrestored(keys) }
      try? flush()
    }
    let left = others + keys
    guard let first = left.first else { return error }
    var error = error
    error.diagnosis.found +=
      "; \(left.count) old \(left.count == 1 ? "file" : "files") could not be put back: \(first.path) is \(first.temporary)"
    error.diagnosis.remedy =
      "check the disk, and give the files their names back: without the leading dot and what follows the name"
    return error
  }

  /// Gives old files their names back, the last one first, and says which did not get them.
  private func unrestored(_ files: [OldFile]) -> [OldFile] {
    let device = device
    for (index, file) in files.enumerated().reversed() {
      do throws(SystemCallError) {
        try OutputFile.retrying { () throws(SystemCallError) in try device.rename(file.temporary, to: file.path) }
      } catch {
        return Array(files[...index])
      }
    }
    return []
  }

  private func moved(_ path: String) throws(FileError) -> OldFile {
    let device = device
    // An empty file takes the name first: a rename alone would replace what has it. Only that file is known to interrupts: they remove it.
    let temporary = try OutputFile.withTemporaryName(for: path, onFailure: OutputFile.failed) {
      (name) throws(SystemCallError) in close(try device.create(name))
    }.path
    do throws(SystemCallError) {
      try OutputFile.retrying { () throws(SystemCallError) in try device.rename(path, to: temporary) }
    } catch {
      // Network file systems may say that a call failed which was done.
      if (try? OutputFile.exists(path)) == true { _ = OutputFile.hasRemoved(temporary, on: device) }
      throw OutputFile.failed(path, error)
    }
    return OldFile(path: path, temporary: temporary)
  }
}
