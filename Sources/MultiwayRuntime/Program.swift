import MultiwayCore
import MultiwayGraph
import MultiwayKernels

/// A buffer's place in `Program.buffers`.
struct BufferID: Hashable, Sendable {
  let index: Int
}

/// What a buffer holds.
struct Buffer: Sendable {
  enum Kind: Hashable, Sendable {
    /// The elements of a value.
    case elements
    /// A value quantized per token and group: bytes, scales and zero points.
    case quantizedTokens(groups: Int)
    /// A value rounded to bfloat16.
    case roundedTokens
    /// Keys and values of a memory as attention reads them, from run to run; the type is that of the memory's keys. `others` are the
    /// numbers of tokens that come after it.
    case attentionStore(heads: Int, AttentionArithmetic, others: [Dimension])
  }

  var kind: Kind
  var type: ValueType
}

extension Buffer.Kind {
  /// What makes such a buffer of the input of a LayerNorm.
  fileprivate func afterLayerNorm(_ norm: NormConstants) -> Step.Operation {
    switch self {
    case .elements: .layerNorm(norm)
    case .quantizedTokens(let groups): .layerNormQuantize(norm, groups: groups)
    case .roundedTokens: .layerNormRound(norm)
    case .attentionStore: preconditionFailure("not a value")
    }
  }

  /// What makes such a buffer of a value, nil for the value itself.
  fileprivate var alone: Step.Operation? {
    switch self {
    case .elements, .attentionStore: nil
    case .quantizedTokens(let groups): .quantize(groups: groups)
    case .roundedTokens: .round
    }
  }
}

/// What happens to a linear layer's result before it is stored.
struct FusedEpilogue: Sendable {
  var bias: TensorBytes?
  var activation = Activation.none
  /// The last buffer that the step reads is added.
  var addsResidual = false
}

/// One kernel call, with the buffers that it reads and writes.
struct Step: Sendable {
  enum Operation: Sendable {
    case patchify(size: Int)
    case embedding(FloatWeights)
    case prependToken(TensorBytes)
    case addPositions(table: TensorBytes, rows: Int, firstRow: Int)
    case zeroPadding
    case layerNorm(NormConstants)
    case layerNormQuantize(NormConstants, groups: Int)
    case quantize(groups: Int)
    case linear(FloatWeights, FusedEpilogue)
    case blockLinear(BlockWeights, FusedEpilogue)
    case quantizedLinear(Int8Weights, FusedEpilogue)
    case layerNormRound(NormConstants)
    case round
    case roundedLinear(BFloat16Weights, FusedEpilogue)
    case scale(by: Float)
    case scaleChannels(TensorBytes)
    case gelu
    case tanh
    case relu
    case add
    case attention(Attention, scale: Float, AttentionBias?)
    case meanTokens(first: Int)
    case selectToken(Int)
    case dropTokens(first: Int)
    case joinTokens
    case joinChannels
    case normalizeL2
    case convolution(FloatWeights, FusedEpilogue, kernel: Int, Grid)
    /// Any other operation on a feature map: those have no constants.
    case featureMap(FeatureMapOp, Grid)
  }

  var operation: Operation
  var reads: [BufferID]
  var writes: [BufferID]
  /// Where an attention keeps what it made of its first memory.
  var store: BufferID?
  /// The stored tensors that the weights lie in, to be let go after the step where memory is short.
  var sources: [StoredTensor] = []
}

/// A graph as kernel calls, before sizes are known: neighbouring nodes that one kernel does together are one step.
///
/// Fused are: LayerNorm with the quantization of its result where only int8 layers read it (and the quantization is shared by all
/// of them), likewise with its rounding to bfloat16, GELU and the residual sum into the linear layer before, and the query scale into attention. None of this changes a
/// bit of the result: the kernels round where the separate steps would.
struct Program: Sendable {
  /// The names of the values that buffers hold; fused ones and quantized tokens have none.
  private(set) var valueNames: [String?] = []
  private(set) var buffers: [Buffer] = []
  private(set) var steps: [Step] = []
  private(set) var inputs: [BufferID] = []
  private(set) var outputs: [(name: String, buffer: BufferID)] = []
  /// The inputs that a workspace keeps from run to run.
  private(set) var keptInputs: [BufferID] = []
  /// What steps made of those, which stays as well.
  private(set) var stores: [BufferID] = []
  /// All that a workspace keeps from run to run.
  var kept: [BufferID] { keptInputs + stores }

  /// Fuses the nodes of `graph`, which has been verified, and loads its constants.
  /// - Parameters:
  ///   - releasesWeights: let the pages of weights go as soon as they have been looked at.
  ///   - kept: the names of inputs that a workspace keeps from run to run.
  ///   - bfloat16: rounds weights, where floating-point linear layers are to multiply bfloat16 numbers.
  init(
    _ graph: Graph, releasesWeights: Bool, keeping kept: Set<String> = [], bfloat16: KernelContext? = nil
  ) throws {
    var builder = ProgramBuilder(graph, releasesWeights: releasesWeights, keeping: kept, bfloat16: bfloat16)
    try builder.build()
    inputs = graph.inputs.map { builder.buffer(of: $0) }
    outputs = graph.outputs.map { ($0.name, builder.buffer(of: $0.value)) }
    keptInputs = graph.inputs.filter { kept.contains(graph[$0].name) }.map { builder.buffer(of: $0) }
    buffers = builder.buffers
    steps = builder.steps
    stores = steps.compactMap(\.store)
    valueNames = builder.valueNames
  }
}

/// A value as some layers want it.
private struct NarrowedValue: Hashable {
  var value: ValueID
  var kind: Buffer.Kind
}

private struct ProgramBuilder {
  let graph: Graph
  private let consumers: [[Int]]
  private let producers: [Int?]
  private let outputs: Set<ValueID>
  private let kept: Set<ValueID>
  /// Nodes that another node's step does.
  private var absorbed: Set<Int> = []
  private var narrowed: [NarrowedValue: BufferID] = [:]
  private var bufferOfValue: [ValueID: BufferID] = [:]
  private var constants: ConstantLoader
  private let bfloat16: KernelContext?
  var buffers: [Buffer] = []
  var steps: [Step] = []

  init(_ graph: Graph, releasesWeights: Bool, keeping kept: Set<String>, bfloat16: KernelContext?) {
    self.graph = graph
    self.bfloat16 = bfloat16
    consumers = graph.consumers()
    producers = graph.producers()
    outputs = Set(graph.outputs.map(\.value))
    self.kept = Set(graph.inputs.filter { kept.contains(graph[$0].name) })
    constants = ConstantLoader(graph, releasesWeights: releasesWeights)
  }

  mutating func build() throws {
    for position in graph.nodes.indices { absorb(position) }
    for (position, node) in graph.nodes.enumerated() where !absorbed.contains(position) {
      let first = steps.count
      try emit(node, position)
      let sources = node.op.constants.flatMap { graph[$0.id].data.sources }
      if steps.count > first { steps[steps.count - 1].sources = sources }
    }
  }

  /// The name of the value in each buffer.
  var valueNames: [String?] {
    var names = [String?](repeating: nil, count: buffers.count)
    for (value, buffer) in bufferOfValue { names[buffer.index] = graph[value].name }
    return names
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
      guard !outputs.contains(node.outputs[0]), !readers.isEmpty, readers.allSatisfy({ narrowsInput($0) }) else {
        return
      }
      absorbed.insert(position)
    default: return
    }
  }

  /// Whether a node reads its input as something narrower than fp32.
  private func narrowsInput(_ position: Int) -> Bool {
    switch graph.nodes[position].op {
    case .quantizedLinear: true
    case .linear: bfloat16 != nil
    default: false
    }
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
    guard case .attention(let attention) = node.op else { return false }
    return node.outputs.indices.contains { node.inputs[attention.queryPlace($0)] == value }
  }

  /// The factor that all queries of an attention are scaled with, nil if they differ or something else reads a scaled query.
  private func queryScale(_ node: Node) -> Float? {
    guard case .attention(let attention) = node.op else { return nil }
    var factors: Set<Float> = []
    for stream in node.outputs.indices {
      let query = node.inputs[attention.queryPlace(stream)]
      guard let producer = producers[query.index], case .scale(let factor) = graph.nodes[producer].op,
        soleConsumer(query) != nil
      else { return nil }
      factors.insert(factor)
    }
    return factors.count == 1 ? factors.first : nil
  }

  private mutating func emit(_ node: Node, _ position: Int) throws {
    switch node.op {
    case .linear(let weight, let bias):
      var epilogue = FusedEpilogue(bias: try bias.map { try constants.vector($0) })
      let (residual, result) = fuse(into: &epilogue, node, position)
      guard let bfloat16 else {
        let operation: Step.Operation =
          if let blocks = try constants.blocks(weight) { .blockLinear(blocks, epilogue) } else {
            .linear(try constants.matrix(weight), epilogue)
          }
        return add(operation, reads: [buffer(of: node.inputs[0])] + residual, writes: [buffer(of: result)])
      }
      let operation = Step.Operation.roundedLinear(try constants.bfloat16(weight, bfloat16), epilogue)
      add(
        operation, reads: [try narrowedBuffer(of: node.inputs[0], .roundedTokens)] + residual,
        writes: [buffer(of: result)])
    case .quantizedLinear(let linear):
      var epilogue = FusedEpilogue(bias: try linear.bias.map { try constants.vector($0) })
      let (residual, result) = fuse(into: &epilogue, node, position)
      let operation = Step.Operation.quantizedLinear(try constants.int8(linear), epilogue)
      add(
        operation,
        reads: [try narrowedBuffer(of: node.inputs[0], .quantizedTokens(groups: linear.groups))] + residual,
        writes: [buffer(of: result)])
    case .attention(let attention): try emitAttention(node, attention)
    case .patchify(let size): emit(node, .patchify(size: size))
    case .embedding(let table): emit(node, .embedding(try constants.matrix(table)))
    case .prependToken(let token): emit(node, .prependToken(try constants.vector(token)))
    case .addPositions(let table, let firstRow):
      let rows = graph[table].data.shape[0]
      emit(node, .addPositions(table: try constants.vector(table), rows: rows, firstRow: firstRow))
    case .layerNorm(let weight, let bias, let epsilon):
      emit(node, .layerNorm(try constants.norm(weight, bias, epsilon)))
    case .zeroPadding: emit(node, .zeroPadding)
    case .scale(let factor): emit(node, .scale(by: factor))
    case .scaleChannels(let factors): emit(node, .scaleChannels(try constants.vector(factors)))
    case .gelu: emit(node, .gelu)
    case .tanh: emit(node, .tanh)
    case .relu: emit(node, .relu)
    case .add: emit(node, .add)
    case .meanTokens(let first): emit(node, .meanTokens(first: first))
    case .selectToken(let index): emit(node, .selectToken(index))
    case .dropTokens(let first): emit(node, .dropTokens(first: first))
    case .joinTokens: emit(node, .joinTokens)
    case .joinChannels: emit(node, .joinChannels)
    case .normalizeL2: emit(node, .normalizeL2)
    case .featureMap(.convolution(let weight, let bias, let kernel), let grid):
      let epilogue = FusedEpilogue(bias: try bias.map { try constants.vector($0) })
      emit(node, .convolution(try constants.matrix(weight), epilogue, kernel: kernel, grid))
    case .featureMap(let op, let grid): emit(node, .featureMap(op, grid))
    }
  }

  /// A node that is a step of its own.
  private mutating func emit(_ node: Node, _ operation: Step.Operation) {
    add(operation, reads: buffers(of: node.inputs), writes: buffers(of: node.outputs))
  }

  private mutating func add(_ operation: Step.Operation, reads: [BufferID], writes: [BufferID]) {
    steps.append(Step(operation: operation, reads: reads, writes: writes))
  }

  private mutating func buffers(of values: [ValueID]) -> [BufferID] {
    var ids: [BufferID] = []
    for value in values { ids.append(buffer(of: value)) }
    return ids
  }

  /// Takes the GELU or the sum behind a linear layer into its epilogue.
  /// - Returns: the buffer to add, if any, and the value that the step makes.
  private mutating func fuse(
    into epilogue: inout FusedEpilogue, _ node: Node, _ position: Int
  ) -> (residual: [BufferID], result: ValueID) {
    let result = node.outputs[0]
    guard let next = soleConsumer(result), absorbed.contains(next) else { return ([], result) }
    if case .gelu = graph.nodes[next].op {
      epilogue.activation = .gelu
      return ([], graph.nodes[next].outputs[0])
    }
    guard let (linear, residual) = residualLinear(graph.nodes[next], next), linear == position else {
      return ([], result)
    }
    epilogue.addsResidual = true
    return ([buffer(of: residual)], graph.nodes[next].outputs[0])
  }

  /// The quantized or rounded tokens of a value, made once for all layers that read it.
  private mutating func narrowedBuffer(of value: ValueID, _ kind: Buffer.Kind) throws -> BufferID {
    let key = NarrowedValue(value: value, kind: kind)
    if let id = narrowed[key] { return id }
    let id = addBuffer(kind, graph[value].type)
    narrowed[key] = id
    if let producer = producers[value.index], absorbed.contains(producer),
      case .layerNorm(let weight, let bias, let epsilon) = graph.nodes[producer].op
    {
      let source = buffer(of: graph.nodes[producer].inputs[0])
      let norm = try constants.norm(weight, bias, epsilon)
      add(kind.afterLayerNorm(norm), reads: [source], writes: [id])
    } else if let operation = kind.alone {
      add(operation, reads: [buffer(of: value)], writes: [id])
    }
    return id
  }

  private mutating func emitAttention(_ node: Node, _ attention: Attention) throws {
    let scale = queryScale(node)
    var reads = buffers(of: node.inputs)
    if scale != nil {
      // The kernel scales the queries: it reads what the scales read.
      for place in node.outputs.indices.map({ attention.queryPlace($0) }) {
        guard let producer = producers[node.inputs[place].index] else { continue }
        reads[place] = buffer(of: graph.nodes[producer].inputs[0])
      }
    }
    let bias = try attention.bias.map { bias throws in try constants.bias(bias) }
    add(.attention(attention, scale: scale ?? 1, bias), reads: reads, writes: buffers(of: node.outputs))
    steps[steps.count - 1].store = store(for: node, attention)
  }

  /// Room for what attention makes of its first memory, where that is kept from run to run and no other memory is shared by more.
  private mutating func store(for node: Node, _ attention: Attention) -> BufferID? {
    guard attention.memories > 0 else { return nil }
    let place = attention.memoryPlace(0)
    let examples = graph[node.outputs[0]].type.dimensions[0]
    let types = (1..<attention.memories).map { graph[node.inputs[attention.memoryPlace($0)]].type }
    guard kept.isSuperset(of: node.inputs[place...place + 1]), types.allSatisfy({ $0.dimensions[0] == examples }) else {
      return nil
    }
    let others = (types + node.outputs.map { graph[$0].type }).map { $0.dimensions[1] }
    let arithmetic: AttentionArithmetic = attention.isQuantized ? .int8 : .float
    let kind = Buffer.Kind.attentionStore(heads: attention.heads, arithmetic, others: others)
    return addBuffer(kind, graph[node.inputs[place]].type)
  }
}
