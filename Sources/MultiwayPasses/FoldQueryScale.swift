internal import MultiwayCore
public import MultiwayGraph

/// Folds the scale of the queries into the layer that makes them. Exact where the head size is a power of 4, as in every released
/// model (64: the scale is 1/8); elsewhere the weights round once more.
///
///     %q = linear %x, w, b          │
///     %s = scale %q, by=0.125       │   %s = linear %x, 0.125·w, 0.125·b
public struct FoldQueryScale: Pass {
  /// The pass's name.
  public static let name = "fold-query-scale"
  /// What it does.
  public static let summary = "folds the query scale into the query projection"

  /// Makes the pass.
  public init() {}

  /// Folds every scale whose input is a linear layer that nothing else reads, and whose weights no other layer has.
  public func run(on graph: inout Graph) -> PassStatistics {
    var statistics = PassStatistics()
    let consumers = graph.consumers()
    let producers = graph.producers()
    let readers = graph.constantReaderCounts()
    var folded: Set<Int> = []
    for position in graph.nodes.indices {
      guard case .scale(let factor) = graph.nodes[position].op else { continue }
      let input = graph.nodes[position].inputs[0]
      guard consumers[input.index] == [position], !graph.outputs.contains(where: { $0.value == input }),
        let producer = producers[input.index], case .linear(let weight, let bias) = graph.nodes[producer].op,
        ([weight] + (bias.map { [$0] } ?? [])).allSatisfy({ readers[$0] == 1 })
      else { continue }
      for constant in [weight, bias].compactMap({ $0 }) {
        graph[constant].data = .scaled(graph[constant].data, by: factor)
      }
      // The layer now makes what the scale made, under its name.
      graph.nodes[producer].outputs = graph.nodes[position].outputs
      folded.insert(position)
      statistics.rewrites += 1
    }
    graph.nodes = graph.nodes.enumerated().filter { !folded.contains($0.offset) }.map(\.element)
    statistics.removedNodes = folded.count
    graph.removeDeadCode()
    return statistics
  }
}
