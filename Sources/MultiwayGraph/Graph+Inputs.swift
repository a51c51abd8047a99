public import MultiwayCore

/// Inputs that fit a graph, and the sizes that its symbols take for them.
public struct BoundInputs: Sendable {
  /// A tensor for every input of the graph, in the graph's order: fp32, token ids, or masks of 0 and 1.
  public let tensors: [TensorValue]
  /// The sizes of `batch`, `text_tokens` and so on.
  public let symbols: [String: Int]

  /// The inputs of a range of examples, where `batch` is the symbol of the first dimension of them all.
  public func examples(_ range: Range<Int>, of batch: String) -> BoundInputs {
    var symbols = symbols
    symbols[batch] = range.count
    return BoundInputs(tensors: tensors.map { $0.rows(range) }, symbols: symbols)
  }
}

extension Graph {
  /// The input that marks padded text tokens; it may be left out where nothing is padded.
  public static let paddingMaskName = "padding_mask"

  /// How many problems an error lists before it counts the rest.
  private static let listedProblems = 12

  /// Checks inputs against the graph and throws one error that lists all that is wrong with them: names, ranks, sizes, types, token
  /// ids outside the vocabulary, more tokens than positions, fewer than a pooling needs. A padding mask that is left out means that
  /// nothing is padded.
  public func bind(_ inputs: [String: TensorValue]) throws(GraphError) -> BoundInputs {
    var binder = InputBinder(graph: self)
    let tensors = binder.bind(inputs)
    binder.checkCapacity()
    guard binder.problems.isEmpty else {
      let expected = self.inputs.map { "\(self[$0].name): \(self[$0].type)" }.joined(separator: ", ")
      var lines = binder.problems.prefix(Graph.listedProblems).map { "\n    " + $0 }
      let rest = binder.problems.count - lines.count
      if rest > 0 { lines.append("\n    and \(rest) more") }
      let isImage = binder.problems.contains { $0.hasPrefix("image") && $0.contains(" has shape ") }
      throw GraphError(
        .invalidInputs, "the inputs do not fit the model" + lines.joined(), expected: expected,
        remedy: isImage ? "prepare images of that size, or convert the checkpoint with --image-size" : nil)
    }
    return BoundInputs(tensors: tensors, symbols: binder.symbols)
  }
}

private struct InputBinder {
  let graph: Graph
  var symbols: [String: Int] = [:]
  var problems: [String] = []

  init(graph: Graph) { self.graph = graph }

  mutating func bind(_ inputs: [String: TensorValue]) -> [TensorValue] {
    let names = Set(graph.inputs.map { graph[$0].name })
    let unexpected = inputs.keys.sorted().filter { !names.contains($0) }
    var tensors: [TensorValue?] = []
    for id in graph.inputs {
      let value = graph[id]
      guard let tensor = inputs[value.name] else {
        if value.name != Graph.paddingMaskName { problems.append("missing: \(value.name)") }
        tensors.append(nil)
        continue
      }
      tensors.append(bindShape(tensor, to: value) ? converted(tensor, value, id) : nil)
    }
    problems += unexpected.map { "unexpected: \($0)" }
    return zip(graph.inputs, tensors).map { id, tensor in tensor ?? zeros(graph[id].type) }
  }

  private mutating func bindShape(_ tensor: TensorValue, to value: Value) -> Bool {
    let dimensions = value.type.dimensions
    let mismatch = "\(value.name) has shape \(tensor.shape), expected \(value.type)"
    guard tensor.shape.rank == dimensions.count else {
      problems.append(mismatch)
      return false
    }
    for (size, dimension) in zip(tensor.shape.dimensions, dimensions) {
      if let symbol = dimension.symbol, symbols[symbol] == nil {
        symbols[symbol] = size - dimension.offset
        if size - dimension.offset < 1 {
          problems.append("\(value.name) has shape \(tensor.shape): \(symbol) must be at least 1")
          return false
        }
      } else if dimension.resolved(symbols) != size {
        let sizes = dimension.symbol.map { ", where \($0) is \(symbols[$0] ?? 0)" } ?? ""
        problems.append(mismatch + sizes)
        return false
      }
    }
    return true
  }

  private mutating func converted(_ tensor: TensorValue, _ value: Value, _ id: ValueID) -> TensorValue? {
    switch value.type.dtype {
    case .f32: return TensorValue(tensor.shape, tensor.floats)
    case .u8: return TensorValue(tensor.shape, integers: tensor.floats.map { $0 == 0 ? 0 : 1 })
    default:
      guard let ids = tensor.integers else {
        problems.append("\(value.name) holds numbers that are not whole")
        return nil
      }
      let limit = vocabulary(of: id)
      if let place = ids.firstIndex(where: { $0 < 0 || $0 >= limit }) {
        problems.append("\(value.name) holds the token id \(ids[place]), expected 0 to \(limit - 1)")
        return nil
      }
      return TensorValue(tensor.shape, integers: ids)
    }
  }

  /// The number of rows of the tables that ids index.
  private func vocabulary(of id: ValueID) -> Int {
    var rows = Int.max
    for node in graph.nodes where node.inputs.contains(id) {
      if case .embedding(let table) = node.op { rows = min(rows, graph[table].data.shape[0]) }
    }
    return rows
  }

  private func zeros(_ type: ValueType) -> TensorValue {
    let shape = Shape(checking: type.dimensions.map { max(0, $0.resolved(symbols) ?? 0) }) ?? [0]
    let size = problems.isEmpty ? shape : [0]
    return type.dtype == .f32
      ? TensorValue(size, [Float](repeating: 0, count: size.elementCount))
      : TensorValue(size, integers: [Int](repeating: 0, count: size.elementCount))
  }

  mutating func checkCapacity() {
    for node in graph.nodes {
      if case .attention(let attention) = node.op { checkAttention(attention, node) }
      guard let input = node.inputs.first, graph[input].type.dimensions.count > 1,
        let tokens = graph[input].type.dimensions[1].resolved(symbols)
      else { continue }
      switch node.op {
      case .addPositions(let table, let firstRow):
        let capacity = graph[table].data.shape[0] - firstRow
        if tokens > capacity { problems.append("\(tokens) tokens, but there are only \(capacity) positions") }
      case .meanTokens(let first), .selectToken(let first):
        if tokens <= first {
          problems.append("\(tokens) tokens, but \(node.op.name) needs at least \(first + 1)")
        }
      default: continue
      }
    }
  }

  /// The streams' batch is a multiple of each memory's, and the bias index has a row for every token.
  private mutating func checkAttention(_ attention: Attention, _ node: Node) {
    func size(_ place: Int, _ axis: Int) -> Int? { graph[node.inputs[place]].type.dimensions[axis].resolved(symbols) }
    if let batch = size(attention.queryPlace(0), 0) {
      for memory in 0..<attention.memories {
        guard let shared = size(attention.memoryPlace(memory), 0), shared < 1 || batch % shared != 0 else { continue }
        problems.append(
          "\(graph[node.inputs[attention.memoryPlace(memory)]].name) has \(shared) examples, which do not divide a batch "
            + "of \(batch)")
      }
    }
    guard let bias = attention.bias else { return }
    let lengths = node.outputs.indices.compactMap { size(attention.queryPlace($0), 1) }
    let (total, most) = (lengths.reduce(0, +), graph[bias.index].data.shape[0])
    if lengths.count == node.outputs.count, total > most {
      problems.append("\(total) tokens, but \(graph[bias.index].name) has only \(most)")
    }
  }
}
