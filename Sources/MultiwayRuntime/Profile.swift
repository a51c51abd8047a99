import MultiwayCore
public import MultiwayGraph
import MultiwayKernels

/// Where the time of a run goes: one row for all steps of a kind and size.
public struct ProfileRow: Sendable {
  /// The kernel: `linear int8`.
  public var operation: String
  /// Sizes, and what is fused: `768 → 3072, gelu`.
  public var detail: String
  /// Steps of one run that the row stands for.
  public var steps: Int
  /// Seconds of one run: the sum of each step's median.
  public var seconds: Double
  /// Operations of one run, two a multiply-add; 0 where the kernel has none to speak of.
  public var operations: Double
}

extension Session {
  /// Runs a model several times and takes the time of every step.
  /// - Returns: the rows, the slowest first.
  public func profile(_ inputs: BoundInputs, runs: Int) throws -> [ProfileRow] {
    var workspace = try Workspace(self, exactly: inputs.symbols)
    _ = try runAtOnce(inputs, in: &workspace, on: context, reusesKept: false)
    var times = [[Double]](repeating: [], count: program.steps.count)
    let clock = ContinuousClock()
    for _ in 0..<max(1, runs) {
      workspace.load(inputs, for: program, reusesKept: true)
      for (position, step) in program.steps.enumerated() {
        let start = clock.now
        workspace.execute(step, context)
        times[position].append((clock.now - start) / .seconds(1))
      }
    }
    return rows(times, workspace.plan)
  }

  private func rows(_ times: [[Double]], _ plan: MemoryPlan) -> [ProfileRow] {
    var rows: [ProfileRow] = []
    for (step, samples) in zip(program.steps, times) {
      let detail = step.detail(plan)
      let place = rows.firstIndex { $0.operation == step.operation.name && $0.detail == detail }
      if place == nil {
        rows.append(ProfileRow(operation: step.operation.name, detail: detail, steps: 0, seconds: 0, operations: 0))
      }
      let row = place ?? rows.count - 1
      rows[row].steps += 1
      rows[row].seconds += samples.sorted()[samples.count / 2]
      rows[row].operations += step.operations(plan)
    }
    return rows.enumerated().sorted { ($1.element.seconds, $0.offset) < ($0.element.seconds, $1.offset) }.map(\.element)
  }
}

extension Step.Operation {
  /// The kernel's name for people.
  var name: String {
    switch self {
    case .patchify: "patchify"
    case .embedding: "embedding"
    case .prependToken: "prepend token"
    case .addPositions: "add positions"
    case .zeroPadding: "zero padding"
    case .layerNorm: "layer norm"
    case .layerNormQuantize: "layer norm, quantize"
    case .quantize: "quantize"
    case .linear(let weights, _): "linear \(weights.type)"
    case .blockLinear(let weights, _): "linear \(weights.type)"
    case .quantizedLinear: "linear int8"
    case .layerNormRound: "layer norm, round to bf16"
    case .round: "round to bf16"
    case .roundedLinear: "linear in bf16"
    case .scale: "scale"
    case .scaleChannels: "scale channels"
    case .gelu: "gelu"
    case .tanh: "tanh"
    case .relu: "relu"
    case .add: "add"
    case .attention(let attention, _, _): attention.isQuantized ? "attention int8" : "attention"
    case .meanTokens: "mean of tokens"
    case .selectToken: "select token"
    case .dropTokens: "drop tokens"
    case .joinTokens: "join tokens"
    case .joinChannels: "join channels"
    case .normalizeL2: "normalize"
    case .convolution: "convolution"
    case .featureMap(let op, _): op.name
    }
  }
}

extension Step {
  /// The sizes, and what is fused.
  fileprivate func detail(_ plan: MemoryPlan) -> String {
    switch operation {
    case .linear(let weights, let epilogue): text(weights.inputs, weights.outputs, epilogue)
    case .blockLinear(let weights, let epilogue): text(weights.inputs, weights.outputs, epilogue)
    case .quantizedLinear(let weights, let epilogue): text(weights.inputs, weights.outputs, epilogue)
    case .roundedLinear(let weights, let epilogue): text(weights.inputs, weights.outputs, epilogue)
    case .convolution(let weights, let epilogue, let kernel, _):
      "\(kernel)×\(kernel), " + text(weights.inputs / (kernel * kernel), weights.outputs, epilogue)
    case .attention(let attention, _, let bias):
      "\(attention.heads) heads, \(queries(plan)) × \(keys(attention, plan)) tokens" + (bias == nil ? "" : ", bias")
    default: writes.first.map { plan.shapes[$0.index].description } ?? ""
    }
  }

  private func text(_ inputs: Int, _ outputs: Int, _ epilogue: FusedEpilogue) -> String {
    "\(inputs) → \(outputs)" + (epilogue.activation == .gelu ? ", gelu" : "")
      + (epilogue.addsResidual ? ", residual" : "")
  }

  private func queries(_ plan: MemoryPlan) -> Int { writes.reduce(0) { $0 + plan.shapes[$1.index][1] } }

  private func keys(_ attention: Attention, _ plan: MemoryPlan) -> Int {
    (0..<attention.memories).reduce(queries(plan)) { $0 + plan.shapes[reads[attention.memoryPlace($1)].index][1] }
  }

  /// The multiply-adds, two operations each.
  fileprivate func operations(_ plan: MemoryPlan) -> Double {
    switch operation {
    case .linear(let weights, _):
      return 2 * Double(plan.rows(reads[0])) * Double(weights.inputs) * Double(weights.outputs)
    case .blockLinear(let weights, _):
      return 2 * Double(plan.rows(reads[0])) * Double(weights.inputs) * Double(weights.outputs)
    case .quantizedLinear(let weights, _):
      return 2 * Double(plan.rows(reads[0])) * Double(weights.inputs) * Double(weights.outputs)
    case .roundedLinear(let weights, _):
      return 2 * Double(plan.rows(reads[0])) * Double(weights.inputs) * Double(weights.outputs)
    case .convolution(let weights, _, _, _):
      return 2 * Double(plan.rows(reads[0])) * Double(weights.inputs) * Double(weights.outputs)
    case .attention(let attention, _, _):
      let shape = plan.shapes[writes[0].index]
      return 4 * Double(shape[0]) * Double(queries(plan)) * Double(keys(attention, plan)) * Double(shape[2])
    default: return 0
    }
  }
}
