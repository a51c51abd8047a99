import MultiwayCore

extension Graph: CustomStringConvertible {
  /// The graph as text, a node a line:
  ///
  ///     graph(image: f32[batch, 3, 224, 224]) -> (logits)
  ///       %vision.patches = linear %vision.patchified, vision.patch.weight, vision.patch.bias : f32[batch, 196, 768]
  public var description: String {
    let parameters = inputs.map { "\(self[$0].name): \(self[$0].type)" }.joined(separator: ", ")
    var lines = ["graph(\(parameters)) -> (\(outputs.map(\.name).joined(separator: ", ")))"]
    for node in nodes { lines.append("  " + line(of: node)) }
    let results = outputs.map { "\($0.name) = %\(self[$0.value].name)" }.joined(separator: ", ")
    lines.append("  return \(results)")
    return lines.joined(separator: "\n") + "\n"
  }

  private func line(of node: Node) -> String {
    let results = node.outputs.map { "%" + self[$0].name }.joined(separator: ", ")
    var operands = node.inputs.map { "%" + self[$0].name }
    operands += node.op.constants.map { "\($0.place)=\(constantDescription($0.id))" }
    operands += attributes(of: node.op)
    let types = node.outputs.map { self[$0].type.description }.joined(separator: ", ")
    return "\(results) = \(node.op.name) \(operands.joined(separator: ", ")) : \(types)"
  }

  private func constantDescription(_ id: ConstantID) -> String {
    let constant = self[id]
    return "\(constant.name):\(constant.data.typeName)\(constant.data.shape)"
  }

  private func attributes(of op: Op) -> [String] {
    switch op {
    case .patchify(let size): ["size=\(size)"]
    case .addPositions(_, let firstRow): ["first_row=\(firstRow)"]
    case .layerNorm(_, _, let epsilon): ["epsilon=\(epsilon)"]
    case .quantizedLinear(let linear): linear.groups > 1 ? ["groups=\(linear.groups)"] : []
    case .scale(let factor): ["by=\(factor)"]
    case .attention(let attention): attributes(of: attention)
    case .meanTokens(let first): ["first=\(first)"]
    case .selectToken(let index): ["index=\(index)"]
    case .dropTokens(let first): ["first=\(first)"]
    case .featureMap(let op, let grid): op.attributes(on: grid).map { "\($0.name)=\($0.value)" }
    default: []
    }
  }

  private func attributes(of attention: Attention) -> [String] {
    var attributes = ["heads=\(attention.heads)"]
    if attention.isPadded { attributes.append("padded") }
    if attention.mask != .none { attributes.append("mask=\(attention.mask.rawValue)") }
    if attention.isQuantized { attributes.append("int8") }
    if attention.memories > 0 { attributes.append("memories=\(attention.memories)") }
    return attributes
  }
}
