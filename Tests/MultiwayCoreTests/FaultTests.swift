import Foundation
import MultiwayCore
import MultiwayTestSupport
import Testing

/// Every call that writes a file fails in turn, in every way that it can.
@Suite struct FaultTests {
  /// An output of several writes, of which one is larger than the buffer, with a part that is written again.
  private static let content: [UInt8] = (0..<(5 << 19)).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }

  private func write(to path: String, overwrite: Bool) throws {
    let content = FaultTests.content
    var file = try OutputFile(path: path, overwrite: overwrite)
    try file.write([UInt8](repeating: 0, count: 1000))
    try file.write(Array(content[1000..<1 << 19]))
    try file.write(Array(content[(1 << 19)...]))
    try file.rewrite(Array(content[..<1000]), at: 0)
    try file.commit()
  }

  @Test(arguments: [true, false], [true, false])
  func everyCallFailsInTurn(knowsUnnamed: Bool, overwrite: Bool) throws {
    let faults: [FaultyDevice.Fault] = [.error(ENOSPC), .error(EIO), .error(EINTR), .error(EDQUOT), .shortWrite]
    let calls = try succeed(FaultyDevice(failing: nil, knowsUnnamed: knowsUnnamed), overwrite: overwrite)
    #expect(calls.count >= 7)
    for fault in faults {
      for place in calls.indices {
        let device = FaultyDevice(failing: place, with: fault, knowsUnnamed: knowsUnnamed)
        try fail(device, at: calls[place], fault, overwrite: overwrite)
      }
    }
  }

  /// Which calls there are: without them the sweep would prove nothing.
  @Test func theSweepMeetsEveryCall() throws {
    var met: Set<FaultyDevice.Call> = []
    for (knowsUnnamed, overwrite) in [(true, true), (true, false), (false, true), (false, false)] {
      met.formUnion(try succeed(FaultyDevice(failing: nil, knowsUnnamed: knowsUnnamed), overwrite: overwrite))
    }
    #expect(
      met == [
        .openUnnamed, .create, .write, .rewrite, .synchronize, .name, .link, .rename, .unlink, .synchronizeFolder,
      ])
  }

  private func succeed(_ device: FaultyDevice, overwrite: Bool) throws -> [FaultyDevice.Call] {
    let folder = try Folder()
    if overwrite { _ = try folder.write("old", as: "out") }
    try OutputDevices.$current.withValue(device) { try write(to: folder.file("out"), overwrite: overwrite) }
    #expect(folder.names == ["out"])
    #expect(try MappedFile(path: folder.file("out")).bytes.array(of: UInt8.self) == FaultTests.content)
    return device.calls
  }

  private func fail(
    _ device: FaultyDevice, at call: FaultyDevice.Call, _ fault: FaultyDevice.Fault, overwrite: Bool
  ) throws {
    let folder = try Folder()
    let path = folder.file("out")
    if overwrite { _ = try folder.write("old", as: "out") }
    let comment = "\(fault) at \(call)"
    var error: FileError?
    do {
      try OutputDevices.$current.withValue(device) { try write(to: path, overwrite: overwrite) }
    } catch let found as FileError {
      error = found
    }
    // Interrupted calls and short writes are nobody's business, and a name that could not be taken away is tried again.
    let isHarmless = fault == .shortWrite || fault == .error(EINTR) || call == .unlink
    let isCreation = call == .openUnnamed || call == .create
    #expect(error?.category == (isHarmless ? nil : isCreation ? .cannotCreate : .inputOutput), "\(comment)")
    let isFull = fault == .error(ENOSPC) || fault == .error(EDQUOT)
    if isFull, !isHarmless, call != .synchronizeFolder {
      #expect(error?.diagnosis.remedy?.contains("free some space") == true, "\(comment)")
    }
    // The new file stands where the fault came after its name, the old one or none elsewhere; nothing else is ever left.
    let isThere = error == nil || call == .synchronizeFolder
    #expect(folder.names == (isThere || overwrite ? ["out"] : []), "\(comment)")
    if isThere {
      let isWhole = try MappedFile(path: path).bytes.array(of: UInt8.self) == FaultTests.content
      #expect(isWhole, "\(comment)")
    } else {
      #expect(folder.text("out") == (overwrite ? "old" : nil), "\(comment)")
    }
    try write(to: path, overwrite: true)
    let isWhole = try MappedFile(path: path).bytes.array(of: UInt8.self) == FaultTests.content
    #expect(isWhole && folder.names == ["out"], "a rerun after \(comment)")
  }

  /// What a process of the same number left that was killed does not stand in the way of another; it is not ours to remove.
  @Test(arguments: [true, false]) func aLeftoverIsNoObstacle(knowsUnnamed: Bool) throws {
    let folder = try Folder()
    let leftover = ".out.\(getpid()).partial"
    _ = try folder.write("left", as: leftover)
    _ = try folder.write("old", as: "out")
    let device = FaultyDevice(failing: nil, knowsUnnamed: knowsUnnamed)
    try OutputDevices.$current.withValue(device) { try write(to: folder.file("out"), overwrite: true) }
    #expect(folder.names == [leftover, "out"])
    #expect(folder.text(leftover) == "left")
  }

  /// While a file is written there is nothing to see of it, so that nothing is left even if the process is killed.
  @Test func nothingHasANameBeforeTheEnd() throws {
    let folder = try Folder()
    let device = FaultyDevice(failing: nil)
    try OutputDevices.$current.withValue(device) {
      var file = try OutputFile(path: folder.file("out"), overwrite: false)
      try file.write([UInt8](repeating: 1, count: 3 << 20))
      // Not every file system can do that; then the file has a name of its own, which begins with a dot.
      #expect(device.calls.contains(.create) ? folder.names.allSatisfy { $0.hasPrefix(".out.") } : folder.names == [])
      try file.commit()
    }
    #expect(folder.names == ["out"])
  }
}

/// Inputs that do not stay as they are.
@Suite struct ChangingInputTests {
  private let size = 64 << 12

  private func mapped(_ folder: Folder) throws -> MappedFile {
    MappedFile.survivesLostPages()
    let path = folder.file("in")
    try Data(repeating: 7, count: size).write(to: URL(fileURLWithPath: path))
    return try MappedFile(path: path)
  }

  private func code(_ file: MappedFile, _ folder: Folder) throws -> FileErrorCode? {
    do {
      var output = try OutputFile(path: folder.file("out"), overwrite: false, inputs: [file.identity])
      try output.write([1] as [UInt8])
      try output.commit()
      return nil
    } catch {
      return error.code
    }
  }

  @Test func aFileThatStaysIsNoError() throws {
    let folder = try Folder()
    let file = try mapped(folder)
    #expect(file.bytes.array(of: UInt8.self).allSatisfy { $0 == 7 })
    #expect(try code(file, folder) == nil)
    #expect(folder.names == ["in", "out"])
  }

  /// The lost part reads as zeros where SIGBUS would have ended the process, and no output is made of it.
  @Test(arguments: [0, 1, 4096, 4097, 100_000]) func aFileThatShrinksWhileMapped(to newSize: Int) throws {
    let folder = try Folder()
    let file = try mapped(folder)
    #expect(unsafe truncate(file.path, off_t(newSize)) == 0)
    let bytes = file.bytes.array(of: UInt8.self)
    #expect(bytes.count == size)
    #expect(bytes[..<newSize].allSatisfy { $0 == 7 } && bytes[newSize...].allSatisfy { $0 == 0 })
    #expect(MappedFile.firstLoss?.code == .changed)
    #expect(MappedFile.firstLoss?.category == .inputOutput)
    #expect(try code(file, folder) == .changed)
    #expect(folder.names == ["in"])
  }

  /// Bytes that no instruction touches, as the kernel copies them into the output: it says that they are not there.
  @Test func aFileThatShrinksBeforeItsBytesAreCopied() throws {
    let folder = try Folder()
    MappedFile.survivesLostPages()
    let path = folder.file("in")
    try Data(repeating: 7, count: 4 << 20).write(to: URL(fileURLWithPath: path))
    let file = try MappedFile(path: path)
    #expect(unsafe truncate(path, 4096) == 0)
    let bytes = file.bytes
    let error = #expect(throws: FileError.self) {
      var output = try OutputFile(path: folder.file("out"), overwrite: false, inputs: [file.identity])
      try output.write(bytes.span)
      try output.commit()
    }
    #expect(error?.code == .changed)
    #expect(error?.diagnosis.file == path)
    #expect(folder.names == ["in"])
  }

  /// A file that grows back, or is written to, is another one even where all bytes could be read.
  @Test func aFileThatIsWrittenTo() throws {
    let folder = try Folder()
    let file = try mapped(folder)
    let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: file.path))
    var times = [timespec(tv_sec: 1, tv_nsec: 0), timespec(tv_sec: 1, tv_nsec: 0)]
    try handle.write(contentsOf: Data([8]))
    #expect(unsafe futimens(handle.fileDescriptor, &times) == 0)
    #expect(try code(file, folder) == .changed)
    #expect(folder.names == ["in"])
  }

  /// Somebody puts a new file in the place of the old one: the old one is still there for us.
  @Test func aFileThatIsReplaced() throws {
    let folder = try Folder()
    let file = try mapped(folder)
    _ = try folder.write("another", as: "new")
    #expect(unsafe rename(folder.file("new"), file.path) == 0)
    #expect(file.bytes.array(of: UInt8.self).allSatisfy { $0 == 7 })
    #expect(try code(file, folder) == nil)
  }

  /// A loss is remembered after the mapping is gone, and forgotten when the file is opened anew.
  @Test func aLossIsRememberedUntilTheFileIsOpenedAgain() throws {
    let folder = try Folder()
    var identity: FileIdentity?
    do {
      let file = try mapped(folder)
      #expect(unsafe truncate(file.path, 1) == 0)
      _ = file.bytes.array(of: UInt8.self)
      identity = file.identity
    }
    let lost = try #require(identity)
    var output = try OutputFile(path: folder.file("out"), overwrite: false, inputs: [lost])
    try output.write([1] as [UInt8])
    do {
      try output.commit()
      Issue.record("a file was made of lost bytes")
    } catch {
      #expect(error.code == .changed)
    }
    let again = try MappedFile(path: folder.file("in"))
    #expect(try code(again, folder) == nil)
  }
}
