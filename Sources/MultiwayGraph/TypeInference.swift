public import MultiwayCore

/// What can be wrong with a graph.
public enum GraphErrorCode: FailureCode {
  /// A node's inputs or constants do not fit its op.
  case typeMismatch
  /// A reference to a value or constant that is not there, or is made later or twice.
  case invalidReference
  /// A rewriting that the graph does not allow.
  case unsupported
  /// Inputs that do not fit the graph.
  case invalidInputs
  /// Two values or constants of the same name.
  case duplicateName

  /// The exit code class: an artifact may hold a bad graph, so this is about data.
  public var category: FailureCategory { .data }
}

/// An error about a graph.
public typealias GraphError = Failure<GraphErrorCode>

/// Finds the types of a node's outputs, and in doing so checks its inputs and constants: the one place that knows the rules.
struct TypeInference {
  let graph: Graph
  let node: Node

  init(_ graph: Graph, _ node: Node) {
    self.graph = graph
    self.node = node
  }

  func outputTypes() throws(GraphError) -> [ValueType] {
    let types = try unlimitedTypes()
    // Artifacts hold graphs that anybody may have written: sizes stay far below what sums and products of them can reach.
    for dimension in types.flatMap(\.dimensions) where !Dimension.limits.contains(dimension.offset) {
      throw fail("an output dimension of \(dimension)", expected: "at most \(Dimension.limits.upperBound)")
    }
    return types
  }

  private func unlimitedTypes() throws(GraphError) -> [ValueType] {
    guard node.op.inputCounts.contains(node.inputs.count) else {
      throw fail("\(node.inputs.count) inputs", expected: "\(node.op.inputCounts.lowerBound) or more")
    }
    switch node.op {
    case .patchify(let size): return [try patchify(size)]
    case .embedding(let table):
      let ids = try input(0, rank: 2, dtype: .i64)
      return [ValueType(.f32, ids.dimensions + [.fixed(try matrix(table)[1])])]
    case .prependToken(let token):
      var type = try tokens(0)
      try vector(token, type.dimensions[2])
      type.dimensions[1].offset += 1
      return [type]
    case .addPositions(let table, let firstRow): return [try addPositions(table, firstRow)]
    case .zeroPadding:
      let type = try tokens(0)
      try require(try input(1, rank: 2, dtype: .u8).dimensions == Array(type.dimensions[..<2]), "a mask for each token")
      return [type]
    case .layerNorm(let weight, let bias, _):
      let type = try activation(0)
      for constant in [weight, bias] { if let constant { try vector(constant, type.dimensions.last) } }
      return [type]
    case .linear(let weight, let bias):
      let shape = try matrix(weight)
      return [try linear(inputs: shape[1], outputs: shape[0], bias: bias)]
    case .quantizedLinear(let linear): return [try quantizedLinear(linear)]
    case .scale, .gelu, .tanh, .relu, .normalizeL2: return [try activation(0)]
    case .scaleChannels(let factors):
      let type = try activation(0)
      try vector(factors, type.dimensions.last)
      return [type]
    case .add:
      let type = try activation(0)
      try require(try activation(1) == type, "two values of the same type")
      return [type]
    case .attention(let attention): return try self.attention(attention)
    case .meanTokens(let first):
      let type = try tokens(0)
      try require(first >= 0 && first < type.dimensions[1].size ?? .max, "a first token inside the stream")
      return [ValueType(.f32, [type.dimensions[0], type.dimensions[2]])]
    case .selectToken(let index):
      let type = try tokens(0)
      try require(index >= 0 && index < type.dimensions[1].size ?? .max, "a token inside the stream")
      return [ValueType(.f32, [type.dimensions[0], type.dimensions[2]])]
    case .dropTokens(let first): return [try dropTokens(first)]
    case .joinTokens: return [try joinTokens()]
    case .joinChannels: return [try joinChannels()]
    case .featureMap(let op, let grid): return [try featureMap(op, grid)]
    }
  }

  func fail(_ found: String, expected: String? = nil) -> GraphError {
    let name = node.outputs.first.flatMap { $0.index < graph.values.count ? graph[$0].name : nil } ?? node.op.name
    return GraphError(.typeMismatch, "\(node.op.name): \(found)", expected: expected, node: name)
  }

  func require(_ condition: Bool, _ expected: String) throws(GraphError) {
    guard condition else {
      let types = node.inputs.map { graph[$0].type.description }.joined(separator: ", ")
      throw fail("the inputs are \(types)", expected: expected)
    }
  }

  func input(_ index: Int, rank: Int, dtype: DType) throws(GraphError) -> ValueType {
    let type = graph[node.inputs[index]].type
    guard type.dtype == dtype, type.dimensions.count == rank else {
      throw fail("input \(index) is \(type)", expected: "\(dtype.shortName) with \(rank) dimensions")
    }
    return type
  }

  func tokens(_ index: Int) throws(GraphError) -> ValueType { try input(index, rank: 3, dtype: .f32) }

  func activation(_ index: Int) throws(GraphError) -> ValueType {
    let type = graph[node.inputs[index]].type
    guard type.dtype == .f32, type.dimensions.count >= 2 else {
      throw fail("input \(index) is \(type)", expected: "f32 with 2 or 3 dimensions")
    }
    return type
  }

  func constant(_ id: ConstantID) throws(GraphError) -> Constant {
    guard id.index >= 0, id.index < graph.constants.count else {
      throw GraphError(.invalidReference, "\(node.op.name): constant \(id.index) does not exist")
    }
    return graph[id]
  }

  func matrix(_ id: ConstantID) throws(GraphError) -> Shape {
    let constant = try constant(id)
    guard constant.data.shape.rank == 2, constant.data.dtype.isFloatingPoint else {
      throw fail(
        "constant '\(constant.name)' is \(constant.data.dtype.shortName)\(constant.data.shape)",
        expected: "a floating-point matrix")
    }
    return constant.data.shape
  }

  func vector(_ id: ConstantID, _ size: Dimension?, dtype: DType? = nil) throws(GraphError) {
    let constant = try constant(id)
    let isRightType = dtype.map { constant.data.dtype == $0 } ?? constant.data.dtype.isFloatingPoint
    guard isRightType, constant.data.shape.rank == 1, constant.data.shape[0] == size?.size else {
      throw fail(
        "constant '\(constant.name)' is \(constant.data.dtype.shortName)\(constant.data.shape)",
        expected: "\(dtype?.shortName ?? "floating-point")[\(size?.description ?? "?")]")
    }
  }

  private func patchify(_ size: Int) throws(GraphError) -> ValueType {
    let image = try input(0, rank: 4, dtype: .f32)
    guard size > 0, let channels = image.dimensions[1].size, let height = image.dimensions[2].size,
      let width = image.dimensions[3].size, height % size == 0, width % size == 0
    else { throw fail("an image of \(image) in patches of \(size)", expected: "sides that the patch size divides") }
    let (area, overflow) = size.multipliedReportingOverflow(by: size)
    let (length, overflow2) = area.multipliedReportingOverflow(by: channels)
    let (count, overflow3) = (height / size).multipliedReportingOverflow(by: width / size)
    guard !overflow, !overflow2, !overflow3 else { throw fail("an image of \(image)", expected: "a possible size") }
    return ValueType(.f32, [image.dimensions[0], .fixed(count), .fixed(length)])
  }

  private func addPositions(_ table: ConstantID, _ firstRow: Int) throws(GraphError) -> ValueType {
    let type = try tokens(0)
    let shape = try matrix(table)
    guard firstRow >= 0, firstRow < shape[0] else {
      throw fail("row \(firstRow) as the first of a table \(shape)", expected: "a row of the table")
    }
    try require(
      type.dimensions[2].size == shape[1] && type.dimensions[1].size ?? 0 <= shape[0] - firstRow,
      "at most \(shape[0] - firstRow) tokens of width \(shape[1])")
    return type
  }

  private func linear(inputs: Int, outputs: Int, bias: ConstantID?) throws(GraphError) -> ValueType {
    var type = try activation(0)
    try require(type.dimensions.last?.size == inputs, "a last dimension of \(inputs)")
    if let bias { try vector(bias, .fixed(outputs)) }
    type.dimensions[type.dimensions.count - 1] = .fixed(outputs)
    return type
  }

  private func quantizedLinear(_ linear: QuantizedLinear) throws(GraphError) -> ValueType {
    guard linear.inputs > 0, linear.outputs > 0, linear.inputs <= 1 << 30, linear.outputs <= 1 << 30 else {
      throw fail("\(linear.outputs)×\(linear.inputs) int8 weights", expected: "1 to 2³⁰ inputs and outputs")
    }
    // A longer group could overflow its int32 sum.
    guard linear.groups > 0, linear.inputs % linear.groups == 0, linear.inputs / linear.groups <= 65536,
      linear.groups == 1 || linear.inputs / linear.groups % QuantizedMatrix.panelInputs == 0
    else {
      throw fail(
        "\(linear.inputs) inputs in \(linear.groups) groups", expected: "equal groups of at most 65536, multiples of 4")
    }
    let panels = try constant(linear.panels)
    let expected = QuantizedMatrix.panelShape(outputs: linear.outputs, inputs: linear.inputs)
    guard panels.data.dtype == .i8, panels.data.shape == expected else {
      throw fail("panels of \(panels.data.dtype.shortName)\(panels.data.shape)", expected: "i8\(expected)")
    }
    for (id, dtype) in [(linear.scales, DType.f32), (linear.sums, .i32)] {
      let factors = try constant(id)
      guard factors.data.dtype == dtype, factors.data.shape == [linear.groups, linear.outputs] else {
        throw fail(
          "constant '\(factors.name)' is \(factors.data.dtype.shortName)\(factors.data.shape)",
          expected: "\(dtype.shortName)[\(linear.groups), \(linear.outputs)]")
      }
    }
    return try self.linear(inputs: linear.inputs, outputs: linear.outputs, bias: linear.bias)
  }

  private func dropTokens(_ first: Int) throws(GraphError) -> ValueType {
    var type = try tokens(0)
    // At least one token is left: a symbol stands for one or more.
    let most = type.dimensions[1].offset - (type.dimensions[1].symbol == nil ? 1 : 0)
    try require(first >= 0 && first <= most, "more than \(first) tokens")
    type.dimensions[1].offset -= first
    return type
  }

  private func joinTokens() throws(GraphError) -> ValueType {
    var joined = try tokens(0)
    for index in node.inputs.indices.dropFirst() {
      let type = try tokens(index)
      let left = joined.dimensions[1]
      let right = type.dimensions[1]
      try require(
        type.dimensions[0] == joined.dimensions[0] && type.dimensions[2] == joined.dimensions[2]
          && (left.symbol == nil || right.symbol == nil), "streams of the same batch and width")
      joined.dimensions[1] = Dimension(symbol: left.symbol ?? right.symbol, offset: left.offset + right.offset)
    }
    return joined
  }
}
