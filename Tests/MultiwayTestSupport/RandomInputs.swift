public import MultiwayCore
public import MultiwayGraph

/// Inputs from a seed for any graph: noise for images, ids from the whole vocabulary, and a mask that pads the end of every
/// second example.
public func randomInputs(
  for graph: Graph, batch: Int, textTokens: Int = 5, seed: UInt64 = 1
) -> [String: TensorValue] {
  var numbers = SeededGenerator(seed: seed)
  var inputs: [String: TensorValue] = [:]
  for id in graph.inputs {
    let value = graph[id]
    let shape = Shape(
      value.type.dimensions.map { dimension in
        dimension.size ?? (dimension.symbol == "text_tokens" ? textTokens : batch) + dimension.offset
      })
    switch value.type.dtype {
    case .f32: inputs[value.name] = TensorValue(shape, numbers.floats(shape.elementCount))
    case .u8:
      let mask = (0..<shape.elementCount).map { index in
        index / shape.last % 2 == 1 && index % shape.last >= (shape.last + 1) / 2 ? 1 : 0
      }
      inputs[value.name] = TensorValue(shape, integers: mask)
    default:
      let rows = graph.nodes.compactMap { node -> Int? in
        guard case .embedding(let table) = node.op, node.inputs == [id] else { return nil }
        return graph[table].data.shape[0]
      }
      let ids = numbers.integers(shape.elementCount, in: 0..<(rows.min() ?? 1))
      inputs[value.name] = TensorValue(shape, integers: ids)
    }
  }
  return inputs
}
