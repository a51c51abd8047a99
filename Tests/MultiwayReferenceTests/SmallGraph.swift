import MultiwayCore
import MultiwayGraph
import MultiwayReference

/// A graph in the making, with the weights given as plain numbers.
struct SmallGraph {
  var graph = Graph()
  private var inputs: [String: TensorValue] = [:]

  /// Adds an input of fixed size that `run` will give.
  mutating func input(_ name: String, _ dtype: DType, _ value: TensorValue, batch: String = "batch") -> ValueID {
    inputs[name] = value
    var dimensions = value.shape.dimensions.map(Dimension.fixed)
    dimensions[0] = .symbol(batch)
    return graph.addInput(name, ValueType(dtype, dimensions))
  }

  mutating func floats(_ name: String, _ shape: Shape, _ values: [Float]) -> ValueID {
    input(name, .f32, TensorValue(shape, values))
  }

  mutating func constant(_ name: String, _ shape: Shape, _ values: [Float], as dtype: DType = .f32) -> ConstantID {
    let stored = TensorExpression.stored(StoredTensor(name: name, dtype: .f32, shape: shape, elements: values))
    return graph.addConstant(
      Constant(name: name, role: .head, modality: .shared, data: dtype == .f32 ? stored : .cast(stored, dtype)))
  }

  mutating func add(_ op: Op, _ inputs: ValueID..., name: String = "y") throws -> ValueID {
    try graph.add(op, inputs, names: [name], modality: .shared)[0]
  }

  /// Makes `values` the outputs and runs the graph.
  mutating func run(_ values: ValueID...) throws -> [TensorValue] {
    for id in values { graph.outputs.append(GraphOutput(name: graph[id].name, value: id)) }
    return try Reference(graph).run(inputs).map(\.value)
  }
}

/// The largest difference between two lists of the same length.
func largestDifference(_ left: [Float], _ right: [Double]) -> Double {
  guard left.count == right.count else { return .infinity }
  return zip(left, right).map { abs(Double($0) - $1) }.max() ?? 0
}
