import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayKernels
import MultiwayTestSupport
import Testing

/// The same artifact and input give the same bits on every instruction set, with any number of threads, in any batch.
@Suite struct SameBitsTests {
  /// What is run: a checkpoint as it is, or an artifact of it.
  private static let kinds = ["fp32", "f16", "int8"]

  private func graph(_ fixture: String, _ kind: String, in bench: Workbench) throws -> Graph {
    kind == "fp32" ? try bench.load(fixture).graph : try bench.artifact(fixture, try Recipes.find(kind)).graph
  }

  private func inputs(_ fixture: String) throws -> [String: TensorValue] {
    if fixture == "digits" { return ["image": try Fixtures.digits(0..<4).image] }
    return randomInputs(for: try Fixtures.graph(fixture), batch: 4, textTokens: 8, seed: 9)
  }

  @Test(arguments: Fixtures.models + ["digits"], kinds)
  func everyInstructionSetAndNumberOfThreads(fixture: String, kind: String) throws {
    let bench = try Workbench()
    let graph = try graph(fixture, kind, in: bench)
    let inputs = try inputs(fixture)
    let expected = try runtimeOutputs(graph, inputs, isa: .scalar, threads: 1).bits
    #expect(!expected.isEmpty)
    for isa in ISA.supported {
      for threads in [1, 2, 3, 8] where isa != .scalar || threads > 1 {
        let found = try runtimeOutputs(graph, inputs, isa: isa, threads: threads).bits
        #expect(found == expected, "\(isa) with \(threads) threads")
      }
    }
  }

  @Test(arguments: Fixtures.models + ["digits"], kinds)
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

  /// Recorded once; another machine, compiler or thread count must give the same. The failure shows the digest of today.
  @Test(arguments: digests)
  func theOutputsAreThoseThatWereRecorded(recorded: (fixture: String, kind: String, digest: String)) throws {
    let bench = try Workbench()
    let graph = try graph(recorded.fixture, recorded.kind, in: bench)
    let digest = try Engine.runtime.run(graph, try inputs(recorded.fixture)).digest
    #expect(
      digest == recorded.digest,
      "\(recorded.fixture) \(recorded.kind): change this only with the arithmetic in Docs/Numerics.md")
  }

  private static let digests = [
    ("digits", "fp32", "0e153e7cd7fa54a1"), ("digits", "f16", "533ed9fe10023958"),
    ("tiny/classification", "fp32", "0a40c0bda0412a4a"), ("tiny/classification", "f16", "28ea094bb1bb0996"),
    ("tiny/features", "fp32", "94a50d488b9320bd"), ("tiny/features", "f16", "d36b2d40958395c0"),
    ("digits", "int8", "85dabf62a09abb7c"), ("tiny/classification", "int8", "0862ff1b3d5f31e0"),
    ("tiny/features", "int8", "bd9cd39499ebefad"),
    ("tiny/heads/captioning", "fp32", "a1046a8f548a631c"), ("tiny/heads/captioning", "int8", "737aafe09d31cbb2"),
    ("tiny/heads/nlvr2", "fp32", "25cee8e8ce7de50d"),
    ("tiny/heads/nlvr2", "int8", "95b962c026b947c1"),
    ("tiny/heads/vqa", "fp32", "8788732667ed5df8"), ("tiny/heads/retrieval", "fp32", "11b676b1942339e5"),
  ]
}
