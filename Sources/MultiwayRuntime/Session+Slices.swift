import MultiwayCore
import MultiwayGraph
import MultiwayKernels
import Synchronization

/// A batch goes through the model a few examples at a time: what a layer writes is then still in the caches when the next one reads it,
/// and memory does not grow with the batch. Where there are examples enough, each thread has slices of its own, and no layer waits for
/// another thread. No example depends on the others, so the results are the same bits.
extension Session {
  /// Rows a thread needs so that reading the weights again for every slice costs less than activations that fall out of the caches: int8
  /// panels are used as they are, others are decoded once for all rows of a slice.
  private static let leastRows = (int8: 96, float: 384)

  /// How a batch is cut.
  struct Slicing: Equatable {
    /// Examples that go through in lanes, a thread each; 0 where the threads share every slice.
    var concurrent: Int
    /// Examples of a slice in a lane.
    var lane: Int
    /// Examples of a slice that the threads share: of what is left by the lanes.
    var shared: Int
  }

  /// How a batch of these sizes is cut; nil where it goes through at once: it is small, or inputs and outputs do not share it.
  func slicing(of symbols: [String: Int]) -> Slicing? {
    guard let batchSymbol, let batch = symbols[batchSymbol], batch > 1 else { return nil }
    var one = symbols
    one[batchSymbol] = 1
    let rows = max(1, program.longestRows(one))
    let least = program.isMostlyInt8 ? Self.leastRows.int8 : Self.leastRows.float
    // Weights that are let go after each use would go under the other lanes.
    let own = threadCount > 1 && !releasesWeights ? batch / threadCount : 0
    let (ownRows, overflow) = own.multipliedReportingOverflow(by: rows)
    let hasLanes = overflow || ownRows >= least
    let concurrent = hasLanes ? own * threadCount : 0
    let shared = even(batch - concurrent, atMost: max(1, (least * threadCount + rows - 1) / rows))
    if !hasLanes, shared == batch { return nil }
    return Slicing(concurrent: concurrent, lane: even(own, atMost: max(1, (least + rows - 1) / rows)), shared: shared)
  }

  /// The size of slices of at most so many examples that differ by one at most; 1 where there are none.
  private func even(_ examples: Int, atMost most: Int) -> Int {
    let slices = (examples - 1) / most + 1
    return examples == 0 ? 1 : (examples + slices - 1) / slices
  }

  /// Runs slices, those of lanes side by side and the others one after the other.
  func runSliced(
    _ inputs: BoundInputs, in workspace: inout Workspace, _ slicing: Slicing
  ) throws -> [(name: String, value: TensorValue)] {
    guard let batchSymbol, let batch = inputs.symbols[batchSymbol] else { return [] }
    var parts = try runLanes(inputs, in: &workspace, slicing, of: batchSymbol)
    for first in stride(from: slicing.concurrent, to: batch, by: slicing.shared) {
      let part = inputs.examples(first..<min(batch, first + slicing.shared), of: batchSymbol)
      parts.append(try runAtOnce(part, in: &workspace, on: context, reusesKept: false).map(\.value))
    }
    return program.outputs.enumerated().map { place, output in
      (output.name, TensorValue(joining: parts.map { $0[place] }))
    }
  }

  /// Runs the examples that threads have for themselves, and gives the outputs of each slice in order. A thread takes the next slice when
  /// it is done with one, so that a busy machine holds up none for long.
  private func runLanes(
    _ inputs: BoundInputs, in workspace: inout Workspace, _ slicing: Slicing, of batchSymbol: String
  ) throws -> [[TensorValue]] {
    guard slicing.concurrent > 0 else { return [] }
    try workspace.makeLanes(for: self, inputs.symbols)
    let lanes = workspace.lanes
    let slices = stride(from: 0, to: slicing.concurrent, by: slicing.lane).map {
      $0..<min(slicing.concurrent, $0 + slicing.lane)
    }
    let next = Atomic(0)
    context.concurrently(lanes.count) { number in
      lanes[number].run(in: self) {
        let slice = next.wrappingAdd(1, ordering: .relaxed).oldValue
        return slice < slices.count ? (slice, inputs.examples(slices[slice], of: batchSymbol)) : nil
      }
    }
    let results = lanes.flatMap { $0.takeResults() }.sorted { $0.slice < $1.slice }
    precondition(results.count == slices.count, "every slice has a result")
    return try results.map { try $0.outputs.get() }
  }

  /// The symbol that is the first dimension of all inputs and outputs, nil where there is none: each example is by itself then.
  static func batchSymbol(of graph: Graph) -> String? {
    let values = graph.inputs + graph.outputs.map(\.value)
    let first = Set(values.map { graph[$0].type.dimensions.first.flatMap { $0.offset == 0 ? $0.symbol : nil } })
    return first.count == 1 ? first.first ?? nil : nil
  }
}

/// What one thread needs to run slices by itself.
final class Lane: Sendable {
  typealias SliceResult = (slice: Int, outputs: Result<[TensorValue], any Error>)

  private struct State: ~Copyable {
    var workspace: Workspace
    var results: [SliceResult] = []
  }

  private let context: KernelContext
  private let state: Mutex<State>

  /// Plans and reserves the memory for slices of these sizes.
  init(_ session: Session, symbols: [String: Int]) throws {
    context = try KernelContext(isa: session.context.isa)
    state = Mutex(State(workspace: try Workspace(session, exactly: symbols, isLane: true)))
  }

  /// The size of its memory.
  var byteCount: Int { state.withLock { $0.workspace.byteCount } }

  /// Runs slices as long as there are any, and keeps what comes out.
  func run(in session: Session, next: () -> (slice: Int, inputs: BoundInputs)?) {
    state.withLock { state in
      while let (slice, inputs) = next() {
        let outputs = Result {
          try session.runAtOnce(inputs, in: &state.workspace, on: context, reusesKept: false).map(\.value)
        }
        state.results.append((slice, outputs))
      }
    }
  }

  /// What came out since the last call.
  func takeResults() -> [SliceResult] {
    state.withLock { state in
      defer { state.results = [] }
      return state.results
    }
  }
}

extension Program {
  /// The most rows that a matrix product of the program has.
  fileprivate func longestRows(_ symbols: [String: Int]) -> Int {
    var longest = 1
    for step in steps where step.operation.isProduct {
      let dimensions = buffers[step.reads[0].index].type.dimensions.dropLast()
      var rows = 1
      for dimension in dimensions {
        let (next, overflow) = rows.multipliedReportingOverflow(by: dimension.resolved(symbols) ?? 1)
        rows = overflow ? Int.max : next
      }
      longest = max(longest, rows)
    }
    return longest
  }

  /// Whether more products are of int8 than of floating-point numbers.
  fileprivate var isMostlyInt8: Bool {
    let products = steps.filter { $0.operation.isProduct }
    let int8 = products.filter { if case .quantizedLinear = $0.operation { true } else { false } }
    return 2 * int8.count > products.count
  }
}

extension Step.Operation {
  fileprivate var isProduct: Bool {
    switch self {
    case .linear, .quantizedLinear, .blockLinear, .roundedLinear: true
    default: false
    }
  }
}
