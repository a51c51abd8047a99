public import MultiwayCore
public import MultiwayGraph

/// A graph in the making whose weights come from a seed.
public struct GraphSketch {
  /// The graph so far.
  public var graph = Graph()
  /// Where numbers come from.
  public var numbers: SeededGenerator

  /// Starts an empty graph.
  public init(seed: UInt64) { numbers = SeededGenerator(seed: seed) }

  /// A constant with elements in `range`, stored as `dtype`.
  public mutating func constant(
    _ name: String, _ shape: Shape, in range: ClosedRange<Float> = -1...1, as dtype: DType = .f32, role: Role = .head
  ) -> ConstantID {
    let elements = numbers.floats(shape.elementCount, in: range)
    let stored = TensorExpression.stored(StoredTensor(name: name, dtype: .f32, shape: shape, elements: elements))
    return graph.addConstant(
      Constant(name: name, role: role, modality: .shared, data: dtype == .f32 ? stored : .cast(stored, dtype)))
  }

  /// A linear layer [outputs, inputs] with a bias, its weights of the size that keeps the sums near 1.
  public mutating func linear(
    _ name: String, outputs: Int, inputs: Int, hasBias: Bool = true, as dtype: DType = .f32, role: Role = .head
  ) -> Op {
    let limit = 1 / Float(max(1, inputs)).squareRoot()
    let weight = constant(name + ".weight", [outputs, inputs], in: -limit...limit, as: dtype, role: role)
    return .linear(weight: weight, bias: hasBias ? constant(name + ".bias", [outputs], role: role) : nil)
  }

  /// The same in int8, with the inputs cut into groups.
  public mutating func quantizedLinear(
    _ name: String, outputs: Int, inputs: Int, groups: Int = 1, hasBias: Bool = true
  ) -> Op {
    let weight = numbers.floats(outputs * inputs)
    let matrix = QuantizedMatrix(
      .stored(StoredTensor(name: name, dtype: .f32, shape: [outputs, inputs], elements: weight)), groups: groups)
    let ids = QuantizedMatrix.Component.allCases.map { component in
      graph.addConstant(
        Constant(
          name: "\(name).\(component.rawValue)", role: .head, modality: .shared,
          data: .quantized(matrix, component)))
    }
    return .quantizedLinear(
      QuantizedLinear(
        panels: ids[0], scales: ids[1], sums: ids[2], bias: hasBias ? constant(name + ".bias", [outputs]) : nil,
        inputs: inputs, outputs: outputs, groups: groups))
  }

  /// A LayerNorm of a width.
  public mutating func norm(
    _ name: String, _ width: Int, hasWeight: Bool = true, hasBias: Bool = true, role: Role = .headNorm
  ) -> Op {
    .layerNorm(
      weight: hasWeight ? constant(name + ".weight", [width], in: 0.5...1.5, role: role) : nil,
      bias: hasBias ? constant(name + ".bias", [width], role: role) : nil, epsilon: 1e-5)
  }

  /// Adds a node with one output.
  public mutating func add(
    _ op: Op, _ inputs: ValueID..., name: String, role: Role? = nil, modality: Modality = .shared
  ) throws(GraphError) -> ValueID {
    try graph.add(op, inputs, names: [name], role: role, modality: modality)[0]
  }

  /// Names a value as an output.
  public mutating func output(_ name: String, _ value: ValueID) {
    graph.outputs.append(GraphOutput(name: name, value: value))
  }
}
