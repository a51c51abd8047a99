public import MultiwayCore
public import MultiwayGraph
public import MultiwayQuantization
import MultiwayRuntime

/// The examples on which a model runs once before it is quantized.
///
/// They only decide how the spread of the channels is shared between activations and weights, so a few dozen do; which they were is recorded
/// in the artifact.
public struct Calibration: Sendable {
  /// The inputs by name.
  public var inputs: [String: TensorValue]
  /// What artifacts say about them.
  public var description: String

  /// More examples change nothing that could be measured.
  private static let maximumExamples = 32

  /// Takes given inputs.
  public init(inputs: [String: TensorValue], description: String) {
    self.inputs = inputs
    self.description = description
  }

  /// Refuses a memory budget in which the model cannot run on the first examples; no others take more.
  private static func checkBudget(_ session: Session, _ batches: ExampleBatches, _ names: Set<String>) throws {
    guard let budget = MemoryBudget.current, let first = batches.ranges(of: 8).first else { return }
    try budget.require(
      try session.byteCount(ofRun: batches.part(first), observing: names), for: "running the model on examples")
  }

  /// Runs a model and gathers how large the elements of values are.
  func ranges(of graph: Graph, _ names: Set<String>) throws -> ActivationRanges {
    var reached = graph
    reached.removeDeadCode()
    let session = try Session(reached, releasesWeights: true)
    let batches = ExampleBatches(inputs, for: reached)
    var ranges = ActivationRanges()
    try Calibration.checkBudget(session, batches, names)
    for range in batches.ranges(of: 8) where range.lowerBound < Self.maximumExamples {
      try session.run(batches.part(range), observing: names) { name, value in ranges.add(value.floats, of: name) }
    }
    return ranges
  }

  /// Runs a model and gathers what its LayerNorms' results look like, starting from what the weights alone tell. No more than a layer's weights are in memory at a time.
  public func statistics(of graph: Graph) throws -> ActivationStatistics {
    var reached = graph
    reached.removeDeadCode()
    let norms = reached.nodes.filter { node in
      if case .layerNorm = node.op { return true }
      return false
    }
    let names = Set(norms.map { reached[$0.outputs[0]].name })
    let session = try Session(reached, releasesWeights: true)
    let batches = ExampleBatches(inputs, for: reached)
    var statistics = try ActivationStatistics.estimated(for: reached)
    try Calibration.checkBudget(session, batches, names)
    for range in batches.ranges(of: 8) where range.lowerBound < Self.maximumExamples {
      try session.run(batches.part(range), observing: names) { name, value in
        statistics.add(value.floats, width: value.shape.last, of: name, examples: range.count)
      }
    }
    return statistics
  }
}
