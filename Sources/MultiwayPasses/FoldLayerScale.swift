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

  /// Folds every layer scale whose input is a linear layer that nothing else reads, and whose weights no layer has that is scaled otherwise.
  public func run(on graph: inout Graph) -> PassStatistics {
    foldIntoLayers(of: &graph) { op, graph in
      guard case .scaleChannels(let factors) = op else { return nil }
      let scales = graph[factors].data
      return { .rowsScaled($0, by: scales) }
    }
  }
}

/// Takes nodes that change the result of a linear layer channel by channel into its weights: the layer then makes what the node made,
/// under its name. Layers whose result something else reads as well stay. Layers that share their weights fold together, where every
/// one of them is changed in the same way.
/// - Parameter change: what a node does to weight and bias; nil for nodes of other ops.
func foldIntoLayers(
  of graph: inout Graph, _ change: (Op, Graph) -> ((TensorExpression) -> TensorExpression)?
) -> PassStatistics {
  var statistics = PassStatistics()
  let consumers = graph.consumers()
  let producers = graph.producers()
  let readers = graph.constantReaderCounts()
  var found: [Op: [(node: Int, layer: Int)]] = [:]
  var layers: [Op] = []
  for position in graph.nodes.indices where change(graph.nodes[position].op, graph) != nil {
    let input = graph.nodes[position].inputs[0]
    guard consumers[input.index] == [position], !graph.outputs.contains(where: { $0.value == input }),
      let producer = producers[input.index], case .linear = graph.nodes[producer].op
    else { continue }
    let layer = graph.nodes[producer].op
    if found[layer] == nil { layers.append(layer) }
    found[layer, default: []].append((position, producer))
  }
  var folded: Set<Int> = []
  for layer in layers {
    guard let places = found[layer], let first = places.first.map({ graph.nodes[$0.node].op }),
      places.allSatisfy({ graph.nodes[$0.node].op == first }),
      layer.constants.allSatisfy({ readers[$0.id] == places.count }), let change = change(first, graph)
    else { continue }
    for (_, id) in layer.constants { graph[id].data = change(graph[id].data) }
    for (node, producer) in places {
      graph.nodes[producer].outputs = graph.nodes[node].outputs
      folded.insert(node)
    }
    statistics.rewrites += places.count
  }
  graph.nodes = graph.nodes.enumerated().filter { !folded.contains($0.offset) }.map(\.element)
  statistics.removedNodes = folded.count
  graph.removeDeadCode()
  return statistics
}
