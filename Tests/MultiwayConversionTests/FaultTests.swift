import Foundation
import MultiwayConversion
import MultiwayCore
import MultiwayTestSupport
import Testing

/// Conversions whose disk fails, and whose source changes, at every point.
@Suite struct FaultTests {
  private let source = Fixtures.path("tiny/classification.pth")

  private func convert(_ source: String, to path: String, progress: ((Int, Int) -> Void)? = nil) throws {
    if path.hasSuffix(".gguf") {
      _ = try Conversions.quantize(
        try LoadedModel(path: source), recipe: Recipes.int8, to: path, overwrite: true, progress: progress)
    } else {
      _ = try Conversions.convert(
        try ModelFile.open(source), options: InputOptions(), dtype: nil, to: path, overwrite: true, progress: progress)
    }
  }

  /// A conversion with the n-th call failing, for every n.
  @Test(
    arguments: ["out.safetensors", "out.pth", "out.gguf"], [FaultyDevice.Fault.error(ENOSPC), .error(EIO), .shortWrite])
  func theOldFileOrTheNewOne(name: String, fault: FaultyDevice.Fault) throws {
    let bench = try Workbench()
    let path = bench.folder.path(name)
    let old = Array("the old file".utf8)
    let sound = FaultyDevice(failing: nil)
    try OutputDevices.$current.withValue(sound) { try convert(source, to: path) }
    let new = try bench.folder.bytes(name)
    #expect(sound.calls.count >= 6)
    for place in sound.calls.indices {
      try bench.folder.write(old, to: name)
      var error: FileError?
      do {
        try OutputDevices.$current.withValue(FaultyDevice(failing: place, with: fault)) {
          try convert(source, to: path)
        }
      } catch let found as FileError {
        error = found
      }
      let call = sound.calls[place]
      #expect((error == nil) == (fault == .shortWrite), "\(call)")
      if let error { #expect([.cannotCreate, .inputOutput].contains(error.category) && error.diagnosis.file == path) }
      let found = try bench.folder.bytes(name)
      #expect(found == (error == nil || call == .synchronizeFolder ? new : old), "\(fault) at \(call)")
      #expect(try bench.folder.names() == [name], "\(fault) at \(call)")
      try convert(source, to: path)
      let again = try bench.folder.bytes(name)
      #expect(again == new, "a rerun after \(fault) at \(call)")
    }
  }

  /// The source loses its second half, or is written to, when the first tensor has been written.
  @Test(arguments: ["out.safetensors", "out.pth", "out.gguf"], [true, false])
  func aSourceThatChangesOnTheWay(name: String, shrinks: Bool) throws {
    MappedFile.survivesLostPages()
    let bench = try Workbench()
    let copy = bench.folder.path("copy.pth")
    try FileManager.default.copyItem(atPath: Fixtures.path("digits.pth"), toPath: copy)
    let size = try #require(try FileManager.default.attributesOfItem(atPath: copy)[.size] as? Int)
    try bench.folder.write(Array("the old file".utf8), to: name)
    var calls = 0
    let error = #expect(throws: (any Error).self) {
      try convert(copy, to: bench.folder.path(name)) { _, _ in
        calls += 1
        guard calls == 1 else { return }
        if shrinks {
          #expect(unsafe truncate(copy, off_t(size / 2)) == 0)
        } else {
          var times = [timespec(tv_sec: 1, tv_nsec: 0), timespec(tv_sec: 1, tv_nsec: 0)]
          #expect(unsafe utimensat(AT_FDCWD, copy, &times, 0) == 0)
        }
      }
    }
    #expect(calls >= 1)
    // A checksum or a lost page: either is told, and nothing is written.
    let diagnosed = error as? any DiagnosedError
    #expect(diagnosed.map { [FailureCategory.inputOutput, .data].contains($0.category) } == true)
    if !shrinks { #expect((error as? FileError)?.code == .changed) }
    #expect(try bench.folder.names() == ["copy.pth", name])
    #expect(try bench.folder.bytes(name) == Array("the old file".utf8))
  }
}
