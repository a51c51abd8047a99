import MultiwayCore
import MultiwayGraph

/// A graph on its way to ONNX: the nodes and tensors so far. What becomes of each op stands in the files beside this one.
///
/// A graph's values keep their names; what an op needs in between is called `<value>/<what>`.
struct GraphLowering {
  let graph: Graph
  let opset: ONNXOpset
  let quantization: ONNXQuantization
  var nodes: [ONNXNode] = []
  var weights: [Weight] = []
  /// The name of every value in ONNX.
  var valueNames: [String] = []
  /// The name of every output in ONNX.
  var outputNames: [String] = []
  /// The graph's node at work.
  var node: Node
  private var names: Set<String> = []
  private var nextNumbers: [String: Int] = [:]
  /// What is made once and read by several nodes, by a key of its own.
  private var sharedNames: [String: [String]] = [:]

  /// Lowers every node. The graph must verify.
  init(_ graph: Graph, opset: ONNXOpset, quantization: ONNXQuantization) throws(ONNXError) {
    self.graph = graph
    self.opset = opset
    self.quantization = quantization
    node = Node(op: .add, inputs: [], outputs: [], role: nil, modality: .shared)
    nameValues()
    for node in graph.nodes {
      self.node = node
      try lower()
    }
    nameOutputs()
  }

  /// What each op becomes.
  private mutating func lower() throws(ONNXError) {
    switch node.op {
    case .patchify(let size): patchify(size)
    case .embedding(let table): embedding(table)
    case .prependToken(let token): prependToken(token)
    case .addPositions(let table, let firstRow): addPositions(table, firstRow)
    case .zeroPadding: zeroPadding()
    case .layerNorm(let weight, let bias, let epsilon): layerNorm(weight, bias, epsilon)
    case .linear(let weight, let bias): linear(weight, bias)
    case .quantizedLinear(let linear): try quantizedLinear(linear)
    case .scale(let factor): emit("Mul", [input(), number(factor)], .output(0))
    case .scaleChannels(let factors): emit("Mul", [input(), constant(factors)], .output(0))
    case .gelu: gelu()
    case .tanh: emit("Tanh", [input()], .output(0))
    case .relu: emit("Relu", [input()], .output(0))
    case .add: emit("Add", [input(), input(1)], .output(0))
    case .attention(let attention): self.attention(attention)
    case .meanTokens(let first): meanTokens(first)
    case .selectToken(let index): selectToken(index)
    case .dropTokens(let first): dropTokens(first)
    case .joinTokens: joinInputs(axis: 1)
    case .joinChannels: joinInputs(axis: -1)
    case .normalizeL2: normalizeL2()
    case .featureMap(let op, let grid): try featureMap(op, grid)
    }
  }
}

// MARK: - Nodes

extension GraphLowering {
  /// What an ONNX node makes.
  enum Result {
    /// An output of the graph's node.
    case output(Int)
    /// A value on the way to it.
    case local(String)
    /// A value that is no particular node's.
    case named(String)
  }

  /// Adds an ONNX node and gives the name of what it makes.
  @discardableResult
  mutating func emit(
    _ type: String, _ inputs: [String], _ result: Result, _ attributes: ONNXAttribute...
  ) -> String {
    let output =
      switch result {
      case .output(let index): valueNames[node.outputs[index].index]
      case .local(let name): unique("\(valueNames[node.outputs[0].index])/\(name)")
      case .named(let name): unique(name)
      }
    nodes.append(ONNXNode(type, name: output, inputs: inputs, outputs: [output], attributes: attributes))
    return output
  }

  /// The name of an input of the graph's node.
  func input(_ index: Int = 0) -> String { valueNames[node.inputs[index].index] }

  /// The type of an input of the graph's node.
  func inputType(_ index: Int = 0) -> ValueType { graph[node.inputs[index]].type }

  /// The type of an output of the graph's node.
  func outputType(_ index: Int = 0) -> ValueType { graph[node.outputs[index]].type }

  /// An error about the graph's node.
  func fail(_ found: String, expected: String, remedy: String? = nil) -> ONNXError {
    ONNXError(
      .unexportable, "\(node.op.name): \(found)", expected: expected, remedy: remedy,
      node: graph[node.outputs[0]].name)
  }

  /// What `make` gives, made once for each key.
  mutating func shared(_ key: String, _ make: (inout GraphLowering) -> String) -> String {
    sharedList(key) { [make(&$0)] }[0]
  }

  /// The same for several names.
  mutating func sharedList(_ key: String, _ make: (inout GraphLowering) -> [String]) -> [String] {
    if let names = sharedNames[key] { return names }
    let names = make(&self)
    sharedNames[key] = names
    return names
  }

  /// A name that nothing else has; no name is empty, which in ONNX means that there is no value, or holds a zero byte.
  mutating func unique(_ wanted: String) -> String {
    let name = wanted.isEmpty ? "value" : String(wanted.map { $0 == "\0" ? "_" : $0 })
    if names.insert(name).inserted { return name }
    // The search goes on where it ended: a file may hold any number of names that are made the same.
    var number = nextNumbers[name] ?? 2
    while !names.insert("\(name)_\(number)").inserted { number += 1 }
    nextNumbers[name] = number + 1
    return "\(name)_\(number)"
  }

  private mutating func nameValues() {
    // Outputs first: theirs are the names that callers use.
    var wanted = graph.values.map(\.name)
    for output in graph.outputs.reversed() where !graph.inputs.contains(output.value) {
      wanted[output.value.index] = output.name
    }
    valueNames = wanted
    let fixed = graph.inputs + graph.outputs.map(\.value)
    let isFixed = Set(fixed)
    var isNamed = [Bool](repeating: false, count: wanted.count)
    for id in fixed + graph.values.indices.map(ValueID.init) where !isNamed[id.index] {
      isNamed[id.index] = true
      let name = wanted[id.index]
      valueNames[id.index] = unique(!isFixed.contains(id) && GraphLowering.isTaken(name) ? name + ".value" : name)
    }
  }

  /// True for the names that ONNX Runtime's quantization gives to what it makes of a value: it does not look whether they are in use.
  private static func isTaken(_ name: String) -> Bool {
    ["_scale", "_zero_point", "_quantized"].contains { name.hasSuffix($0) }
  }

  /// A value that is several outputs, or an input that is one, gets a node for each further name.
  private mutating func nameOutputs() {
    var isOutput: Set<ValueID> = []
    for output in graph.outputs {
      let name = valueNames[output.value.index]
      let isFirst = isOutput.insert(output.value).inserted && !graph.inputs.contains(output.value)
      outputNames.append(isFirst ? name : emit("Identity", [name], .named(output.name)))
    }
  }
}

// MARK: - Constants

extension GraphLowering {
  /// A constant of the graph as fp32: the tensor itself, or, where it is stored in 16 bits, a Cast of it.
  /// - Parameter change: another view of the elements, and what it is called.
  mutating func constant(
    _ id: ConstantID, _ suffix: String = "", _ change: (TensorExpression) -> TensorExpression = { $0 }
  ) -> String {
    shared("constant \(id.index)\(suffix)") { lowering in
      let constant = lowering.graph[id]
      return lowering.floats(constant.name + suffix, change(constant.data))
    }
  }

  private mutating func floats(_ name: String, _ expression: TensorExpression) -> String {
    let (type, stored): (ONNXElementType, TensorExpression) =
      switch expression.dtype {
      case .f32: (.float, expression)
      case .f16: (.float16, expression)
      case .bf16: (.bfloat16, expression)
      default: (.float, .cast(expression, .f32))
      }
    let tensor = weight(name, type, stored.shape.dimensions, .floats(stored))
    return type == .float ? tensor : emit("Cast", [tensor], .named(name + "/f32"), .init("to", .integer(1)))
  }

  /// Plans a tensor and gives its name.
  mutating func weight(_ name: String, _ type: ONNXElementType, _ dimensions: [Int], _ source: Weight.Source) -> String
  {
    let name = unique(GraphLowering.isTaken(name) ? name + ".weight" : name)
    weights.append(Weight(name: name, type: type, dimensions: dimensions, source: source))
    return name
  }

  /// A list of int64 numbers.
  mutating func integers(_ values: [Int]) -> String {
    let text = values.map(String.init).joined(separator: "_")
    return shared("integers \(text)") { lowering in
      let bytes = TensorBytes(copying: values.map { Int64($0) })
      return lowering.weight("integers/\(text)", .int64, [values.count], .bytes(bytes.array(of: UInt8.self)))
    }
  }

  /// One int64 number without dimensions.
  mutating func integer(_ value: Int) -> String {
    shared("integer \(value)") { lowering in
      let bytes = TensorBytes(copying: [Int64(value)])
      return lowering.weight("integer/\(value)", .int64, [], .bytes(bytes.array(of: UInt8.self)))
    }
  }

  /// One int8 number without dimensions.
  mutating func byte(_ value: Int8) -> String {
    shared("byte \(value)") { lowering in
      lowering.weight("number/i8_\(value)", .int8, [], .bytes([UInt8(bitPattern: value)]))
    }
  }

  /// One fp32 number without dimensions.
  mutating func number(_ value: Float) -> String {
    shared("number \(value)") { lowering in
      let bytes = TensorBytes(copying: [value])
      return lowering.weight("number/\(value)", .float, [], .bytes(bytes.array(of: UInt8.self)))
    }
  }
}

// MARK: - Ops that several lowerings want

extension GraphLowering {
  /// A dimension of a value as int64 [1]. A symbol is measured at the graph's input that has it, so that all nodes share it.
  mutating func length(_ value: String, _ dimension: Dimension, axis: Int) -> String {
    guard let symbol = dimension.symbol else { return integers([dimension.offset]) }
    for id in graph.inputs {
      guard let place = graph[id].type.dimensions.firstIndex(of: .symbol(symbol)) else { continue }
      let length = measured(valueNames[id.index], axis: place)
      return dimension.offset == 0 ? length : sum([length, integers([dimension.offset])])
    }
    return measured(value, axis: axis)
  }

  private mutating func measured(_ value: String, axis: Int) -> String {
    let shape = shared("shape \(value)") { $0.emit("Shape", [value], .named(value + "/shape")) }
    return shared("length \(axis) \(value)") { lowering in
      lowering.emit(
        "Gather", [shape, lowering.integers([axis])], .named("\(value)/length_\(axis)"), .init("axis", .integer(0)))
    }
  }

  /// The sum of lengths.
  mutating func sum(_ lengths: [String]) -> String {
    var total = lengths[0]
    for length in lengths.dropFirst() {
      let left = total
      total = shared("sum \(left) \(length)") { $0.emit("Add", [left, length], .named(left + "/sum")) }
    }
    return total
  }

  /// The sum of the second dimensions of several values as int64 [1].
  mutating func tokenCount(_ values: [ValueID]) -> String {
    let fixed = values.reduce(0) { $0 + (graph[$1].type.dimensions[1].size ?? 0) }
    var others: [String] = []
    for id in values where graph[id].type.dimensions[1].size == nil {
      others.append(length(valueNames[id.index], graph[id].type.dimensions[1], axis: 1))
    }
    return sum(others + (fixed == 0 && !others.isEmpty ? [] : [integers([fixed])]))
  }

  /// The elements of a value from `start` to before `end` on an axis; both int64 [1].
  mutating func slice(_ value: String, from start: String, to end: String, axis: Int, _ result: Result) -> String {
    emit("Slice", [value, start, end, integers([axis])], result)
  }

  /// The end of an axis however long it is.
  mutating func axisEnd() -> String { integers([Int.max]) }

  /// A reduction over one axis, whose place depends on the opset.
  mutating func reduce(_ type: String, _ value: String, axis: Int, keepsAxis: Bool, _ result: Result) -> String {
    let keeps = ONNXAttribute("keepdims", .integer(keepsAxis ? 1 : 0))
    if opset.hasAxesAsInput { return emit(type, [value, integers([axis])], result, keeps) }
    return emit(type, [value], result, .init("axes", .integers([axis])), keeps)
  }

  mutating func reshape(_ value: String, _ dimensions: [Int], _ result: Result) -> String {
    emit("Reshape", [value, integers(dimensions)], result)
  }

  mutating func transpose(_ value: String, _ order: [Int], _ result: Result) -> String {
    emit("Transpose", [value], result, .init("perm", .integers(order)))
  }

  mutating func cast(_ value: String, to type: ONNXElementType, _ result: Result) -> String {
    emit("Cast", [value], result, .init("to", .integer(type.rawValue)))
  }

  mutating func concatenate(_ values: [String], axis: Int, _ result: Result) -> String {
    emit("Concat", values, result, .init("axis", .integer(axis)))
  }
}
