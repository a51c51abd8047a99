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

  /// Folds every layer scale whose input is a linear layer that nothing else reads.
  public func run(on graph: inout Graph) -> PassStatistics {
    foldIntoLayers(of: &graph) { op, graph in
      guard case .scaleChannels(let factors) = op else { return nil }
      let scales = graph[factors].data
      return { .rowsScaled($0, by: scales) }
    }
  }
}

/// Takes nodes that change the result of a linear layer channel by channel into its weights: the layer then makes what the node made,
/// under its name. Layers whose result something else reads stay, and so do layers with shared weights that are not all changed alike.
/// - Parameter change: what a node does to weight and bias; nil for nodes of other ops.
func foldIntoLayers(
  of graph: inout Graph, _ change: (Op, Graph) -> ((TensorExpression) -> TensorExpression)?
) -> PassStatistics {
  var statistics = PassStatistics()
  let (consumers, readers) = (graph.consumers(), ConstantReaders(graph))
  var folded: Set<Int> = []
  for position in graph.nodes.indices {
    guard case .linear(let weight, let bias) = graph.nodes[position].op,
      let twins = readers.twins(of: position, in: graph), twins.first == position
    else { continue }
    let changes = twins.compactMap { twin -> Int? in
      let output = graph.nodes[twin].outputs[0]
      guard consumers[output.index].count == 1, !graph.outputs.contains(where: { $0.value == output }) else {
        return nil
      }
      return consumers[output.index][0]
    }
    guard changes.count == twins.count, Set(changes.map { graph.nodes[$0].op }).count == 1,
      let change = change(graph.nodes[changes[0]].op, graph)
    else { continue }
    for constant in [weight, bias].compactMap({ $0 }) { graph[constant].data = change(graph[constant].data) }
    for (twin, next) in zip(twins, changes) { graph.nodes[twin].outputs = graph.nodes[next].outputs }
    folded.formUnion(changes)
    statistics.rewrites += changes.count
  }
  graph.nodes = graph.nodes.enumerated().filter { !folded.contains($0.offset) }.map(\.element)
  statistics.removedNodes = folded.count
  graph.removeDeadCode()
  return statistics
}
