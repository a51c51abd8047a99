import MultiwayCore
import MultiwayGraph

/// A buffer's place in `Program.buffers`.
struct BufferID: Hashable, Sendable {
  let index: Int
}

/// What a buffer holds.
struct Buffer: Sendable {
  enum Kind: Sendable {
    /// The elements of a value.
    case elements
    /// A value quantized per token: bytes, scales and zero points.
    case quantizedTokens
  }

  var kind: Kind
  var type: ValueType
}

/// What happens to a linear layer's result before it is stored.
struct Epilogue: Hashable, Sendable {
  var gelu = false
  /// The last buffer that the step reads is added.
  var addsResidual = false
}

/// One kernel call, with the buffers that it reads and writes.
struct Step: Sendable {
  enum Operation: Sendable {
    case patchify(size: Int)
    case embedding(table: ConstantID)
    case prependToken(ConstantID)
    case addPositions(table: ConstantID, firstRow: Int)
    case zeroPadding
    case layerNorm(weight: ConstantID?, bias: ConstantID?, epsilon: Float)
    case layerNormQuantize(weight: ConstantID?, bias: ConstantID?, epsilon: Float)
    case quantize
    case linear(weight: ConstantID, bias: ConstantID?, Epilogue)
    case quantizedLinear(QuantizedLinear, Epilogue)
    case scale(by: Float)
    case gelu
    case tanh
    case add
    case attention(heads: Int, streams: Int, isPadded: Bool, scale: Float)
    case meanTokens(first: Int)
    case selectToken(Int)
    case joinTokens
    case normalizeL2
  }

  var operation: Operation
  var reads: [BufferID]
  var writes: [BufferID]
}

/// A graph as kernel calls, before sizes are known: neighbouring nodes that one kernel does together are one step.
///
/// Fused are: LayerNorm with the quantization of its result where only int8 layers read it (and the quantization is shared by all
/// of them), GELU and the residual sum into the linear layer before, and the query scale into attention. None of this changes a
/// bit of the result: the kernels round where the separate steps would.
struct Program: Sendable {
  private(set) var buffers: [Buffer] = []
  private(set) var steps: [Step] = []
  private(set) var inputs: [BufferID] = []
  private(set) var outputs: [(name: String, buffer: BufferID)] = []

  init(_ graph: Graph) {
    var builder = ProgramBuilder(graph)
    builder.build()
    buffers = builder.buffers
    steps = builder.steps
    inputs = graph.inputs.map { builder.buffer(of: $0) }
    outputs = graph.outputs.map { ($0.name, builder.buffer(of: $0.value)) }
  }
}

private struct ProgramBuilder {
  let graph: Graph
  private let consumers: [[Int]]
  private let producers: [Int?]
  private let outputs: Set<ValueID>
  /// Nodes that another node's step does.
  private var absorbed: Set<Int> = []
  private var quantized: [ValueID: BufferID] = [:]
  private var bufferOfValue: [ValueID: BufferID] = [:]
  var buffers: [Buffer] = []
  var steps: [Step] = []

  init(_ graph: Graph) {
    self.graph = graph
    consumers = graph.consumers()
    producers = graph.producers()
    outputs = Set(graph.outputs.map(\.value))
  }

  mutating func build() {
    for position in graph.nodes.indices { absorb(position) }
    for (position, node) in graph.nodes.enumerated() where !absorbed.contains(position) { emit(node, position) }
  }

  mutating func buffer(of value: ValueID) -> BufferID {
    if let id = bufferOfValue[value] { return id }
    let id = addBuffer(.elements, graph[value].type)
    bufferOfValue[value] = id
    return id
  }

  private mutating func addBuffer(_ kind: Buffer.Kind, _ type: ValueType) -> BufferID {
    buffers.append(Buffer(kind: kind, type: type))
    return BufferID(index: buffers.count - 1)
  }

  /// The only node that reads a value, nil if there are several or the value is an output.
  private func soleConsumer(_ value: ValueID) -> Int? {
    guard consumers[value.index].count == 1, !outputs.contains(value) else { return nil }
    return consumers[value.index][0]
  }

  private func isLinear(_ position: Int) -> Bool {
    switch graph.nodes[position].op {
    case .linear, .quantizedLinear: true
    default: false
    }
  }

  /// Marks a node that another one's step does.
  private mutating func absorb(_ position: Int) {
    let node = graph.nodes[position]
    switch node.op {
    case .gelu:
      guard let producer = producers[node.inputs[0].index], isLinear(producer), soleConsumer(node.inputs[0]) == position
      else { return }
      absorbed.insert(position)
    case .add:
      if residualLinear(node, position) != nil { absorbed.insert(position) }
    case .scale:
      guard let consumer = soleConsumer(node.outputs[0]), queryScale(graph.nodes[consumer]) != nil,
        isQuery(node.outputs[0], of: graph.nodes[consumer])
      else { return }
      absorbed.insert(position)
    case .layerNorm:
      let readers = consumers[node.outputs[0].index]
      guard !outputs.contains(node.outputs[0]), !readers.isEmpty, readers.allSatisfy({ isQuantized($0) }) else { return }
      absorbed.insert(position)
    default: return
    }
  }

  private func isQuantized(_ position: Int) -> Bool {
    if case .quantizedLinear = graph.nodes[position].op { return true }
    return false
  }

  /// The linear layer that can add the other operand of a sum: its result goes nowhere else, and the other operand is made first.
  private func residualLinear(_ node: Node, _ position: Int) -> (linear: Int, residual: ValueID)? {
    guard case .add = node.op else { return nil }
    for (place, input) in node.inputs.enumerated() {
      let other = node.inputs[1 - place]
      guard other != input, let producer = producers[input.index], isLinear(producer), soleConsumer(input) == position,
        (producers[other.index] ?? -1) < producer
      else { continue }
      return (producer, other)
    }
    return nil
  }

  private func isQuery(_ value: ValueID, of node: Node) -> Bool {
    node.inputs.indices.contains { $0 % 3 == 0 && $0 / 3 < node.outputs.count && node.inputs[$0] == value }
  }

  /// The factor that all queries of an attention are scaled with, nil if they differ or something else reads a scaled query.
  private func queryScale(_ node: Node) -> Float? {
    guard case .attention = node.op else { return nil }
    var factors: Set<Float> = []
    for stream in node.outputs.indices {
      let query = node.inputs[stream * 3]
      guard let producer = producers[query.index], case .scale(let factor) = graph.nodes[producer].op,
        soleConsumer(query) != nil
      else { return nil }
      factors.insert(factor)
    }
    return factors.count == 1 ? factors.first : nil
  }

  private mutating func emit(_ node: Node, _ position: Int) {
    switch node.op {
    case .linear(let weight, let bias):
      emitLinear(node, position, reads: [buffer(of: node.inputs[0])]) { .linear(weight: weight, bias: bias, $0) }
    case .quantizedLinear(let linear):
      emitLinear(node, position, reads: [quantizedBuffer(of: node.inputs[0])]) { .quantizedLinear(linear, $0) }
    case .attention(let heads, let isPadded): emitAttention(node, heads: heads, isPadded: isPadded)
    case .patchify(let size): emit(node, .patchify(size: size))
    case .embedding(let table): emit(node, .embedding(table: table))
    case .prependToken(let token): emit(node, .prependToken(token))
    case .addPositions(let table, let firstRow): emit(node, .addPositions(table: table, firstRow: firstRow))
    case .zeroPadding: emit(node, .zeroPadding)
    case .layerNorm(let weight, let bias, let epsilon):
      emit(node, .layerNorm(weight: weight, bias: bias, epsilon: epsilon))
    case .scale(let factor): emit(node, .scale(by: factor))
    case .gelu: emit(node, .gelu)
    case .tanh: emit(node, .tanh)
    case .add: emit(node, .add)
    case .meanTokens(let first): emit(node, .meanTokens(first: first))
    case .selectToken(let index): emit(node, .selectToken(index))
    case .joinTokens: emit(node, .joinTokens)
    case .normalizeL2: emit(node, .normalizeL2)
    }
  }

  private mutating func emit(_ node: Node, _ operation: Step.Operation) {
    var reads: [BufferID] = []
    for input in node.inputs { reads.append(buffer(of: input)) }
    var writes: [BufferID] = []
    for output in node.outputs { writes.append(buffer(of: output)) }
    steps.append(Step(operation: operation, reads: reads, writes: writes))
  }

  private mutating func emitLinear(
    _ node: Node, _ position: Int, reads: [BufferID], _ operation: (Epilogue) -> Step.Operation
  ) {
    var epilogue = Epilogue()
    var reads = reads
    var result = node.outputs[0]
    if let next = soleConsumer(result), absorbed.contains(next) {
      if case .gelu = graph.nodes[next].op {
        epilogue.gelu = true
        result = graph.nodes[next].outputs[0]
      } else if let (linear, residual) = residualLinear(graph.nodes[next], next), linear == position {
        epilogue.addsResidual = true
        reads.append(buffer(of: residual))
        result = graph.nodes[next].outputs[0]
      }
    }
    steps.append(Step(operation: operation(epilogue), reads: reads, writes: [buffer(of: result)]))
  }

  private mutating func quantizedBuffer(of value: ValueID) -> BufferID {
    if let id = quantized[value] { return id }
    let id = addBuffer(.quantizedTokens, graph[value].type)
    quantized[value] = id
    if let producer = producers[value.index], absorbed.contains(producer),
      case .layerNorm(let weight, let bias, let epsilon) = graph.nodes[producer].op
    {
      let source = buffer(of: graph.nodes[producer].inputs[0])
      let operation = Step.Operation.layerNormQuantize(weight: weight, bias: bias, epsilon: epsilon)
      steps.append(Step(operation: operation, reads: [source], writes: [id]))
    } else {
      steps.append(Step(operation: .quantize, reads: [buffer(of: value)], writes: [id]))
    }
    return id
  }

  private mutating func emitAttention(_ node: Node, heads: Int, isPadded: Bool) {
    let scale = queryScale(node)
    var reads: [BufferID] = []
    for (place, input) in node.inputs.enumerated() {
      let isScaledQuery = scale != nil && place % 3 == 0 && place / 3 < node.outputs.count
      guard isScaledQuery, let producer = producers[input.index] else {
        reads.append(buffer(of: input))
        continue
      }
      reads.append(buffer(of: graph.nodes[producer].inputs[0]))
    }
    var writes: [BufferID] = []
    for output in node.outputs { writes.append(buffer(of: output)) }
    let operation = Step.Operation.attention(
      heads: heads, streams: node.outputs.count, isPadded: isPadded, scale: scale ?? 1)
    steps.append(Step(operation: operation, reads: reads, writes: writes))
  }
}
