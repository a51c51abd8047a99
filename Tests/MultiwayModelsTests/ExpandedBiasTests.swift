import MultiwayCheckpoint
import MultiwayCore
import MultiwayModels
import MultiwayTestSupport
import Testing

/// Biases of every pair of tokens, as torch.onnx writes them, become the table that they were computed from.
@Suite struct ExpandedBiasTests {
  private static let fixture = "family/beit_classification/unilm.pth"
  private static let table = "attn.relative_position_bias_table"

  /// The fixture with each table written out by the index that lies beside it.
  private func expanded(_ change: (inout [Float]) -> Void = { _ in }) throws -> Model {
    let checkpoint = try CheckpointFormats.open(path: Fixtures.path(Self.fixture))
    let dictionary = try checkpoint.stateDict()
    var tensors: [StoredTensor] = []
    for tensor in dictionary.tensors where !tensor.name.hasSuffix("relative_position_index") {
      guard tensor.name.hasSuffix(Self.table),
        let index = dictionary.tensor(named: tensor.name.replacing("bias_table", with: "index"))
      else {
        tensors.append(tensor)
        continue
      }
      let (rows, heads, tokens) = (try tensor.floats(), tensor.shape[1], index.shape[0])
      let places = try index.contiguousBytes().array(of: Int64.self).map { Int($0) }
      var elements = (0..<heads).flatMap { head in places.map { rows[$0 * heads + head] } }
      change(&elements)
      tensors.append(
        StoredTensor(
          name: String(tensor.name.dropLast("_table".count)), dtype: .f32, shape: [1, heads, tokens, tokens],
          elements: elements))
    }
    return try Architectures.load(StateDict(name: "", tensors: tensors), of: checkpoint)
  }

  private func tables(_ model: Model) throws -> [[Float]] {
    try model.parameters.stored.filter { $0.tensor.name.hasSuffix(Self.table) }.map { try $0.tensor.floats() }
  }

  @Test func theTableIsThatOfTheModel() throws {
    let original = try Fixtures.model(String(Self.fixture.dropLast(4)))
    let (wanted, found) = (try tables(original), try tables(try expanded()))
    #expect(!wanted.isEmpty)
    #expect(found == wanted)
  }

  @Test func biasesThatDoNotAgreeAreRefused() throws {
    let model = try expanded { $0[12] += 1 }
    #expect(throws: TensorError.self) { try tables(model) }
  }
}
