import MultiwayCore
import MultiwayGraph
import MultiwayQuantization

/// The ops that make, move and take out tokens.
extension NodeEvaluation {
  func patchify(_ size: Int) -> [Float] {
    let pixels = input
    let shape = inputs[0].shape
    let (channels, height, width) = (shape[1], shape[2], shape[3])
    var patches: [Float] = []
    patches.reserveCapacity(pixels.count)
    for image in 0..<shape[0] {
      for top in stride(from: 0, to: height, by: size) {
        for left in stride(from: 0, to: width, by: size) {
          for channel in 0..<channels {
            for row in top..<top + size {
              let start = ((image * channels + channel) * height + row) * width + left
              patches += pixels[start..<start + size]
            }
          }
        }
      }
    }
    return patches
  }

  mutating func embedding(_ table: ConstantID) throws -> [Float] {
    let expression = graph[table].data
    let ids = inputs[0].integers ?? []
    var binding = InputBinding()
    binding.checkIDs(graph[node.inputs[0]].name, inputs[0], rows: expression.shape[0])
    try binding.throwProblems(node: graph[node.outputs[0]].name)
    var rows: [Int: [Float]] = [:]
    var result: [Float] = []
    for id in ids {
      let row = try rows[id] ?? materializer.floats(of: NodeEvaluation.row(id, of: expression))
      rows[id] = row
      result += row
    }
    return result
  }

  /// One row of a table, asked for in a way in which only that row is computed.
  private static func row(_ index: Int, of expression: TensorExpression) -> TensorExpression {
    switch expression {
    case .cast(let source, let dtype): .cast(row(index, of: source), dtype)
    case .scaled(let source, let factor): .scaled(row(index, of: source), by: factor)
    case .columnsScaled(let source, let scales): .columnsScaled(row(index, of: source), by: scales)
    default: .rows(expression, index..<index + 1)
    }
  }

  mutating func prependToken(_ token: ConstantID) throws -> [Float] {
    let vector = try weights(token)
    let shape = inputs[0].shape
    let stream = TensorValue([shape[0], 1, vector.count], Array(repeating: vector, count: shape[0]).flatMap { $0 })
    return joinTokens([stream, inputs[0]])
  }

  mutating func addPositions(_ table: ConstantID, firstRow: Int) throws -> [Float] {
    let shape = inputs[0].shape
    let room = graph[table].data.shape[0] - firstRow
    guard shape[1] <= room else { throw tokensError(shape[1], expected: "at most \(room)") }
    let positions = try weights(table)
    var result = input
    let size = shape[1] * shape[2]
    for batch in 0..<shape[0] {
      for place in 0..<size { result[batch * size + place] += positions[firstRow * shape[2] + place] }
    }
    return result
  }

  func zeroPadding() -> [Float] {
    let mask = inputs[1].integers ?? []
    var result = input
    for (token, isPadded) in mask.enumerated() where isPadded != 0 {
      for place in token * width..<(token + 1) * width { result[place] = 0 }
    }
    return result
  }

  func meanTokens(first: Int) throws -> [Float] {
    let shape = inputs[0].shape
    guard first < shape[1] else { throw tokensError(shape[1], expected: "more than \(first)") }
    let tokens = input
    var result: [Float] = []
    for batch in 0..<shape[0] {
      for column in 0..<width {
        var sum = 0.0
        for token in first..<shape[1] { sum += Double(tokens[(batch * shape[1] + token) * width + column]) }
        result.append(Float(sum / Double(shape[1] - first)))
      }
    }
    return result
  }

  func selectToken(_ index: Int) throws -> [Float] {
    let shape = inputs[0].shape
    guard index < shape[1] else { throw tokensError(shape[1], expected: "more than \(index)") }
    let tokens = input
    return (0..<shape[0]).flatMap { batch in
      let start = (batch * shape[1] + index) * width
      return tokens[start..<start + width]
    }
  }

  func dropTokens(first: Int) throws -> [Float] {
    let shape = inputs[0].shape
    guard first < shape[1] else { throw tokensError(shape[1], expected: "more than \(first)") }
    let tokens = input
    return (0..<shape[0]).flatMap { batch in
      tokens[(batch * shape[1] + first) * width..<(batch + 1) * shape[1] * width]
    }
  }

  /// The tokens of all streams after one another, image by image.
  func joinTokens(_ streams: [TensorValue]) -> [Float] {
    var result: [Float] = []
    for batch in 0..<streams[0].shape[0] {
      for stream in streams {
        let size = stream.shape[1] * stream.shape[2]
        result += stream.floats[batch * size..<(batch + 1) * size]
      }
    }
    return result
  }
}
