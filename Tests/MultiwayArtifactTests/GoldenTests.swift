import Foundation
import MultiwayArtifact
import MultiwayCore
import MultiwayGraph
import Testing

/// The artifact in Formats/gguf/golden pins the format: what was written once must be written, and read, for ever.
@Suite struct GoldenTests {
  private static let golden = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("Formats/gguf/golden/artifact.gguf")

  @Test func theGoldenArtifactIsStillWritten() throws {
    let folder = try ScratchFolder()
    _ = try SampleArtifact.write(in: folder)
    let bytes = try folder.bytes("sample.gguf")
    if ProcessInfo.processInfo.environment["MULTIWAY_UPDATE_GOLDENS"] != nil {
      try Data(bytes).write(to: GoldenTests.golden)
    }
    let isEqual = [UInt8](try Data(contentsOf: GoldenTests.golden)) == bytes
    #expect(isEqual, "run with MULTIWAY_UPDATE_GOLDENS=1 only if the format was changed on purpose")
  }

  @Test func theGoldenArtifactIsStillRead() throws {
    let artifact = try Artifact.read(try MappedFile(path: GoldenTests.golden.path))
    #expect(artifact.graph.description == (try SampleArtifact.graph().description))
    #expect(artifact.metadata == SampleArtifact.metadata)
  }
}
