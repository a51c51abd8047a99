import MultiwayCore
import MultiwayGraph
import MultiwayQuantization

/// One node on its way to its outputs. The inputs have the types that the graph says, and every weight that is read here is
/// dropped with this value. The ops are in `Ops/`.
struct NodeEvaluation {
  let graph: Graph
  let node: Node
  let inputs: [TensorValue]
  /// The shapes of the outputs.
  let shapes: [Shape]
  var materializer = Materializer(discardsSources: true)

  init(graph: Graph, node: Node, inputs: [TensorValue], shapes: [Shape]) {
    self.graph = graph
    self.node = node
    self.inputs = inputs
    self.shapes = shapes
  }

  mutating func evaluate() throws -> [TensorValue] {
    if case .attention(let attention) = node.op { return try self.attention(attention) }
    return [TensorValue(shapes[0], try elements())]
  }

  /// The elements of the only output.
  private mutating func elements() throws -> [Float] {
    switch node.op {
    case .patchify(let size): return patchify(size)
    case .embedding(let table): return try embedding(table)
    case .prependToken(let token): return try prependToken(token)
    case .addPositions(let table, let firstRow): return try addPositions(table, firstRow: firstRow)
    case .zeroPadding: return zeroPadding()
    case .layerNorm(let weight, let bias, let epsilon): return try layerNorm(weight, bias, epsilon: epsilon)
    case .linear(let weight, let bias): return try linear(weight, bias)
    case .quantizedLinear(let linear): return try quantizedLinear(linear)
    case .scale(let factor): return input.map { $0 * factor }
    case .scaleChannels(let factors): return try scaleChannels(factors)
    case .gelu: return gelu()
    case .tanh: return tanh()
    case .relu: return input.map { $0 < 0 ? 0 : $0 }
    case .add: return zip(input, inputs[1].floats).map { $0 + $1 }
    case .attention: return []
    case .meanTokens(let first): return try meanTokens(first: first)
    case .selectToken(let index): return try selectToken(index)
    case .dropTokens(let first): return try dropTokens(first: first)
    case .joinTokens: return joinTokens(inputs)
    case .joinChannels: return joinChannels()
    case .normalizeL2: return normalizeL2()
    case .featureMap(let op, let grid): return try featureMap(op, grid)
    }
  }

  /// The elements of the first input.
  var input: [Float] { inputs[0].floats }

  /// The size of the first input's last axis.
  var width: Int { inputs[0].shape.last }

  /// The weights of a constant as fp32.
  mutating func weights(_ id: ConstantID) throws -> [Float] { try materializer.floats(of: graph[id].data) }

  /// An error about the number of tokens.
  func tokensError(_ found: Int, expected: String) -> ReferenceError {
    ReferenceError(
      .invalidInput, "\(node.op.name) gets \(found) tokens", expected: expected, node: graph[node.outputs[0]].name)
  }
}
