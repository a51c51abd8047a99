public import MultiwayCore

extension Graph {
  /// Adds an input.
  public mutating func addInput(_ name: String, _ type: ValueType) -> ValueID {
    values.append(Value(name: name, type: type))
    let id = ValueID(values.count - 1)
    inputs.append(id)
    return id
  }

  /// Adds a constant.
  public mutating func addConstant(_ constant: Constant) -> ConstantID {
    constants.append(constant)
    return ConstantID(constants.count - 1)
  }

  /// Adds a node with one output of the type that follows from its inputs.
  /// - Returns: the output.
  public mutating func add(
    _ op: Op, _ inputs: ValueID..., name: String, role: Role? = nil, modality: Modality
  ) throws(GraphError) -> ValueID {
    try add(op, inputs, names: [name], role: role, modality: modality)[0]
  }

  /// Adds a node.
  /// - Parameter names: the names of the outputs; as many as the op has.
  /// - Returns: the outputs.
  public mutating func add(
    _ op: Op, _ inputs: [ValueID], names: [String], role: Role? = nil, modality: Modality
  ) throws(GraphError) -> [ValueID] {
    var node = Node(op: op, inputs: inputs, outputs: [], role: role, modality: modality)
    let types = try TypeInference(self, node).outputTypes()
    guard types.count == names.count else {
      throw GraphError(
        .typeMismatch, "\(op.name) with \(names.count) outputs", expected: "\(types.count)", node: names.first)
    }
    for (name, type) in zip(names, types) {
      values.append(Value(name: name, type: type))
      node.outputs.append(ValueID(values.count - 1))
    }
    nodes.append(node)
    return node.outputs
  }
}
