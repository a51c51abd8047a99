import Foundation
import MultiwayCore
import Testing

/// A folder of its own that is removed with the value.
final class Folder {
  let path = NSTemporaryDirectory() + "/multiway-core-" + UUID().uuidString
  init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String) -> String { path + "/" + name }
  func write(_ text: String, as name: String) throws -> String {
    try text.write(toFile: file(name), atomically: false, encoding: .utf8)
    return file(name)
  }
  func text(_ name: String) -> String? { try? String(contentsOfFile: file(name), encoding: .utf8) }
  var names: [String] { (try? FileManager.default.contentsOfDirectory(atPath: path).sorted()) ?? [] }
}

private func code(_ body: () throws -> Void) -> FileErrorCode? {
  do {
    try body()
    return nil
  } catch {
    return (error as? FileError)?.code
  }
}

private func write(_ text: String, to path: String, overwrite: Bool = false, inputs: [FileIdentity] = []) throws {
  var file = try OutputFile(path: path, overwrite: overwrite, inputs: inputs)
  try file.write(Array(text.utf8))
  try file.commit()
}

@Suite struct OutputFileTests {
  @Test func appearsWhole() throws {
    let folder = try Folder()
    do {
      var file = try OutputFile(path: folder.file("out"), overwrite: false)
      try file.write(Array("hello".utf8))
      #expect(folder.text("out") == nil)
      try file.pad(toMultipleOf: 8)
      #expect(file.byteCount == 8)
      try file.commit()
    }
    #expect(folder.text("out") == "hello\0\0\0")
    #expect(folder.names == ["out"])
  }

  /// In a release build, where temporary arrays once lost their elements on the way.
  @Test(arguments: [7, 1000]) func writesTemporaryArrays(count: Int) throws {
    let folder = try Folder()
    do {
      var file = try OutputFile(path: folder.file("out"), overwrite: false)
      try file.write([UInt64(count)])
      try file.write([Float(count), 2])
      try file.commit()
    }
    let bytes = try MappedFile(path: folder.file("out")).bytes
    #expect(bytes.extracting(0..<8).array(of: UInt64.self) == [UInt64(count)])
    #expect(bytes.extracting(8..<16).array(of: Float.self) == [Float(count), 2])
    #expect(TensorBytes(copying: [UInt64(count), 3]).array(of: UInt64.self) == [UInt64(count), 3])
  }

  @Test func leavesNothingBehind() throws {
    let folder = try Folder()
    do {
      var file = try OutputFile(path: folder.file("out"), overwrite: false)
      try file.write([UInt8](repeating: 1, count: 3 << 20))
    }
    #expect(folder.names == [])
  }

  @Test func refusesToOverwrite() throws {
    let folder = try Folder()
    let path = try folder.write("old", as: "out")
    #expect(code { try write("new", to: path) } == .exists)
    #expect(folder.text("out") == "old")
    try write("new", to: path, overwrite: true)
    #expect(folder.text("out") == "new")
    #expect(folder.names == ["out"])
  }

  @Test func keepsTheOldFileUntilTheEnd() throws {
    let folder = try Folder()
    let path = try folder.write("old", as: "out")
    do {
      var file = try OutputFile(path: path, overwrite: true)
      try file.write([UInt8](repeating: 1, count: 3 << 20))
    }
    #expect(folder.text("out") == "old")
    #expect(folder.names == ["out"])
  }

  @Test func neverWritesThroughALink() throws {
    let folder = try Folder()
    let victim = try folder.write("victim", as: "victim")
    try FileManager.default.createSymbolicLink(atPath: folder.file("out"), withDestinationPath: victim)
    #expect(throws: FileError.self) { try write("new", to: folder.file("out")) }
    try? write("new", to: folder.file("out"), overwrite: true)
    #expect(folder.text("victim") == "victim")
  }

  @Test func refusesItsOwnInput() throws {
    let folder = try Folder()
    let path = try folder.write("in", as: "in")
    try FileManager.default.linkItem(atPath: path, toPath: folder.file("hard"))
    let input = try MappedFile(path: path)
    #expect(throws: FileError.self) { try write("x", to: path, overwrite: true, inputs: [input.identity]) }
    #expect(throws: FileError.self) {
      try write("x", to: folder.file("hard"), overwrite: true, inputs: [input.identity])
    }
    #expect(folder.text("in") == "in")
    #expect(folder.names == ["hard", "in"])
  }

  @Test func refusesImpossiblePlaces() throws {
    let folder = try Folder()
    #expect(code { try write("x", to: folder.file("missing/out")) } == .cannotCreate)
    #expect(throws: FileError.self) { try write("x", to: folder.path, overwrite: true) }
    #expect(throws: FileError.self) { try write("x", to: "/dev/full", overwrite: true) }
    #expect(folder.names == [])
  }
}

@Suite struct MappedFileTests {
  @Test func mapsBytes() throws {
    let folder = try Folder()
    let file = try MappedFile(path: try folder.write("hello", as: "in"))
    #expect(file.byteCount == 5)
    #expect(file.bytes.array(of: UInt8.self) == Array("hello".utf8))
    file.discard(0..<5)
    file.discard(-10..<1 << 40)
    #expect(file.bytes.array(of: UInt8.self) == Array("hello".utf8))
  }

  @Test func emptyFile() throws {
    let folder = try Folder()
    let file = try MappedFile(path: try folder.write("", as: "in"))
    #expect(file.byteCount == 0)
    #expect(file.bytes.byteCount == 0)
    file.discard(0..<0)
  }

  @Test func refuses() throws {
    let folder = try Folder()
    #expect(code { _ = try MappedFile(path: folder.file("missing")) } == .notFound)
    #expect(code { _ = try MappedFile(path: folder.path) } == .unreadable)
    #expect(code { _ = try MappedFile(path: "/dev/null") } == .unreadable)
    #expect(code { _ = try MappedFile(path: try folder.write("", as: "file") + "/x") } == .notFound)
    #expect(unsafe mkfifo(folder.file("fifo"), 0o600) == 0)
    #expect(code { _ = try MappedFile(path: folder.file("fifo")) } == .unreadable)
  }
}
