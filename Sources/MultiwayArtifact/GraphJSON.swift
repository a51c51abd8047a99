import MultiwayCore
public import MultiwayGraph

/// The graph as JSON text: the value of `multiway.graph` (Formats/gguf/README-artifact.md).
///
/// Inputs, outputs, constants and nodes stand one a line, in the order of the graph, so that two artifacts can be compared line by
/// line. The types of values other than inputs are not written: they follow from the ops.
public enum GraphJSON {
  /// The most bytes of text that are read.
  public static let maximumBytes = 12 << 20
  /// The most nodes, constants, inputs and outputs each.
  public static let maximumCount = 100_000
  /// The most dimensions of an input.
  public static let maximumRank = 8
  /// The longest name in bytes.
  public static let maximumNameSize = 1024

  /// The text of a graph.
  public static func encode(_ graph: Graph) -> String {
    let inputs = graph.inputs.map { encode(input: graph[$0]) }
    let outputs = graph.outputs.map { output -> JSONObject in
      ["name": .string(output.name), "value": .string(graph[output.value].name)]
    }
    let constants = graph.constants.map { constant -> JSONObject in
      [
        "name": .string(constant.name), "role": .string(constant.role.rawValue),
        "modality": .string(constant.modality.rawValue),
      ]
    }
    let nodes = graph.nodes.map { encode($0, graph) }
    let sections = [("inputs", inputs), ("outputs", outputs), ("constants", constants), ("nodes", nodes)]
    return "{\n" + sections.map { section($0, $1) }.joined(separator: ",\n") + "\n}\n"
  }

  private static func section(_ name: String, _ entries: [JSONObject]) -> String {
    let lines = entries.map { "    " + JSONValue.object($0).text() }
    return "  \"\(name)\": [\n" + lines.joined(separator: ",\n") + "\n  ]"
  }

  private static func encode(input: Value) -> JSONObject {
    let dimensions = input.type.dimensions.map { dimension -> JSONValue in
      dimension.size.map(JSONValue.integer) ?? .string(dimension.description)
    }
    return [
      "name": .string(input.name), "dtype": .string(input.type.dtype.shortName), "shape": .array(dimensions),
    ]
  }

  private static func encode(_ node: Node, _ graph: Graph) -> JSONObject {
    var object: JSONObject = ["op": .string(node.op.name)]
    object["inputs"] = .array(node.inputs.map { .string(graph[$0].name) })
    object["outputs"] = .array(node.outputs.map { .string(graph[$0].name) })
    var constants = JSONObject()
    for (place, id) in node.op.constants { constants[place] = .string(graph[id].name) }
    if !constants.members.isEmpty { object["constants"] = .object(constants) }
    let attributes = attributes(of: node.op)
    if !attributes.members.isEmpty { object["attributes"] = .object(attributes) }
    object["role"] = node.role.map { .string($0.rawValue) }
    object["modality"] = .string(node.modality.rawValue)
    return object
  }

  /// The numbers of an op.
  static func attributes(of op: Op) -> JSONObject {
    switch op {
    case .patchify(let size): ["size": .integer(size)]
    case .addPositions(_, let firstRow): ["first_row": .integer(firstRow)]
    case .layerNorm(_, _, let epsilon): ["epsilon": number(epsilon)]
    case .quantizedLinear(let linear):
      [
        "inputs": .integer(linear.inputs), "outputs": .integer(linear.outputs), "groups": .integer(linear.groups),
      ]
    case .scale(let factor): ["by": number(factor)]
    case .attention(let attention): attributes(of: attention)
    case .meanTokens(let first): ["first": .integer(first)]
    case .selectToken(let index): ["index": .integer(index)]
    case .dropTokens(let first): ["first": .integer(first)]
    case .featureMap(let op, let grid): featureMap(op, grid)
    case .embedding, .prependToken, .zeroPadding, .linear, .scaleChannels, .gelu, .tanh, .relu, .add, .joinTokens,
      .joinChannels,
      .normalizeL2:
      [:]
    }
  }

  private static func featureMap(_ op: FeatureMapOp, _ grid: Grid) -> JSONObject {
    var object = JSONObject()
    for (name, value) in op.attributes(on: grid) { object[name] = .integer(value) }
    return object
  }

  /// What is as in the first version of the format is not written, so that older readers refuse only what they do not know.
  private static func attributes(of attention: Attention) -> JSONObject {
    var attributes: JSONObject = ["heads": .integer(attention.heads), "padded": .bool(attention.isPadded)]
    if attention.mask != .none { attributes["mask"] = .string(attention.mask.rawValue) }
    if attention.isQuantized { attributes["products"] = .string("int8") }
    if attention.memories > 0 { attributes["memories"] = .integer(attention.memories) }
    return attributes
  }

  /// The shortest number that reads back as the same fp32 value: 1e-05, not 9.999999747378752e-06.
  private static func number(_ value: Float) -> JSONValue {
    guard let short = Double("\(value)"), Float(short) == value else { return .real(Double(value)) }
    return .real(short)
  }
}
