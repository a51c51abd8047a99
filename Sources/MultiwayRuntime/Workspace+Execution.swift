import MultiwayCore
import MultiwayGraph
import MultiwayKernels

extension Workspace {
  /// Copies inputs to their buffers.
  /// - Parameter reusesKept: those that a workspace keeps are there already, and so is what a run made of them.
  mutating func load(_ inputs: BoundInputs, for program: Program, reusesKept: Bool = false) {
    storesAreFilled = reusesKept
    for (tensor, buffer) in zip(inputs.tensors, program.inputs) {
      if reusesKept, program.keptInputs.contains(buffer) { continue }
      let region = region(buffer)
      switch (program.buffers[buffer.index].type.dtype, tensor.elements) {
      case (.u8, _): arena.write((tensor.integers ?? []).map { UInt8(truncatingIfNeeded: $0) }, at: region)
      case (.i64, _): arena.write((tensor.integers ?? []).map { Int64($0) }, at: region)
      default: arena.write(tensor.floats, at: region)
      }
    }
  }

  /// Copies the results out.
  borrowing func outputs(of program: Program) -> [(name: String, value: TensorValue)] {
    var results: [(name: String, value: TensorValue)] = []
    for output in program.outputs { results.append((output.name, value(of: output.buffer))) }
    return results
  }

  /// A copy of an fp32 buffer.
  borrowing func value(of buffer: BufferID) -> TensorValue {
    let shape = plan.shapes[buffer.index]
    return TensorValue(shape, Array(arena.read(region(buffer)).prefix(shape.elementCount)))
  }

  /// Runs all steps in order and shows every buffer that a step wrote.
  mutating func execute(
    _ program: Program, _ context: KernelContext, releasesWeights: Bool,
    observe: (borrowing Workspace, BufferID) -> Void
  ) {
    for step in program.steps {
      execute(step, context)
      if releasesWeights { for source in step.sources { source.discard() } }
      for buffer in step.writes { observe(self, buffer) }
    }
  }

  /// Runs one step.
  mutating func execute(_ step: Step, _ context: KernelContext) {
    switch step.operation {
    case .linear, .blockLinear, .quantizedLinear, .layerNorm, .layerNormQuantize, .quantize, .attention:
      executeLayer(step, context)
    case .roundedLinear, .layerNormRound, .round: executeRounded(step, context)
    case .patchify, .embedding, .prependToken, .addPositions, .zeroPadding, .meanTokens, .selectToken, .dropTokens,
      .joinTokens:
      executeTokens(step, context)
    case .scale, .scaleChannels, .gelu, .tanh, .relu, .add, .normalizeL2: executeElements(step, context)
    case .convolution, .featureMap, .joinChannels: executeFeatureMap(step, context)
    }
  }

  func region(_ buffer: BufferID) -> Region {
    let index = buffer.index
    return Region(byteOffset: plan.offsets[index], byteCount: plan.sizes[index])
  }

  private func quantizedRows(_ buffer: BufferID, groups: Int) -> QuantizedRows {
    let start = plan.offsets[buffer.index]
    let rows = plan.rows(buffer)
    let parts = MemoryPlan.quantizedParts(rows: rows, width: plan.shapes[buffer.index].last, groups: groups)
    return QuantizedRows(
      values: Region(byteOffset: start, byteCount: rows * parts.rowBytes),
      scales: Region(byteOffset: start + parts.scales, byteCount: groups * rows * 4),
      zeros: Region(byteOffset: start + parts.zeros, byteCount: groups * rows * 4))
  }

  func epilogue(_ fused: FusedEpilogue, _ step: Step) -> Epilogue {
    Epilogue(
      bias: fused.bias, activation: fused.activation,
      residual: fused.addsResidual ? step.reads.last.map { region($0) } : nil)
  }

  private mutating func executeLayer(_ step: Step, _ context: KernelContext) {
    let input = step.reads[0]
    let output = step.writes[0]
    let rows = plan.rows(input)
    let width = plan.shapes[input.index].last
    switch step.operation {
    case .linear(let weights, let fused):
      context.linear(
        &arena, rows: rows, x: region(input), weights: weights, epilogue: epilogue(fused, step), into: region(output))
    case .blockLinear(let weights, let fused):
      context.linear(
        &arena, rows: rows, x: region(input), weights: weights, epilogue: epilogue(fused, step), into: region(output))
    case .quantizedLinear(let weights, let fused):
      context.linear(
        &arena, rows: rows, x: quantizedRows(input, groups: weights.groups), weights: weights,
        epilogue: epilogue(fused, step),
        into: region(output))
    case .layerNorm(let norm):
      context.layerNorm(
        &arena, rows: rows, width: width, x: region(input), weight: norm.weight, bias: norm.bias, epsilon: norm.epsilon,
        into: region(output))
    case .layerNormQuantize(let norm, let groups):
      context.layerNormQuantize(
        &arena, rows: rows, width: width, groups: groups, x: region(input), weight: norm.weight, bias: norm.bias,
        epsilon: norm.epsilon,
        into: quantizedRows(output, groups: groups))
    case .quantize(let groups):
      context.quantizeRows(
        &arena, rows: rows, width: width, groups: groups, x: region(input), into: quantizedRows(output, groups: groups))
    case .attention(let attention, let scale, let bias): attend(step, context, attention, scale: scale, bias)
    default: preconditionFailure("not a layer")
    }
  }

  /// Runs a step of bfloat16 arithmetic.
  private mutating func executeRounded(_ step: Step, _ context: KernelContext) {
    let (from, into) = (region(step.reads[0]), region(step.writes[0]))
    let rows = plan.rows(step.reads[0])
    let width = plan.shapes[step.reads[0].index].last
    switch step.operation {
    case .roundedLinear(let weights, let fused):
      context.linear(
        &arena, rows: rows, rounded: from, weights: weights, epilogue: epilogue(fused, step), into: into)
    case .layerNormRound(let norm):
      context.layerNormRound(
        &arena, rows: rows, width: width, x: from, weight: norm.weight, bias: norm.bias, epsilon: norm.epsilon,
        into: into)
    case .round: context.roundRows(&arena, rows: rows, width: width, x: from, into: into)
    default: preconditionFailure("not bfloat16 arithmetic")
    }
  }

  private mutating func attend(
    _ step: Step, _ context: KernelContext, _ attention: Attention, scale: Float, _ bias: AttentionBias?
  ) {
    let shape = plan.shapes[step.writes[0].index]
    let memories = (0..<attention.memories).map { memory in
      let place = attention.memoryPlace(memory)
      let shared = plan.shapes[step.reads[place].index]
      return AttentionMemory(
        key: region(step.reads[place]), value: region(step.reads[place + 1]), tokens: shared[1],
        share: shape[0] / shared[0])
    }
    let segments = step.writes.enumerated().map { stream, output in
      let place = attention.queryPlace(stream)
      return AttentionSegment(
        query: region(step.reads[place]), key: region(step.reads[place + 1]), value: region(step.reads[place + 2]),
        output: region(output), tokens: plan.shapes[output.index][1])
    }
    context.attention(
      &arena, batch: shape[0], heads: attention.heads, headSize: shape[2] / attention.heads, scale: scale,
      memories: memories, segments: segments, keyPadding: attention.isPadded ? step.reads.last.map { region($0) } : nil,
      mode: attention.mask == .none ? .full : .caption, bias: bias,
      arithmetic: attention.isQuantized ? .int8 : .float, store: store(of: step))
  }

  /// Where an attention keeps what it makes of its first memory.
  private func store(of step: Step) -> AttentionStore? {
    guard let store = step.store, let keys = plan.storedKeys[store] else { return nil }
    return AttentionStore(region: region(store), keys: keys, isFilled: storesAreFilled)
  }

  private mutating func executeTokens(_ step: Step, _ context: KernelContext) {
    let (from, into) = (region(step.reads[0]), region(step.writes[0]))
    let input = plan.shapes[step.reads[0].index]
    let output = plan.shapes[step.writes[0].index]
    switch step.operation {
    case .patchify(let size):
      context.patchify(
        &arena, images: input[0], channels: input[1], height: input[2], width: input[3], patch: size, x: from,
        into: into)
    case .embedding(let table):
      let ids = arena.read(from, as: Int64.self).prefix(input.elementCount).map { Int($0) }
      context.gatherRows(
        &arena, table: table.bytes, type: table.type, tableRows: table.outputs, width: table.inputs, ids: ids,
        into: into)
    case .prependToken(let token):
      for example in 0..<output[0] {
        arena.write(token, at: into.dropping(elements: example * output[1] * output[2]))
      }
      copyTokens(from, input, to: into, output, firstToken: 1, context)
    case .addPositions(let table, let rows, let firstRow):
      let width = input[2]
      let used = table.extracting(firstRow * width * 4..<rows * width * 4)
      context.add(
        &arena, rows: input[0] * input[1], width: width, x: from, table: used, tableRows: input[1], into: into)
    case .zeroPadding: zeroPadding(step, context)
    case .meanTokens(let first):
      context.meanRows(
        &arena, batch: input[0], tokens: input[1], width: input[2], range: first..<input[1], x: from, into: into)
    case .selectToken(let index):
      context.copyRows(
        &arena, rows: input[0], width: input[2], x: from.dropping(elements: index * input[2]),
        xStride: input[1] * input[2], into: into, yStride: input[2])
    case .dropTokens(let first):
      context.copyRows(
        &arena, rows: output[0], width: output[1] * output[2], x: from.dropping(elements: first * input[2]),
        xStride: input[1] * input[2], into: into, yStride: output[1] * output[2])
    case .joinTokens: joinTokens(step, context)
    default: preconditionFailure("not an operation on tokens")
    }
  }

  /// Copies streams into longer ones, from a token on.
  private mutating func copyTokens(
    _ from: Region, _ source: Shape, to into: Region, _ target: Shape, firstToken: Int, _ context: KernelContext
  ) {
    context.copyRows(
      &arena, rows: source[0], width: source[1] * source[2], x: from, xStride: source[1] * source[2],
      into: into.dropping(elements: firstToken * target[2]), yStride: target[1] * target[2])
  }

  private mutating func joinTokens(_ step: Step, _ context: KernelContext) {
    var token = 0
    let target = plan.shapes[step.writes[0].index]
    for read in step.reads {
      let source = plan.shapes[read.index]
      copyTokens(region(read), source, to: region(step.writes[0]), target, firstToken: token, context)
      token += source[1]
    }
  }

  private mutating func zeroPadding(_ step: Step, _ context: KernelContext) {
    let shape = plan.shapes[step.reads[0].index]
    let rows = shape[0] * shape[1]
    let width = shape[2]
    context.copyRows(
      &arena, rows: rows, width: width, x: region(step.reads[0]), xStride: width, into: region(step.writes[0]),
      yStride: width)
    let mask = arena.read(region(step.reads[1]), as: UInt8.self)
    let target = region(step.writes[0])
    var elements = arena.mutableElements(of: Float.self, in: target)
    for row in 0..<rows where mask[row] != 0 {
      for column in 0..<width { elements[row * width + column] = 0 }
    }
  }

  private mutating func executeElements(_ step: Step, _ context: KernelContext) {
    let (from, into) = (region(step.reads[0]), region(step.writes[0]))
    let shape = plan.shapes[step.reads[0].index]
    let count = shape.elementCount
    switch step.operation {
    case .scale(let factor): context.scale(&arena, count: count, by: factor, x: from, into: into)
    case .scaleChannels(let factors):
      context.multiply(&arena, rows: plan.rows(step.reads[0]), width: shape.last, x: from, table: factors, into: into)
    case .relu: context.relu(&arena, count: count, x: from, into: into)
    case .gelu: context.gelu(&arena, count: count, x: from, into: into)
    case .tanh: context.tanh(&arena, count: count, x: from, into: into)
    case .add: context.add(&arena, count: count, from, region(step.reads[1]), into: into)
    case .normalizeL2:
      context.l2Normalize(&arena, rows: plan.rows(step.reads[0]), width: shape.last, x: from, into: into)
    default: preconditionFailure("not an operation on elements")
    }
  }
}
