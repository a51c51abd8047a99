import Glibc
import MultiwayCore
import MultiwayGraph

/// Softmax attention over the joint sequence of all streams.
extension NodeEvaluation {
  func attention(heads: Int, isPadded: Bool) throws(ReferenceError) -> [TensorValue] {
    let streams = shapes.count
    let (batches, width) = (shapes[0][0], shapes[0][2])
    let lengths = shapes.map { $0[1] }
    let total = lengths.reduce(0, +)
    try checkSize([batches, total, width])
    try checkSize([total, total])
    let joined = (0..<3).map { part in joinTokens((0..<streams).map { inputs[$0 * 3 + part] }) }
    let mask = isPadded ? inputs[streams * 3].integers : nil
    let padded = lengths[streams - 1]
    var result = [Float](repeating: 0, count: batches * total * width)
    var scores = [Float](repeating: 0, count: total * total)
    let square = MatrixPlace(rows: total, columns: total)
    let size = width / heads
    for batch in 0..<batches {
      let isMasked = mask.map { mask in
        [Bool](repeating: false, count: total - padded) + mask[batch * padded..<(batch + 1) * padded].map { $0 != 0 }
      }
      for head in 0..<heads {
        let place = MatrixPlace(offset: batch * total * width + head * size, rows: total, columns: size, stride: width)
        try BLAS.multiply(joined[0], place, joined[1], place, transposesRight: true, into: &scores, square)
        NodeEvaluation.softmax(&scores, width: total, isMasked: isMasked)
        try BLAS.multiply(scores, square, joined[2], place, transposesRight: false, into: &result, place)
      }
    }
    return split(result, batches: batches, total: total)
  }

  private func checkSize(_ dimensions: [Int]) throws(ReferenceError) {
    guard let shape = Shape(checking: dimensions), shape.elementCount <= Reference.maximumElements else {
      throw ReferenceError(
        .tooLarge, "attention over a joint sequence of the shape \(dimensions)",
        expected: "at most \(Reference.maximumElements) elements", node: graph[node.outputs[0]].name)
    }
  }

  /// Softmax of every row. Masked keys get −∞; where all keys are masked, all rows become zero.
  private static func softmax(_ scores: inout [Float], width: Int, isMasked: [Bool]?) {
    if let isMasked, isMasked.allSatisfy({ $0 }) {
      scores = [Float](repeating: 0, count: scores.count)
      return
    }
    for start in stride(from: 0, to: scores.count, by: max(1, width)) {
      var largest = -Float.infinity
      for column in 0..<width {
        if isMasked?[column] == true { scores[start + column] = -.infinity }
        largest = max(largest, scores[start + column])
      }
      var sum = 0.0
      for column in 0..<width {
        scores[start + column] = exp(scores[start + column] - largest)
        sum += Double(scores[start + column])
      }
      for column in 0..<width { scores[start + column] = Float(Double(scores[start + column]) / sum) }
    }
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
