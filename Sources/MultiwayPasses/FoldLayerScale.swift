internal import MultiwayCore
public import MultiwayGraph

/// Folds the factors of a layer's channels (layer scale) into the layer. Weights and bias round once more.
///
///     %h = linear %x, W, b            │
///     %y = scale_channels %h, γ       │   %y = linear %x, diag(γ)·W, γ·b
public struct FoldLayerScale: Pass {
  /// The pass's name.
  public static let name = "fold-layer-scale"
  /// What it does.
  public static let summary = "folds layer scale into the layer before it"

  /// Makes the pass.
  public init() {}

  /// Folds every layer scale whose input is a linear layer that nothing else reads, and whose weights no other layer has.
  public func run(on graph: inout Graph) -> PassStatistics {
    foldIntoLayers(of: &graph) { op, graph in
      guard case .scaleChannels(let factors) = op else { return nil }
      let scales = graph[factors].data
      return { .rowsScaled($0, by: scales) }
    }
  }
}

/// Takes nodes that change the result of a linear layer channel by channel into its weights: the layer then makes what the node made,
/// under its name. Layers whose result or weights something else reads as well stay.
/// - Parameter change: what a node does to weight and bias; nil for nodes of other ops.
func foldIntoLayers(
  of graph: inout Graph, _ change: (Op, Graph) -> ((TensorExpression) -> TensorExpression)?
) -> PassStatistics {
  var statistics = PassStatistics()
  let consumers = graph.consumers()
  let producers = graph.producers()
  let readers = graph.constantReaderCounts()
  var folded: Set<Int> = []
  for position in graph.nodes.indices {
    guard let change = change(graph.nodes[position].op, graph) else { continue }
    let input = graph.nodes[position].inputs[0]
    guard consumers[input.index] == [position], !graph.outputs.contains(where: { $0.value == input }),
      let producer = producers[input.index], case .linear(let weight, let bias) = graph.nodes[producer].op,
      ([weight] + (bias.map { [$0] } ?? [])).allSatisfy({ readers[$0] == 1 })
    else { continue }
    for constant in [weight, bias].compactMap({ $0 }) { graph[constant].data = change(graph[constant].data) }
    graph.nodes[producer].outputs = graph.nodes[position].outputs
    folded.insert(position)
    statistics.rewrites += 1
  }
  graph.nodes = graph.nodes.enumerated().filter { !folded.contains($0.offset) }.map(\.element)
  statistics.removedNodes = folded.count
  graph.removeDeadCode()
  return statistics
}
