import MultiwayGraph

/// LayerNorms with the same constants and all that reads them: linear layers whose constants nothing else reads. What folds out of the
/// norms then folds into the layers for every stream that goes through them.
struct NormGroup {
  /// A linear layer behind the norms.
  struct Layer {
    var weight: ConstantID
    var bias: ConstantID?
    /// Its places in the graph: one for each stream that goes through it.
    var nodes: [Int]
  }

  /// The norms' places in the graph; at least one.
  var norms: [Int]
  /// The layers, each once.
  var layers: [Layer]

  /// The groups of a graph in the order of their first norms, without those that something else reads.
  static func all(in graph: Graph) -> [NormGroup] {
    let consumers = graph.consumers()
    var readers: [ConstantID: [Int]] = [:]
    for (position, node) in graph.nodes.enumerated() {
      for (_, id) in node.op.constants { readers[id, default: []].append(position) }
    }
    let outputs = Set(graph.outputs.map(\.value))
    var norms: [Op: [Int]] = [:]
    for (position, node) in graph.nodes.enumerated() {
      if case .layerNorm(let weight, let bias, _) = node.op, weight != nil || bias != nil {
        norms[node.op, default: []].append(position)
      }
    }
    return graph.nodes.enumerated().compactMap { position, node in
      guard let group = norms[node.op], group.first == position else { return nil }
      return NormGroup(graph, group, consumers, readers, outputs)
    }
  }

  private init?(
    _ graph: Graph, _ norms: [Int], _ consumers: [[Int]], _ readers: [ConstantID: [Int]], _ outputs: Set<ValueID>
  ) {
    self.norms = norms
    layers = []
    var found: [Op: [Int]] = [:]
    var order: [Op] = []
    for norm in norms {
      let value = graph.nodes[norm].outputs[0]
      guard !outputs.contains(value), !consumers[value.index].isEmpty else { return nil }
      for reader in consumers[value.index] {
        let op = graph.nodes[reader].op
        if found[op] == nil { order.append(op) }
        found[op, default: []].append(reader)
      }
    }
    guard graph.nodes[norms[0]].op.constants.allSatisfy({ Set(readers[$0.id] ?? []) == Set(norms) }) else { return nil }
    for op in order {
      guard case .linear(let weight, let bias) = op, let nodes = found[op],
        op.constants.allSatisfy({ Set(readers[$0.id] ?? []) == Set(nodes) })
      else { return nil }
      layers.append(Layer(weight: weight, bias: bias, nodes: nodes))
    }
  }
}
