import MultiwayCore
import MultiwayGraph
import MultiwayQuantization

/// The matrix products with weights.
extension NodeEvaluation {
  mutating func linear(_ weight: ConstantID, _ bias: ConstantID?) throws -> [Float] {
    let shape = graph[weight].data.shape
    let outputs = shape[0]
    let rows = inputs[0].shape.dimensions.dropLast().reduce(1, *)
    let start = try bias.map { id throws in try weights(id) }
    let matrix = try weights(weight)
    var result = [Float](repeating: 0, count: rows * outputs)
    try BLAS.multiply(
      input, MatrixPlace(rows: rows, columns: width), matrix, MatrixPlace(rows: outputs, columns: width),
      transposesRight: true, into: &result, MatrixPlace(rows: rows, columns: outputs))
    if let start {
      for row in 0..<rows {
        for output in 0..<outputs { result[row * outputs + output] += start[output] }
      }
    }
    return result
  }

  /// Quantizes the tokens, multiplies integers exactly, and scales back: what the runtime computes, in the plainest way. Each group of
  /// inputs is a layer of its own; their results add up in order.
  mutating func quantizedLinear(_ linear: QuantizedLinear) throws -> [Float] {
    let panels = try materializer.bytes(of: graph[linear.panels].data).array(of: Int8.self)
    let scales = try materializer.bytes(of: graph[linear.scales].data).array(of: Float.self)
    let rows = inputs[0].shape.dimensions.dropLast().reduce(1, *)
    var result = [Float](repeating: 0, count: rows * linear.outputs)
    if let start = try linear.bias.map({ id throws in try weights(id) }) {
      for index in result.indices { result[index] = start[index % linear.outputs] }
    }
    let length = linear.inputs / linear.groups
    for group in 0..<linear.groups {
      let place = group * length..<(group + 1) * length
      let own = Array(scales[group * linear.outputs..<(group + 1) * linear.outputs])
      try addGroup(place, panels, own, linear, to: &result)
    }
    return result
  }

  private func addGroup(
    _ place: Range<Int>, _ panels: [Int8], _ scales: [Float], _ linear: QuantizedLinear, to result: inout [Float]
  ) throws {
    let rows = result.count / max(1, linear.outputs)
    let tokens = (0..<rows).map { QuantizedToken(input[$0 * width + place.lowerBound..<$0 * width + place.upperBound]) }
    let left = tokens.flatMap(\.values)
    // A part of the outputs at a time: the weights are eight times as large in double precision.
    for first in stride(from: 0, to: linear.outputs, by: 1024) {
      let part = first..<min(linear.outputs, first + 1024)
      let right = NodeEvaluation.unpacked(panels, outputs: part, place, of: linear.inputs)
      let sums = try BLAS.multiplyTransposed(left, right, m: rows, n: part.count, k: place.count)
      for row in 0..<rows {
        for output in part {
          let sum = Float(sums[row * part.count + output - first])
          result[row * linear.outputs + output] += sum * (tokens[row].scale * scales[output])
        }
      }
    }
  }

  /// Some weights of some outputs, [outputs, place].
  private static func unpacked(_ panels: [Int8], outputs: Range<Int>, _ place: Range<Int>, of inputs: Int) -> [Double] {
    var matrix: [Double] = []
    matrix.reserveCapacity(outputs.count * place.count)
    for output in outputs {
      for input in place {
        matrix.append(Double(panels[Int8Panels.offset(output: output, input: input, inputs: inputs)]))
      }
    }
    return matrix
  }
}
