/// A folder that gets several files, all or, as far as a file system can do that, none.
///
/// Every file is written first, flushed to the disk, and keeps without a name; `commit()` then names one after the other in the order in which
/// they were added, so the one by which readers find the others goes last. Where files are replaced, a process that is killed between these
/// calls, some microseconds, leaves new files beside old ones. If the value goes away before that, no file was named, and a folder that was
/// created for them is removed.
public final class OutputFolder {
  /// The path, without a slash at its end.
  public let path: String
  private let overwrite: Bool
  private let inputs: [FileIdentity]
  private let isNew: Bool
  private var waiting: [WaitingFile] = []

  /// A file that is written and waits for its name.
  private final class WaitingFile {
    var file: OutputFile?
    init(_ file: consuming OutputFile) { self.file = consume file }
  }

  /// Opens the folder at `path`, or creates it.
  /// - Parameters:
  ///   - overwrite: allow files in it to be replaced.
  ///   - inputs: files that are being read; none of the outputs may be one of them.
  public init(path: String, overwrite: Bool, inputs: [FileIdentity] = []) throws(FileError) {
    var trimmed = path[...]
    while trimmed.count > 1, trimmed.last == "/" { trimmed.removeLast() }
    self.path = String(trimmed)
    self.overwrite = overwrite
    self.inputs = inputs
    isNew = try Folder.create(self.path)
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

  /// Names all files. Where that fails on the way, a folder that was created for them goes again, with all that was named.
  public func commit() throws(FileError) {
    var named: [String] = []
    do throws(FileError) {
      // All are on the disk before the first has its name: what was there and what is new are side by side for a moment only.
      for place in waiting {
        guard var file = place.file.take() else { continue }
        try file.prepare()
        place.file = consume file
      }
      for (index, place) in waiting.enumerated() {
        guard let file = place.file.take() else { continue }
        // Before it has its name: what fails behind that leaves the file there.
        named.append(file.path)
        if index < waiting.count - 1 { try file.appear() } else { try file.commit() }
      }
    } catch {
      if isNew { for path in named { OutputFile.remove(path) } }
      throw error
    }
    waiting.removeAll()
  }
}
