public import MultiwayCore
public import MultiwayGraph

extension GraphJSON {
  /// Reads the text of a graph. Nothing in it is trusted: every member is checked, nodes are added one by one to find the types of
  /// their outputs, and the whole is verified.
  /// - Parameter data: the elements of the constants by name; all of them must be used, and none may be missing.
  public static func decode(_ text: String, data: [String: TensorExpression]) throws(ArtifactError) -> Graph {
    guard text.utf8.count <= maximumBytes else {
      throw ArtifactError(
        .malformedGraph, "the graph is a text of \(text.utf8.count) bytes", expected: "at most \(maximumBytes)")
    }
    let root: JSONValue
    do { root = try JSONParser.parse(Array(text.utf8)) } catch {
      throw ArtifactError(
        .malformedGraph, "the graph is not JSON: \(error.message)", expected: "JSON (byte \(error.byteOffset) of it)")
    }
    var decoder = GraphDecoder(data: data)
    return try decoder.decode(root)
  }
}

/// Builds a graph from its JSON.
struct GraphDecoder {
  private let data: [String: TensorExpression]
  private var graph = Graph()
  private var values: [String: ValueID] = [:]
  private var constants: [String: ConstantID] = [:]

  init(data: [String: TensorExpression]) { self.data = data }

  mutating func decode(_ value: JSONValue) throws(ArtifactError) -> Graph {
    let root = try GraphMembers(value, place: "graph")
    try root.requireOnly(["inputs", "outputs", "constants", "nodes"])
    for entry in try root.entries("inputs") { try decodeInput(entry) }
    try decodeConstants(try root.entries("constants"))
    for entry in try root.entries("nodes") { try decodeNode(entry) }
    for entry in try root.entries("outputs") {
      try entry.requireOnly(["name", "value"])
      graph.outputs.append(GraphOutput(name: try entry.name("name"), value: try valueNamed(entry.name("value"), entry)))
    }
    do { try graph.verify() } catch { throw ArtifactError(.malformedGraph, error.diagnosis) }
    return graph
  }

  private func valueNamed(_ name: String, _ entry: GraphMembers) throws(ArtifactError) -> ValueID {
    guard let id = values[name] else { throw entry.error("reads '\(name)'", expected: "a value made before") }
    return id
  }

  private mutating func decodeInput(_ entry: GraphMembers) throws(ArtifactError) {
    try entry.requireOnly(["name", "dtype", "shape"])
    let name = try entry.name("name")
    let dtypeName = try entry.string("dtype")
    guard let dtype = DType(shortName: dtypeName), [.f32, .i64, .u8].contains(dtype) else {
      throw entry.error("the dtype '\(dtypeName)'", expected: "f32, i64 or u8")
    }
    let shape = try entry.array("shape")
    guard (1...GraphJSON.maximumRank).contains(shape.count) else {
      throw entry.error("\(shape.count) dimensions", expected: "1 to \(GraphJSON.maximumRank)")
    }
    var dimensions: [Dimension] = []
    for value in shape { dimensions.append(try dimension(value, entry)) }
    guard values[name] == nil else { throw entry.error("a second input '\(name)'", expected: "unique names") }
    values[name] = graph.addInput(name, ValueType(dtype, dimensions))
  }

  /// A number, `symbol`, or `symbol+number`.
  private func dimension(_ value: JSONValue, _ entry: GraphMembers) throws(ArtifactError) -> Dimension {
    let wrong = entry.error(
      "the dimension \(value.text())", expected: "a number from 1 to \(Dimension.limits.upperBound), or symbol+number")
    if let size = value.integer {
      guard size >= 1, Dimension.limits.contains(size) else { throw wrong }
      return .fixed(size)
    }
    guard let text = value.string else { throw wrong }
    let parts = text.split(separator: "+", maxSplits: 1, omittingEmptySubsequences: false)
    let letters = Set("abcdefghijklmnopqrstuvwxyz_")
    guard !parts[0].isEmpty, parts[0].utf8.count <= 63, parts[0].allSatisfy(letters.contains) else { throw wrong }
    guard parts.count == 2 else { return .symbol(String(parts[0])) }
    guard let offset = Int(parts[1]), offset >= 1, Dimension.limits.contains(offset) else { throw wrong }
    return .symbol(String(parts[0]), plus: offset)
  }

  /// Declares the constants; one error lists every tensor that is missing or unexpected.
  private mutating func decodeConstants(_ entries: [GraphMembers]) throws(ArtifactError) {
    var missing: [String] = []
    for entry in entries {
      try entry.requireOnly(["name", "role", "modality"])
      let name = try entry.name("name")
      let role = try entry.choice("role", Role.self)
      let modality = try entry.choice("modality", Modality.self)
      guard constants[name] == nil else { throw entry.error("a second constant '\(name)'", expected: "unique names") }
      guard let expression = data[name] else {
        missing.append(name)
        continue
      }
      constants[name] = graph.addConstant(Constant(name: name, role: role, modality: modality, data: expression))
    }
    let unexpected = data.keys.filter { constants[$0] == nil }.sorted()
    guard missing.isEmpty, unexpected.isEmpty else {
      var problems: [String] = []
      if !missing.isEmpty { problems.append("missing: " + missing.joined(separator: ", ")) }
      if !unexpected.isEmpty { problems.append("unexpected: " + unexpected.joined(separator: ", ")) }
      throw ArtifactError(
        .tensorMismatch, "the tensors are not those of the graph; " + problems.joined(separator: "; "))
    }
  }

  private mutating func decodeNode(_ entry: GraphMembers) throws(ArtifactError) {
    try entry.requireOnly(["op", "inputs", "outputs", "constants", "attributes", "role", "modality"])
    let op = try OpDecoder(entry, constants: constants).decode()
    var inputs: [ValueID] = []
    for name in try entry.names("inputs") { inputs.append(try valueNamed(name, entry)) }
    let names = try entry.names("outputs")
    for name in names where values[name] != nil { throw entry.error("makes '\(name)'", expected: "a new name") }
    let role = entry.has("role") ? try entry.choice("role", Role.self) : nil
    let modality = try entry.choice("modality", Modality.self)
    do {
      let outputs = try graph.add(op, inputs, names: names, role: role, modality: modality)
      for (name, id) in zip(names, outputs) { values[name] = id }
    } catch {
      var diagnosis = error.diagnosis
      diagnosis.node = entry.place
      throw ArtifactError(.malformedGraph, diagnosis)
    }
  }
}

/// Builds an op from a node's members.
struct OpDecoder {
  private let entry: GraphMembers
  private let ids: [String: ConstantID]
  private let constants: GraphMembers
  private let attributes: GraphMembers

  init(_ entry: GraphMembers, constants ids: [String: ConstantID]) throws(ArtifactError) {
    self.entry = entry
    self.ids = ids
    constants = try entry.members("constants")
    attributes = try entry.members("attributes")
  }

  /// The op; members that it does not have are refused, since they would change its meaning.
  func decode() throws(ArtifactError) -> Op {
    let op = try op(named: try entry.string("op"))
    try constants.requireOnly(op.constants.map(\.place))
    try attributes.requireOnly(GraphJSON.attributes(of: op).members.map(\.key))
    return op
  }

  private func op(named name: String) throws(ArtifactError) -> Op {
    let sizes = Dimension.limits
    switch name {
    case "patchify": return .patchify(size: try attributes.integer("size", in: sizes))
    case "embedding": return .embedding(table: try constant("table"))
    case "prepend_token": return .prependToken(try constant("token"))
    case "add_positions":
      return .addPositions(table: try constant("table"), firstRow: try attributes.integer("first_row", in: sizes))
    case "zero_padding": return .zeroPadding
    case "layer_norm":
      let epsilon = try attributes.float("epsilon")
      guard epsilon >= 0 else { throw attributes.error("an epsilon of \(epsilon)", expected: "0 or more") }
      return .layerNorm(weight: try optional("weight"), bias: try optional("bias"), epsilon: epsilon)
    case "linear": return .linear(weight: try constant("weight"), bias: try optional("bias"))
    case "quantized_linear": return .quantizedLinear(try quantizedLinear())
    case "scale": return .scale(by: try attributes.float("by"))
    case "scale_channels": return .scaleChannels(try constant("factors"))
    case "gelu": return .gelu
    case "tanh": return .tanh
    case "relu": return .relu
    case "add": return .add
    case "attention": return .attention(try attention())
    case "mean_tokens": return .meanTokens(first: try attributes.integer("first", in: sizes))
    case "select_token": return .selectToken(try attributes.integer("index", in: sizes))
    case "drop_tokens": return .dropTokens(first: try attributes.integer("first", in: sizes))
    case "join_tokens": return .joinTokens
    case "join_channels": return .joinChannels
    case "normalize_l2": return .normalizeL2
    case "convolution":
      return try featureMap(
        .convolution(
          weight: try constant("weight"), bias: try optional("bias"),
          kernel: try attributes.integer("kernel", in: sizes)))
    case "pixel_shuffle": return try featureMap(.pixelShuffle)
    case "max_pool": return try featureMap(.maxPool)
    case "average_pool": return try featureMap(.averagePool(bins: try attributes.integer("bins", in: sizes)))
    case "resize_bilinear": return try featureMap(.resize(to: try grid("to_height", "to_width")))
    case "to_image": return try featureMap(.toImage)
    default:
      throw ArtifactError(
        .unsupported, "the op '\(name)'", remedy: "a newer version wrote this artifact: use that one, or convert again",
        node: entry.place)
    }
  }

  private func featureMap(_ op: FeatureMapOp) throws(ArtifactError) -> Op {
    .featureMap(op, try grid("height", "width"))
  }

  private func grid(_ height: String, _ width: String) throws(ArtifactError) -> Grid {
    Grid(
      height: try attributes.integer(height, in: Dimension.limits),
      width: try attributes.integer(width, in: Dimension.limits))
  }

  private func attention() throws(ArtifactError) -> Attention {
    var attention = Attention(
      heads: try attributes.integer("heads", in: Dimension.limits), isPadded: try attributes.bool("padded"))
    if attributes.has("mask") { attention.mask = try attributes.choice("mask", AttentionMask.self) }
    if attributes.has("products") {
      attention.isQuantized = try attributes.choice("products", AttentionProducts.self) == .int8
    }
    if attributes.has("memories") {
      attention.memories = try attributes.integer("memories", in: 1...Attention.maximumMemories)
    }
    if constants.has("bias_table") || constants.has("bias_index") {
      attention.bias = RelativeBias(table: try constant("bias_table"), index: try constant("bias_index"))
    }
    return attention
  }

  /// The words of an attention's `products`.
  private enum AttentionProducts: String, CaseIterable { case int8 }

  private func quantizedLinear() throws(ArtifactError) -> QuantizedLinear {
    QuantizedLinear(
      panels: try constant("panels"), scales: try constant("scales"), sums: try constant("sums"),
      bias: try optional("bias"), inputs: try attributes.integer("inputs", in: Dimension.limits),
      outputs: try attributes.integer("outputs", in: Dimension.limits),
      groups: try attributes.integer("groups", in: Dimension.limits))
  }

  private func constant(_ place: String) throws(ArtifactError) -> ConstantID {
    let name = try constants.string(place)
    guard let id = ids[name] else { throw entry.error("reads '\(name)'", expected: "a constant of the graph") }
    return id
  }

  private func optional(_ place: String) throws(ArtifactError) -> ConstantID? {
    constants.has(place) ? try constant(place) : nil
  }
}
