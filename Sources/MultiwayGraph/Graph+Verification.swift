public import MultiwayCore

extension Graph {
  /// Checks that the graph is well formed: every reference exists and is made before it is read, names are unique, and every
  /// value has the type that its op gives it.
  public func verify() throws(GraphError) {
    try verifyNames()
    var isMade = [Bool](repeating: false, count: values.count)
    for input in inputs {
      try checkReference(input, "an input")
      guard !isMade[input.index] else {
        throw GraphError(.duplicateName, "a value is an input twice", node: self[input].name)
      }
      guard self[input].type.dimensions.allSatisfy({ Dimension.limits.contains($0.offset) }) else {
        throw GraphError(
          .typeMismatch, "the input is \(self[input].type)",
          expected: "sizes of at most \(Dimension.limits.upperBound)", node: self[input].name)
      }
      isMade[input.index] = true
    }
    for node in nodes {
      for input in node.inputs {
        try checkReference(input, node.op.name)
        guard isMade[input.index] else {
          throw GraphError(.invalidReference, "\(node.op.name) reads a value before it is made", node: self[input].name)
        }
      }
      for output in node.outputs {
        try checkReference(output, node.op.name)
        guard !isMade[output.index] else {
          throw GraphError(.invalidReference, "\(node.op.name) makes a value a second time", node: self[output].name)
        }
        isMade[output.index] = true
      }
      try verifyTypes(node)
    }
    for output in outputs {
      try checkReference(output.value, "output '\(output.name)'")
      guard isMade[output.value.index] else {
        throw GraphError(.invalidReference, "output '\(output.name)' is never made", node: self[output.value].name)
      }
    }
  }

  private func verifyTypes(_ node: Node) throws(GraphError) {
    let expected = try TypeInference(self, node).outputTypes()
    let found = node.outputs.map { self[$0].type }
    guard expected == found else {
      throw GraphError(
        .typeMismatch, "\(node.op.name) makes \(found.map(\.description))", expected: "\(expected.map(\.description))",
        node: node.outputs.first.map { self[$0].name })
    }
  }

  private func checkReference(_ id: ValueID, _ reader: String) throws(GraphError) {
    guard id.index >= 0, id.index < values.count else {
      throw GraphError(.invalidReference, "\(reader) refers to value \(id.index), which does not exist")
    }
  }

  private func verifyNames() throws(GraphError) {
    var names: Set<String> = []
    for name in values.map(\.name) where !names.insert(name).inserted {
      throw GraphError(.duplicateName, "two values have the same name", node: name)
    }
    names.removeAll()
    for name in constants.map(\.name) where !names.insert(name).inserted {
      throw GraphError(.duplicateName, "two constants have the same name", tensor: name)
    }
    names.removeAll()
    for name in outputs.map(\.name) where !names.insert(name).inserted {
      throw GraphError(.duplicateName, "two outputs have the same name", node: name)
    }
  }
}
