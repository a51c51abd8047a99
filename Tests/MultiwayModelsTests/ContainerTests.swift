import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayTestSupport
import Testing

/// One state dict in every container that PyTorch and NumPy write.
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

  @Test(arguments: [
    "bare.pth", "model.pth", "module.pth", "state_dict.pth", "ema.pth", "protocol4.pth", "protocol5.pth", "legacy.pth",
    "tar.pth", "tensors.pkl", "arrays.pkl", "arrays.npz", "compressed.npz",
  ])
  func everyContainerGivesTheSameBits(container: String) throws {
    let checkpoint = try Fixtures.checkpoint(ContainerTests.folder + container)
    let stored = try checkpoint.stateDict()
    let whole = try Fixtures.checkpoint(ContainerTests.folder + "expected.safetensors").stateDict()
    #expect(Set(stored.tensors.map(\.name)) == Set(whole.tensors.map(\.name)))
    for tensor in stored.tensors {
      let other = try #require(whole.tensor(named: tensor.name))
      #expect(tensor.dtype == other.dtype && tensor.shape == other.shape)
      #expect(
        try tensor.contiguousBytes().array(of: UInt8.self) == other.contiguousBytes().array(of: UInt8.self),
        "\(tensor.name)")
    }
    let model = try Architectures.load(stored, of: checkpoint, options: ContainerTests.options)
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
}
