/// A folder that gets several files: all of them or none, whatever happens.
///
/// Every file is written first, flushed to the disk, and keeps without a name; `commit()` then names one after the other in the order in which
/// they were added, so the one by which readers find the others, the key, goes last. Old files that new ones replace are kept until then:
/// where anything fails, they get their names back. Before the first of them moves, every old key is gone, so a process that is killed, or a
/// power failure, leaves the old files, the new ones, or a folder without a key, in which readers find no model; never new files beside
/// old ones. What was set aside then remains, as `.NAME.PID.partial`. Interrupts (`Interrupts.removeTemporaryFiles()`) wait until the
/// change is done or undone. If the value goes away before `commit()`, no file was named, and a folder that was created for them is removed.
public final class OutputFolder {
  /// The path, without a slash at its end.
  public let path: String
  private let overwrite: Bool
  private let inputs: [FileIdentity]
  private let keys: [String]
  private let isNew: Bool
  private var waiting: [WaitingFile] = []
  private var retired: [String] = []

  /// A file that is written and waits for its name.
  private final class WaitingFile {
    let path: String
    var file: OutputFile?
    init(_ file: consuming OutputFile) {
      path = file.path
      self.file = consume file
    }
  }

  /// Opens the folder at `path`, or creates it.
  /// - Parameters:
  ///   - overwrite: allow files in it to be replaced.
  ///   - keys: the names of files by which readers find the others. Those that are there belong to what is replaced, even where the
  ///     output has another one: they go, and where that is not allowed the folder is refused.
  ///   - inputs: files that are being read; none of the outputs may be one of them, and none of them goes.
  public init(
    path: String, overwrite: Bool, keys: [String] = [], inputs: [FileIdentity] = []
  ) throws(FileError) {
    var trimmed = path[...]
    while trimmed.count > 1, trimmed.last == "/" { trimmed.removeLast() }
    let folder = String(trimmed)
    self.path = folder
    self.overwrite = overwrite
    self.inputs = inputs
    self.keys = keys.map { folder + "/" + $0 }
    isNew = try Folder.create(folder)
    for key in self.keys { try OutputFile.checkDestination(key, overwrite: overwrite, inputs: inputs) }
  }

  deinit {
    waiting.removeAll()
    // Fails where the folder holds anything, and so where the output is complete.
    if isNew { Folder.removeEmpty(path) }
  }

  /// Starts a file of that name.
  public func file(_ name: String) throws(FileError) -> OutputFile {
    try OutputFile(path: path + "/" + name, overwrite: overwrite, inputs: inputs)
  }

  /// Takes a file that is written.
  public func add(_ file: consuming OutputFile) throws(FileError) {
    try file.settle()
    waiting.append(WaitingFile(file))
  }

  /// Says that a file of the folder belongs to what is replaced, and goes with it, if it is there. One that gets a new file's name may be
  /// among them.
  public func retire(_ name: String) throws(FileError) {
    let path = path + "/" + name
    try OutputFile.checkDestination(path, overwrite: overwrite, inputs: inputs)
    retired.append(path)
  }

  /// Names all files. Where that fails on the way, everything is as it was before: the old files have their names, and a folder that was
  /// created goes again. An old file that cannot be removed when the new ones stand there keeps its temporary name.
  public func commit() throws(FileError) {
    // What takes time, and fails most, comes before anything is moved.
    for place in waiting {
      guard var file = place.file.take() else { continue }
      try file.prepare()
      place.file = consume file
    }
    Interrupts.hold()
    defer { Interrupts.release() }
    var change = FolderChange(folder: path)
    do throws(FileError) {
      if overwrite { try setAside(&change) }
      try name(&change)
    } catch {
      throw change.undo(after: error)
    }
    change.finish()
    waiting.removeAll()
  }

  private func setAside(_ change: inout FolderChange) throws(FileError) {
    try change.setAside(keys: keys)
    for path in waiting.map(\.path) { try change.setAside(path) }
    // Those that are there still: the others went with the new files' names.
    for path in retired { try change.setAside(path) }
  }

  private func name(_ change: inout FolderChange) throws(FileError) {
    for (index, place) in waiting.enumerated() {
      guard let file = place.file.take() else { continue }
      // The key is on the disk only when what it leads to is.
      if index > 0, index == waiting.count - 1 { try change.flush() }
      try change.name(file)
    }
    try change.flush()
    if isNew { try change.flush(OutputFile.folder(of: path)) }
  }
}
