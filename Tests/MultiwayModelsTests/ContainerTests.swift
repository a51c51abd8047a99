import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayTestSupport
import Testing

/// One state dict in every container that PyTorch writes.
@Suite struct ContainerTests {
  private static let folder = "tiny/containers/"
  /// Only some of the containers have room for `args`, which tell the heads.
  private static let options = ModelOptions(heads: 2)

  private func outputs(_ graph: Graph) throws -> [String: [UInt32]] {
    try Engine.runtime.run(graph, randomInputs(for: graph, batch: 2)).bits
  }

  private func expected() throws -> Model {
    let checkpoint = try Fixtures.checkpoint(ContainerTests.folder + "expected.safetensors")
    return try Architectures.load(try checkpoint.stateDict(), of: checkpoint, options: ContainerTests.options)
  }

  @Test(arguments: ["bare", "model", "module", "state_dict", "ema", "protocol4", "protocol5"])
  func everyContainerGivesTheSameBits(container: String) throws {
    let model = try Fixtures.model(ContainerTests.folder + container, heads: 2)
    let reference = try expected()
    #expect(model.graph.description == reference.graph.description)
    #expect(try outputs(model.graph) == outputs(reference.graph))
  }

  @Test func theAveragedCopyIsTakenOnRequestOnly() throws {
    let average = try Fixtures.model(ContainerTests.folder + "ema", stateDict: "model_ema", heads: 2)
    #expect(try outputs(average.graph) != outputs(try expected().graph))
    let name = "beit3.encoder.layers.0.ffn.A.fc1.weight"
    let half = try #require(average.parameters.stored.first { $0.tensor.name == name }).tensor
    let whole = try #require(try expected().parameters.stored.first { $0.tensor.name == name }).tensor
    #expect(half.name == name)
    #expect(try half.floats() == whole.floats().map { $0 / 2 })
  }

  @Test func halfPrecisionWeightsAreTheirFp32Values() throws {
    let checkpoint = try Fixtures.checkpoint(ContainerTests.folder + "half.pth")
    let stored = try checkpoint.stateDict()
    #expect(stored.tensors.allSatisfy { $0.dtype == .f16 })
    let decoded = StateDict(
      name: "", tensors: try stored.tensors.map { try TensorValue($0).stored(as: $0.name) })
    #expect(decoded.tensors.allSatisfy { $0.dtype == .f32 })
    let half = try Architectures.load(stored, of: checkpoint, options: ContainerTests.options)
    let single = try Architectures.load(decoded, of: checkpoint, options: ContainerTests.options)
    #expect(try outputs(half.graph) == outputs(single.graph))
  }

  @Test func theLegacyFormatIsRefusedWithARemedy() throws {
    let error = #expect(throws: CheckpointError.self) {
      _ = try Fixtures.checkpoint(ContainerTests.folder + "legacy.pth")
    }
    #expect(error?.code == .unsupported)
    #expect(error?.diagnosis.found.contains("before 1.6") == true)
    #expect(error?.diagnosis.remedy?.contains("torch.save") == true)
  }
}
