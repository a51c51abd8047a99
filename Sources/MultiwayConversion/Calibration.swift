public import MultiwayCore
public import MultiwayGraph
import MultiwayParity
public import MultiwayQuantization
import MultiwayRuntime

/// The examples on which a model runs once before it is quantized.
///
/// They only decide how the spread of the channels is shared between activations and weights, so a few do, and made ones are nearly as good
/// as real ones; which they were is recorded in the artifact.
public struct Calibration: Sendable {
  /// The inputs by name.
  public var inputs: [String: TensorValue]
  /// What artifacts say about them.
  public var description: String

  /// More examples change nothing that could be measured.
  private static let maximumExamples = 32
  /// Made examples hold at least as many tokens as this, where 8 examples do.
  private static let wantedTokens = 192

  /// Takes given inputs.
  public init(inputs: [String: TensorValue], description: String) {
    self.inputs = inputs
    self.description = description
  }

  /// Makes inputs from a fixed seed.
  public static func synthetic(for graph: Graph) -> Calibration {
    let tokens = graph.values.compactMap { $0.type.dimensions.count == 3 ? $0.type.dimensions[1].size : nil }.max() ?? 1
    let examples = max(1, min(8, wantedTokens / max(1, tokens)))
    return Calibration(
      inputs: SyntheticInputs.make(for: graph, examples: examples),
      description: "\(examples) synthetic examples, seed 0")
  }

  /// Runs a model and gathers what its LayerNorms' results look like. No more than a layer's weights are in memory at a time.
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
    var statistics = ActivationStatistics()
    for range in batches.ranges(of: 8) where range.lowerBound < Self.maximumExamples {
      try session.run(batches.part(range), observing: names) { name, value in
        statistics.add(value.floats, width: value.shape.last, of: name)
      }
    }
    return statistics
  }
}
