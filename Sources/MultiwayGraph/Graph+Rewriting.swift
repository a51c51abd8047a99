extension Graph {
  /// Makes every reader of `old` read `new` instead, outputs included.
  public mutating func replaceUses(of old: ValueID, with new: ValueID) {
    for position in nodes.indices {
      nodes[position].inputs = nodes[position].inputs.map { $0 == old ? new : $0 }
    }
    for position in outputs.indices where outputs[position].value == old { outputs[position].value = new }
  }

  /// Removes what no output depends on: nodes, then values, constants and inputs that nothing reads, and renumbers the rest.
  /// - Returns: the number of nodes removed.
  @discardableResult
  public mutating func removeDeadCode() -> Int {
    var isNeeded = [Bool](repeating: false, count: values.count)
    for output in outputs { isNeeded[output.value.index] = true }
    var kept: [Node] = []
    for node in nodes.reversed() where node.outputs.contains(where: { isNeeded[$0.index] }) {
      for id in node.inputs + node.outputs { isNeeded[id.index] = true }
      kept.append(node)
    }
    let removed = nodes.count - kept.count
    nodes = kept.reversed()
    inputs.removeAll { !isNeeded[$0.index] }
    renumberValues(isNeeded)
    renumberConstants()
    return removed
  }

  private mutating func renumberValues(_ isNeeded: [Bool]) {
    var newValues: [Value] = []
    var places = [ValueID?](repeating: nil, count: values.count)
    for index in values.indices where isNeeded[index] {
      places[index] = ValueID(newValues.count)
      newValues.append(values[index])
    }
    func place(_ id: ValueID) -> ValueID {
      guard let place = places[id.index] else { preconditionFailure("a needed value was removed") }
      return place
    }
    values = newValues
    inputs = inputs.map(place)
    for position in nodes.indices {
      nodes[position].inputs = nodes[position].inputs.map(place)
      nodes[position].outputs = nodes[position].outputs.map(place)
    }
    for position in outputs.indices { outputs[position].value = place(outputs[position].value) }
  }

  private mutating func renumberConstants() {
    var isUsed = [Bool](repeating: false, count: constants.count)
    for id in nodes.flatMap({ $0.op.constants.map(\.id) }) { isUsed[id.index] = true }
    keepConstants(constants.indices.filter { isUsed[$0] })
  }

  /// Puts the constants in the order in which nodes first read them, so that those of a layer stand together. What no node reads goes.
  public mutating func orderConstantsByUse() {
    var isPlaced = [Bool](repeating: false, count: constants.count)
    var order: [Int] = []
    for id in nodes.flatMap({ $0.op.constants.map(\.id) }) where !isPlaced[id.index] {
      isPlaced[id.index] = true
      order.append(id.index)
    }
    keepConstants(order)
  }

  /// Keeps the constants at `indices`, in this order: all that nodes read have to be among them.
  private mutating func keepConstants(_ indices: [Int]) {
    var places = [Int: ConstantID]()
    for (place, index) in indices.enumerated() { places[index] = ConstantID(place) }
    constants = indices.map { constants[$0] }
    for position in nodes.indices {
      nodes[position].op = nodes[position].op.mappingConstants { places[$0.index] ?? $0 }
    }
  }
}
