public import MultiwayCore
public import MultiwayGraph

/// Keeps the experts of one modality: drops the inputs of the other, takes its stream out of every attention, and removes what is
/// then no longer reached. Exact for inputs of the kept modality alone: its tokens never met the others.
///
///     %av, %at = attention %qv, %kv, %vv, %qt, %kt, %vt, %mask     │   %av = attention %qv, %kv, %vv
public struct KeepModality: Pass {
  /// The pass's name.
  public static let name = "keep-modality"
  /// What it does.
  public static let summary = "keeps the experts of one modality and drops the other's"

  /// The modality to keep: vision or text.
  public var modality: Modality

  /// Makes the pass for `modality`.
  public init(_ modality: Modality) { self.modality = modality }

  /// Drops the other modality.
  public func run(on graph: inout Graph) throws(PassError) -> PassStatistics {
    let derived = derivedModalities(graph)
    var notes: [String] = []
    try dropOutputs(of: &graph, derived, notes: &notes)
    var rewrites = 0
    for position in graph.nodes.indices {
      switch graph.nodes[position].op {
      case .attention(let heads, let isPadded) where graph.nodes[position].outputs.count == 2:
        dropStream(of: &graph, node: position, heads: heads, isPadded: isPadded, derived)
        rewrites += 1
      case .joinTokens:
        if dropJoin(of: &graph, node: position, derived) { rewrites += 1 }
      default: break
      }
    }
    let removed = graph.removeDeadCode()
    return PassStatistics(rewrites: rewrites, removedNodes: removed, notes: notes)
  }

  /// Which tokens a value holds: those of the inputs that it comes from, streams of attention kept apart.
  private func derivedModalities(_ graph: Graph) -> [Set<Modality>] {
    var derived = [Set<Modality>](repeating: [], count: graph.values.count)
    for input in graph.inputs { derived[input.index] = [graph[input].name.hasPrefix("image") ? .vision : .text] }
    for node in graph.nodes {
      for (place, output) in node.outputs.enumerated() {
        if case .attention = node.op {
          derived[output.index] = derived[node.inputs[place * 3].index]
        } else {
          derived[output.index] = node.inputs.reduce(into: []) { $0.formUnion(derived[$1.index]) }
        }
      }
    }
    return derived
  }

  private func dropOutputs(of graph: inout Graph, _ derived: [Set<Modality>], notes: inout [String]) throws(PassError) {
    let kept = graph.outputs.filter { derived[$0.value.index].contains(modality) }
    guard !kept.isEmpty else {
      throw PassError(
        .notApplicable, "no output of this model comes from \(modality.rawValue) tokens",
        expected: "a model that reads \(modality.rawValue)")
    }
    let dropped = graph.outputs.filter { output in !kept.contains(output) }
    notes += dropped.map { "output '\($0.name)' went with the other modality" }
    graph.outputs = kept
  }

  private func dropStream(
    of graph: inout Graph, node position: Int, heads: Int, isPadded: Bool, _ derived: [Set<Modality>]
  ) {
    var node = graph.nodes[position]
    guard let place = node.outputs.indices.first(where: { derived[node.outputs[$0].index] == [modality] }) else {
      return
    }
    // The mask belongs to the last stream.
    let keepsMask = isPadded && place == node.outputs.count - 1
    let mask = keepsMask ? node.inputs.suffix(1) : []
    node.inputs = Array(node.inputs[place * 3..<place * 3 + 3] + mask)
    node.outputs = [node.outputs[place]]
    node.op = .attention(heads: heads, isPadded: keepsMask)
    node.modality = modality
    graph.nodes[position] = node
  }

  /// A join of one stream is the stream itself.
  private func dropJoin(of graph: inout Graph, node position: Int, _ derived: [Set<Modality>]) -> Bool {
    let node = graph.nodes[position]
    let kept = node.inputs.filter { derived[$0.index] == [modality] }
    guard kept.count == 1, kept.count < node.inputs.count else { return false }
    graph.replaceUses(of: node.outputs[0], with: kept[0])
    return true
  }
}
