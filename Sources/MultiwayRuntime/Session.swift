import Glibc
public import MultiwayCore
public import MultiwayGraph
public import MultiwayKernels

/// A model ready to run: its program with the weights in place, and the kernels of one instruction set.
///
/// A session never changes and any thread may use it; what a run writes is in a `Workspace`. The results depend on the model and
/// the inputs alone: not on the instruction set, the number of threads or the batch that an example is in. With `ComputeType.bf16` they
/// depend on the CPU's kind, too.
public final class Session: Sendable {
  /// The graph.
  public let graph: Graph
  /// The instruction set and the threads.
  public let context: KernelContext
  /// What layers that are not int8 are computed in.
  public let compute: ComputeType
  let program: Program
  /// Let the pages of weights go after each use, so that memory does not grow with the model.
  let releasesWeights: Bool
  /// The dimension that a batch is cut at, nil where it cannot be.
  let batchSymbol: String?

  /// Loads a graph.
  /// - Parameters:
  ///   - isa: the instruction set; nil for the one that `MULTIWAY_ISA` names or the best that the CPU has.
  ///   - threads: the number of threads; nil for one a core.
  ///   - releasesWeights: let the pages of mapped weights go after each use: slower, but no more than a layer is resident.
  ///   - kept: the names of inputs that a workspace keeps, so that later runs need not copy them again.
  ///   - compute: what layers that are not int8 are computed in. Throws `.configuration` where the CPU cannot.
  public init(
    _ graph: Graph, isa: ISA? = nil, threads: Int? = nil, releasesWeights: Bool = false, keeping kept: Set<String> = [],
    compute: ComputeType = .f32
  ) throws {
    let isa = try isa ?? ISA.selected()
    try compute.check(isa)
    self.compute = compute
    context = try KernelContext(isa: isa, threads: threads ?? KernelContext.coreCount)
    self.graph = graph
    self.releasesWeights = releasesWeights
    batchSymbol = kept.isEmpty ? Session.batchSymbol(of: graph) : nil
    try graph.verify()
    program = try Program(
      graph, releasesWeights: releasesWeights, keeping: kept, bfloat16: compute == .bf16 ? context : nil)
  }

  /// The name of the instruction set: `avx512`.
  public var instructionSet: String { context.isa.rawValue }

  /// The operations a second that the multiply-add instructions of this session's instruction set reach on registers alone, on one
  /// core and times the threads; 0 where the set has no such loop. Takes a tenth of a second.
  public func peakOperations(int8: Bool) -> Double {
    let peak =
      switch (int8, compute) {
      case (true, _): KernelBenchmarks.peakInt8(isa: context.isa)
      case (false, .f32): KernelBenchmarks.peakFloat32(isa: context.isa)
      case (false, .bf16): KernelBenchmarks.peakBFloat16(isa: context.isa)
      }
    return (peak ?? 0) * Double(context.threads)
  }

  /// How many bytes of fp32 weights a second become int8 on all threads. The weights are more than caches hold. Takes a tenth of a second.
  public func weightQuantizationSpeed() -> Double {
    KernelBenchmarks.quantizeWeights(context, outputs: 8192, inputs: 2048, groups: 4)
  }

  /// What a model whose weights are in blocks reads for one token, as in decoding: the bytes of all these weights, how many of such a
  /// second its layers read, one after the other, and how many this machine's memory gives. Nil without such layers.
  public func weightReading() throws -> (bytes: Int, rate: Double, bandwidth: Double)? {
    let weights = program.steps.compactMap { step in
      if case .blockLinear(let weights, _) = step.operation { return weights }
      return nil
    }
    guard let rate = try KernelBenchmarks.tokenBandwidth(context, weights: weights) else { return nil }
    let bytes = weights.reduce(0) { $0 + BlockWeights.byteCount(outputs: $1.outputs, inputs: $1.inputs, $1.type) }
    return (bytes, rate, KernelBenchmarks.memoryBandwidth(context))
  }

  /// The number of threads.
  public var threadCount: Int { context.threads }

  /// Runs the model once, with memory of its own.
  public func run(_ inputs: [String: TensorValue]) throws -> [(name: String, value: TensorValue)] {
    let bound = try graph.bind(inputs)
    var workspace = try Workspace(self, symbols: bound.symbols)
    return try run(bound, in: &workspace)
  }

  /// Runs the model on any number of examples, a few at a time, so that memory does not grow with their number.
  ///
  /// Inputs that do not share one batch, such as the images and texts of retrieval, go through at once.
  public func run(
    _ inputs: [String: TensorValue], atMost examples: Int, progress: ((_ done: Int, _ total: Int) -> Void)? = nil
  ) throws -> [(name: String, value: TensorValue)] {
    let batches = ExampleBatches(inputs, for: graph)
    var parts: [[TensorValue]] = [[TensorValue]](repeating: [], count: program.outputs.count)
    var workspace: Workspace?
    for range in batches.ranges(of: examples) {
      let bound = try graph.bind(batches.part(range))
      var memory = try workspace.take() ?? Workspace(self, symbols: bound.symbols)
      for (place, output) in try run(bound, in: &memory).enumerated() { parts[place].append(output.value) }
      workspace = consume memory
      progress?(range.upperBound, batches.count)
    }
    return zip(program.outputs, parts).map { ($0.name, TensorValue(joining: $1)) }
  }

  /// Runs the model and shows values on their way.
  /// - Parameters:
  ///   - names: the values to see; those that are part of a fused step cannot be seen.
  ///   - observe: called with the name, the shape and the elements of each of them, once they are made.
  public func run(
    _ inputs: [String: TensorValue], observing names: Set<String>, _ observe: (String, TensorValue) -> Void
  ) throws {
    let bound = try graph.bind(inputs)
    var workspace = try Workspace(self, exactly: bound.symbols)
    workspace.load(bound, for: program)
    workspace.execute(program, context, releasesWeights: releasesWeights) { workspace, buffer in
      guard let name = program.valueNames[buffer.index], names.contains(name) else { return }
      observe(name, workspace.value(of: buffer))
    }
  }

  /// How much memory `run(_:observing:_:)` takes for such inputs, where the session releases weights: the workspace, the weights of the step
  /// that has most of them, and copies of an observed value.
  public func byteCount(ofRun inputs: [String: TensorValue], observing names: Set<String>) throws -> Int {
    let plan = try Workspace.plan(self, try graph.bind(inputs).symbols, isShared: threadCount > 1)
    let weights = program.steps.map { step in step.sources.reduce(0) { $0 + $1.byteCount } }.max() ?? 0
    let values = program.valueNames.indices.filter { program.valueNames[$0].map(names.contains) == true }
    return plan.byteCount + weights + 3 * (values.map { plan.sizes[$0] }.max() ?? 0)
  }

  /// Runs the model in a workspace, which grows where the inputs need more than it has. A large batch goes through in slices.
  /// - Parameter reusesKept: the inputs that the session keeps are those of the workspace's run before, and are not copied again
  ///   unless it grew.
  public func run(
    _ inputs: BoundInputs, in workspace: inout Workspace, reusesKept: Bool = false
  ) throws -> [(name: String, value: TensorValue)] {
    if let slicing = slicing(of: inputs.symbols) { return try runSliced(inputs, in: &workspace, slicing) }
    return try runAtOnce(inputs, in: &workspace, on: context, reusesKept: reusesKept)
  }

  func runAtOnce(
    _ inputs: BoundInputs, in workspace: inout Workspace, on context: KernelContext, reusesKept: Bool
  ) throws -> [(name: String, value: TensorValue)] {
    let isIntact = try workspace.symbols == inputs.symbols || workspace.fit(self, inputs.symbols)
    workspace.load(inputs, for: program, reusesKept: reusesKept && isIntact)
    workspace.execute(program, context, releasesWeights: releasesWeights) { _, _ in }
    return workspace.outputs(of: program)
  }
}

/// The memory of a run: one block, planned for one set of sizes, and one for each thread that runs slices of a batch by itself.
public struct Workspace: ~Copyable {
  /// The sizes that the plan is for: `batch`, `text_tokens`, …
  public private(set) var symbols: [String: Int]
  private(set) var plan: MemoryPlan
  /// Several threads share its matrices.
  private let isShared: Bool
  var arena: Arena
  /// What the program's stores hold is made of the inputs that are kept.
  var storesAreFilled = false
  /// The threads' own; none until a batch is large enough.
  private(set) var lanes: [Lane]

  /// The size of all blocks in bytes.
  public var byteCount: Int { lanes.reduce(plan.byteCount) { $0 + $1.byteCount } }

  /// How many slices of a batch run side by side; 0 where the threads share every one.
  public var laneCount: Int { lanes.count }

  /// Plans and reserves the memory for inputs of these sizes, or of a slice of them where the session cuts a batch. Throws `.memory` if
  /// the machine does not have as much as that, and the inputs and outputs, take.
  public init(_ session: Session, symbols: [String: Int]) throws {
    try Workspace.check(session.program.boundaryByteCount(symbols), of: symbols)
    var shared = symbols
    if let slicing = session.slicing(of: symbols), let batch = session.batchSymbol { shared[batch] = slicing.shared }
    try self.init(session, exactly: shared, lanes: try Workspace.lanes(session, symbols))
  }

  /// Plans and reserves the memory for a run of these sizes.
  /// - Parameter isLane: true where one thread runs in it.
  init(_ session: Session, exactly symbols: [String: Int], lanes: [Lane] = [], isLane: Bool = false) throws {
    isShared = !isLane && session.threadCount > 1
    let plan = try Workspace.plan(session, symbols, isShared: isShared)
    let arena = try Arena(byteCount: plan.byteCount)
    self.plan = plan
    self.arena = arena
    self.symbols = symbols
    self.lanes = lanes
  }

  /// The threads' own memory for a batch of these sizes; none where they share its slices.
  private static func lanes(_ session: Session, _ symbols: [String: Int]) throws -> [Lane] {
    guard let batch = session.batchSymbol, let slicing = session.slicing(of: symbols), slicing.concurrent > 0 else {
      return []
    }
    var slice = symbols
    slice[batch] = slicing.lane
    return try (0..<session.threadCount).map { _ in try Lane(session, symbols: slice) }
  }

  /// Makes the threads' own memory for a batch of these sizes where it is not there yet.
  mutating func makeLanes(for session: Session, _ symbols: [String: Int]) throws {
    if lanes.isEmpty { lanes = try Workspace.lanes(session, symbols) }
  }

  /// Plans for other sizes, in the memory that there is where it is enough. A workspace that has grown once has room to grow again:
  /// memory that nothing has touched costs nothing.
  /// - Returns: true where all that the session keeps is still in place.
  mutating func fit(_ session: Session, _ symbols: [String: Int]) throws -> Bool {
    let kept = session.program.kept
    let before = kept.map { region($0) }
    plan = try Workspace.plan(session, symbols, isShared: isShared)
    self.symbols = symbols
    guard plan.byteCount > arena.byteCount else { return before == kept.map { region($0) } }
    arena = try Arena(byteCount: 2 * plan.byteCount)
    return false
  }

  fileprivate static func plan(_ session: Session, _ symbols: [String: Int], isShared: Bool) throws -> MemoryPlan {
    let plan = MemoryPlan(session.program, symbols: symbols, isShared: isShared)
    try check(plan?.byteCount, of: symbols)
    guard let plan else { preconditionFailure("a size that overflows has passed") }
    return plan
  }

  /// Refuses more memory than the machine has; nil is more than can be addressed.
  private static func check(_ byteCount: Int?, of symbols: [String: Int]) throws {
    let sizes = symbols.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
    let remedy = "run a smaller batch"
    guard let byteCount else {
      throw RuntimeError(.memory, "\(sizes) needs more memory than can be addressed", remedy: remedy)
    }
    let available = Int(sysconf(Int32(_SC_PHYS_PAGES))) * Int(sysconf(Int32(_SC_PAGESIZE)))
    guard byteCount <= available else {
      throw RuntimeError(
        .memory, "\(sizes) needs \(byteCount >> 20) MB of memory",
        expected: "at most the \(available >> 20) MB of this machine", remedy: remedy)
    }
  }
}
