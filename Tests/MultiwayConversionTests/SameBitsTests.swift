import Foundation
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayKernels
import MultiwayTestSupport
import Testing

/// The same artifact and input give the same bits on every instruction set, with any number of threads, in any batch, on every
/// machine: the digests of the outputs are committed.
@Suite struct SameBitsTests {
  private static let models = Fixtures.models + ["digits"]
  /// What is run: a checkpoint as it is, or an artifact of it.
  private static let kinds = ["fp32"] + Recipes.all.map(\.name).filter { $0 != Recipes.f32.name }
  private static let recorded = URL(fileURLWithPath: Fixtures.path("output_digests.json"))
  private static let isRecording = ProcessInfo.processInfo.environment["MULTIWAY_UPDATE_GOLDENS"] != nil

  private func graph(_ fixture: String, _ kind: String, in bench: Workbench) throws -> Graph {
    kind == "fp32" ? try bench.load(fixture).graph : try bench.artifact(fixture, try Recipes.find(kind)).graph
  }

  private func inputs(_ fixture: String) throws -> [String: TensorValue] {
    if fixture == "digits" { return ["image": try Fixtures.digits(0..<4).image] }
    return randomInputs(for: try Fixtures.graph(fixture), batch: 4, textTokens: 8, seed: 9)
  }

  @Test(.enabled(if: !isRecording), arguments: models, kinds)
  func everyInstructionSetAndNumberOfThreads(fixture: String, kind: String) throws {
    let bench = try Workbench()
    let graph = try graph(fixture, kind, in: bench)
    let inputs = try inputs(fixture)
    let file = try JSONParser.parse([UInt8](try Data(contentsOf: Self.recorded)))
    let expected = try #require(file["\(fixture) \(kind)"]?.string, "record it with MULTIWAY_UPDATE_GOLDENS=1")
    for isa in ISA.supported {
      for threads in [1, 2, 3, 8] {
        let digest = try runtimeOutputs(graph, inputs, isa: isa, threads: threads).digest
        #expect(
          digest == expected,
          "\(isa), \(threads) threads: change \(Self.recorded.lastPathComponent) only with the arithmetic in Docs/Numerics.md"
        )
      }
    }
  }

  /// With MULTIWAY_UPDATE_GOLDENS=1, writes what the scalar kernels give today.
  @Test(.enabled(if: isRecording)) func recordDigests() throws {
    var digests = JSONObject()
    for fixture in Self.models {
      let inputs = try inputs(fixture)
      for kind in Self.kinds {
        let graph = try graph(fixture, kind, in: try Workbench())
        digests["\(fixture) \(kind)"] = .string(
          try runtimeOutputs(graph, inputs, isa: .scalar, threads: 1).digest)
      }
    }
    try Data((JSONValue.object(digests).text(indented: true) + "\n").utf8).write(to: Self.recorded)
  }

  @Test(arguments: models, kinds)
  func aBatchOfFourIsFourBatchesOfOne(fixture: String, kind: String) throws {
    let bench = try Workbench()
    let graph = try graph(fixture, kind, in: bench)
    let inputs = try inputs(fixture)
    let whole = try Engine.runtime.run(graph, inputs)
    let parts = try (0..<4).map { row in try Engine.runtime.run(graph, inputs.mapValues { $0.rows(row..<row + 1) }) }
    for (name, value) in whole { #expect(parts.flatMap { $0[name]?.bits ?? [] } == value.bits, "\(name)") }
  }

  /// An artifact in f32 computes the checkpoint's own bits: writing loses nothing.
  @Test(arguments: Fixtures.models)
  func anF32ArtifactIsTheCheckpoint(fixture: String) throws {
    let artifact = try Workbench().artifact(fixture, Recipes.f32)
    let inputs = try inputs(fixture)
    #expect(
      try Engine.runtime.run(artifact.graph, inputs).bits
        == Engine.runtime.run(try Fixtures.graph(fixture), inputs).bits)
  }
}
