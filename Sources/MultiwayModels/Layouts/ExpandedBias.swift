import MultiwayCore

/// Relative position biases that an ONNX exporter computed for every pair of tokens, [1, heads, tokens, tokens], brought back to the table
/// that they came from. Every row of it stands in them at least once.
enum ExpandedBias {
  private static let suffix = "relative_position_bias"

  /// The tensors with tables in place of expanded biases.
  static func collected(_ tensors: [StoredTensor]) -> [StoredTensor] {
    guard tensors.contains(where: { positions(in: $0) != nil }) else { return tensors }
    let names = Set(tensors.map(\.name))
    return tensors.map { tensor in
      let name = tensor.name + "_table"
      guard !names.contains(name), let positions = positions(in: tensor) else { return tensor }
      return StoredTensor(
        name: name, dtype: .f32, shape: [positions.tableRows, tensor.shape[1]],
        storage: CollectedBiasStorage(tensor, positions))
    }
  }

  /// The grid that an expanded bias belongs to; nil for any other tensor.
  private static func positions(in tensor: StoredTensor) -> RelativePositions? {
    let dimensions = tensor.shape.dimensions
    guard tensor.name.hasSuffix(suffix), dimensions.count == 4, dimensions[0] == 1, dimensions[2] == dimensions[3],
      dimensions[2] > 1, tensor.dtype.isDecodable
    else { return nil }
    return (1...RelativePositions.largestGrid).lazy.map { RelativePositions(grid: $0) }
      .first { $0.tokens == dimensions[2] }
  }
}

/// The table of an expanded bias, collected when it is asked for.
private final class CollectedBiasStorage: TensorStorage {
  private let bias: StoredTensor
  private let positions: RelativePositions

  init(_ bias: StoredTensor, _ positions: RelativePositions) {
    self.bias = bias
    self.positions = positions
  }

  private var heads: Int { bias.shape[1] }

  var byteCount: Int { positions.tableRows * heads * 4 }

  func load() throws(TensorError) -> TensorBytes {
    let elements = try bias.floats()
    let tokens = positions.tokens
    var table = [Float](repeating: 0, count: positions.tableRows * heads)
    var isKnown = [Bool](repeating: false, count: positions.tableRows)
    for query in 0..<tokens {
      for key in 0..<tokens {
        let row = positions.row(query, key)
        for head in 0..<heads {
          let element = elements[(head * tokens + query) * tokens + key]
          guard !isKnown[row] || table[row * heads + head].bitPattern == element.bitPattern else {
            throw TensorError(
              .corrupt, "the bias of the tokens \(query) and \(key) is not that of others at the same distance",
              expected: "biases of relative positions", tensor: bias.name)
          }
          table[row * heads + head] = element
        }
        isKnown[row] = true
      }
    }
    return TensorBytes(copying: table)
  }

  var origins: [StoredTensor]? { bias.sources }

  func discard() { bias.discard() }
}
