public import MultiwayCore
public import MultiwayGraph
import MultiwayReference

/// Runs a graph whatever it holds: an error is as good as a result, only a trap is not.
public func interpret(_ graph: Graph, _ inputs: [String: TensorValue]) {
  _ = try? Reference(graph, threads: 1).run(inputs)
}
