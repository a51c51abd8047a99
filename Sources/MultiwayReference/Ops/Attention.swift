import Glibc
import MultiwayCore
import MultiwayGraph
import MultiwayQuantization

/// Softmax attention over the joint sequence of all streams.
extension NodeEvaluation {
  mutating func attention(_ attention: Attention) throws -> [TensorValue] {
    let (batches, width) = (shapes[0][0], shapes[0][2])
    var joint = try JointSequence(attention, self)
    let steps = attention.isQuantized ? joint.quantize(heads: attention.heads, width: width) : nil
    let bias = try attention.bias.map { bias throws in try RelativeScores(bias, self, &materializer) }
    let (rows, columns) = (joint.queryCount, joint.keyCount)
    var result = [Float](repeating: 0, count: batches * rows * width)
    var scores = [Float](repeating: 0, count: rows * columns)
    let matrix = MatrixPlace(rows: rows, columns: columns)
    let size = width / attention.heads
    for batch in 0..<batches {
      for head in 0..<attention.heads {
        let queries = MatrixPlace(offset: batch * rows * width + head * size, rows: rows, columns: size, stride: width)
        let keys = MatrixPlace(
          offset: batch * columns * width + head * size, rows: columns, columns: size, stride: width)
        try BLAS.multiply(joint.queries, queries, joint.keys, keys, transposesRight: true, into: &scores, matrix)
        bias?.add(to: &scores, rows: rows, head: head)
        for row in 0..<rows {
          let own = row * columns..<(row + 1) * columns
          NodeEvaluation.softmax(&scores[own]) { joint.mayAttend(batch: batch, query: row, key: $0) }
          if let steps {
            let first = (batch * attention.heads + head) * columns
            NodeEvaluation.quantizeWeights(&scores[own], steps: steps[first..<first + columns])
          }
        }
        try BLAS.multiply(scores, matrix, joint.values, keys, transposesRight: false, into: &result, queries)
      }
    }
    return split(result, batches: batches, total: rows)
  }

  /// Softmax of a row over the keys that are allowed, the others becoming zeros; zeros alone where there is no such key.
  private static func softmax(_ row: inout ArraySlice<Float>, isAllowed: (Int) -> Bool) {
    let places = row.indices.filter { isAllowed($0 - row.startIndex) }
    let largest = places.reduce(-Float.infinity) { max($0, row[$1]) }
    let weights = places.map { exp(row[$0] - largest) }
    let sum = weights.reduce(0.0) { $0 + Double($1) }
    for place in row.indices { row[place] = 0 }
    for (place, weight) in zip(places, weights) { row[place] = Float(Double(weight) / sum) }
  }

  /// Cuts the joint sequence into the streams.
  private func split(_ joined: [Float], batches: Int, total: Int) -> [TensorValue] {
    var start = 0
    return shapes.map { shape in
      let size = shape[1] * shape[2]
      var elements: [Float] = []
      for batch in 0..<batches {
        let first = (batch * total + start) * shape[2]
        elements += joined[first..<first + size]
      }
      start += shape[1]
      return TensorValue(shape, elements)
    }
  }
}

/// Queries of all streams, keys and values of all memories and streams, and who may attend to whom.
private struct JointSequence {
  private(set) var queries: [Float]
  private(set) var keys: [Float]
  private(set) var values: [Float]
  let queryCount: Int
  let keyCount: Int
  /// Tokens of the last stream.
  private let lastCount: Int
  /// One for each token of the last stream of each example, nonzero where it is padding.
  private let padding: [Int]?
  private let mask: AttentionMask

  init(_ attention: Attention, _ evaluation: NodeEvaluation) throws(ReferenceError) {
    let (inputs, shapes) = (evaluation.inputs, evaluation.shapes)
    let memories = (0..<attention.memories).map { attention.memoryPlace($0) }
    let streams = shapes.indices.map { attention.queryPlace($0) }
    let batch = shapes[0][0]
    for memory in memories where inputs[memory].shape[0] < 1 || batch % inputs[memory].shape[0] != 0 {
      throw ReferenceError(
        .invalidInput, "attention over a memory of \(inputs[memory].shape[0]) examples",
        expected: "a number that divides \(batch)", node: evaluation.graph[evaluation.node.outputs[0]].name)
    }
    queryCount = shapes.reduce(0) { $0 + $1[1] }
    keyCount = queryCount + memories.reduce(0) { $0 + inputs[$1].shape[1] }
    lastCount = shapes[shapes.count - 1][1]
    mask = attention.mask
    padding = attention.isPadded ? inputs.last?.integers : nil
    try evaluation.checkSize([batch, keyCount, shapes[0][2]])
    try evaluation.checkSize([queryCount, keyCount])
    queries = evaluation.joinTokens(streams.map { inputs[$0] })
    keys = evaluation.joinTokens(
      memories.map { JointSequence.repeated(inputs[$0], to: batch) } + streams.map { inputs[$0 + 1] })
    values = evaluation.joinTokens(
      memories.map { JointSequence.repeated(inputs[$0 + 1], to: batch) } + streams.map { inputs[$0 + 2] })
  }

  /// Every example of a memory as often as queries share it.
  private static func repeated(_ memory: TensorValue, to batch: Int) -> TensorValue {
    let count = memory.shape[0]
    let examples = (0..<batch).flatMap { memory.rows($0 / (batch / count)..<$0 / (batch / count) + 1).floats }
    return TensorValue([batch, memory.shape[1], memory.shape[2]], examples)
  }

  /// Rounds queries, keys and values to 8 bits, each token of each head by itself; values become whole numbers.
  /// - Returns: what a value's whole numbers are worth, [batch, heads, keys].
  mutating func quantize(heads: Int, width: Int) -> [Float] {
    let size = width / heads
    for first in stride(from: 0, to: queries.count, by: size) {
      let token = QuantizedToken(queries[first..<first + size])
      for (place, value) in token.values.enumerated() { queries[first + place] = Float(value) * token.scale }
    }
    var steps = [Float](repeating: 0, count: values.count / max(1, size))
    for first in stride(from: 0, to: keys.count, by: size) {
      let key = SymmetricToken(keys[first..<first + size])
      for (place, value) in key.values.enumerated() { keys[first + place] = value * key.scale }
      let value = SymmetricToken(values[first..<first + size])
      values.replaceSubrange(first..<first + size, with: value.values)
      let (token, head) = (first / width, first % width / size)
      steps[(token / keyCount * heads + head) * keyCount + token % keyCount] = value.scale
    }
    return steps
  }

  func mayAttend(batch: Int, query: Int, key: Int) -> Bool {
    let firstOfLast = keyCount - lastCount
    guard key >= firstOfLast else { return true }
    if let padding, padding[batch * lastCount + key - firstOfLast] != 0 { return false }
    // Queries and keys end together: with the last token of the last stream.
    return mask == .none || key <= query + keyCount - queryCount
  }
}

/// A relative bias ready to be added.
private struct RelativeScores {
  private let table: [Float]
  private let index: [Int16]
  private let rows: Int
  private let side: Int

  init(_ bias: RelativeBias, _ evaluation: NodeEvaluation, _ materializer: inout Materializer) throws {
    let graph = evaluation.graph
    rows = graph[bias.table].data.shape[0]
    side = graph[bias.index].data.shape[0]
    table = try materializer.biasTable(of: graph[bias.table].data)
    index = try materializer.biasIndex(of: graph[bias.index].data, rows: rows).array(of: Int16.self)
    let tokens = evaluation.shapes.reduce(0) { $0 + $1[1] }
    guard tokens <= side else { throw evaluation.tokensError(tokens, expected: "at most \(side)") }
  }

  /// Adds the numbers of a head to a square of scores with `rows` tokens.
  func add(to scores: inout [Float], rows tokens: Int, head: Int) {
    for query in 0..<tokens {
      for key in 0..<tokens {
        scores[query * tokens + key] += table[head * rows + Int(index[query * side + key])]
      }
    }
  }
}

extension NodeEvaluation {
  fileprivate func checkSize(_ dimensions: [Int]) throws(ReferenceError) {
    guard let shape = Shape(checking: dimensions), shape.elementCount <= Reference.maximumElements else {
      throw ReferenceError(
        .tooLarge, "attention over a joint sequence of the shape \(dimensions)",
        expected: "at most \(Reference.maximumElements) elements", node: graph[node.outputs[0]].name)
    }
  }
}
