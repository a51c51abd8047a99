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
    try dropOutputs(of: &graph, derived, mixed: mixedValues(graph, derived), notes: &notes)
    var rewrites = 0
    for position in graph.nodes.indices {
      switch graph.nodes[position].op {
      case .attention(let attention):
        if dropParts(of: &graph, node: position, attention, derived) { rewrites += 1 }
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
        if case .attention(let attention) = node.op {
          derived[output.index] = derived[node.inputs[attention.queryPlace(place)].index]
        } else {
          derived[output.index] = node.inputs.reduce(into: []) { $0.formUnion(derived[$1.index]) }
        }
      }
    }
    return derived
  }

  /// The values in whose numbers the modalities meet outside attention, as in a layer over the tokens of both: no part of them is one
  /// modality's. Streams that are merely joined come apart again.
  private func mixedValues(_ graph: Graph, _ derived: [Set<Modality>]) -> Set<ValueID> {
    var mixed: Set<ValueID> = []
    for node in graph.nodes {
      switch node.op {
      case .attention(let attention):
        for (stream, output) in node.outputs.enumerated()
        where mixed.contains(node.inputs[attention.queryPlace(stream)]) { mixed.insert(output) }
      case .joinTokens: if node.inputs.contains(where: mixed.contains) { mixed.formUnion(node.outputs) }
      default:
        let sources = Set(node.inputs.map { derived[$0.index] })
        if node.inputs.contains(where: mixed.contains) || sources.count > 1 { mixed.formUnion(node.outputs) }
      }
    }
    return mixed
  }

  private func dropOutputs(
    of graph: inout Graph, _ derived: [Set<Modality>], mixed: Set<ValueID>, notes: inout [String]
  ) throws(PassError) {
    let kept = graph.outputs.filter { derived[$0.value.index].contains(modality) && !mixed.contains($0.value) }
    guard !kept.isEmpty else {
      let both = graph.outputs.filter { mixed.contains($0.value) }.map { "'\($0.name)'" }
      throw PassError(
        .notApplicable,
        both.isEmpty
          ? "no output of this model comes from \(modality.rawValue) tokens"
          : "no output of this model comes from \(modality.rawValue) tokens alone: image and text meet in "
            + both.joined(separator: ", "),
        expected: "a model that reads \(modality.rawValue)")
    }
    let dropped = graph.outputs.filter { output in !kept.contains(output) }
    notes += dropped.map { "output '\($0.name)' went with the other modality" }
    graph.outputs = kept
  }

  /// Takes the other modality's streams and memories out of an attention.
  /// - Returns: false where there is nothing to take out, or nothing would be left.
  private func dropParts(
    of graph: inout Graph, node position: Int, _ attention: Attention, _ derived: [Set<Modality>]
  ) -> Bool {
    var node = graph.nodes[position]
    let streams = node.outputs.indices.filter { derived[node.outputs[$0].index] == [modality] }
    let memories = (0..<attention.memories).filter {
      derived[node.inputs[attention.memoryPlace($0)].index] == [modality]
    }
    guard !streams.isEmpty, streams.count < node.outputs.count || memories.count < attention.memories else {
      return false
    }
    // Mask and caption belong to the last stream.
    let keepsLast = streams.last == node.outputs.count - 1
    var kept = attention
    kept.memories = memories.count
    kept.isPadded = attention.isPadded && keepsLast
    kept.mask = keepsLast ? attention.mask : .none
    kept.bias = attention.bias.map { cut($0, to: streams, of: &graph, node) }
    var inputs: [ValueID] = []
    for place in memories.map({ attention.memoryPlace($0) }) { inputs += node.inputs[place..<place + 2] }
    for place in streams.map({ attention.queryPlace($0) }) { inputs += node.inputs[place..<place + 3] }
    if kept.isPadded { inputs += node.inputs.suffix(1) }
    node.inputs = inputs
    node.outputs = streams.map { node.outputs[$0] }
    node.op = .attention(kept)
    node.modality = modality
    graph.nodes[position] = node
    return true
  }

  /// The bias over the tokens of the one stream that stays.
  private func cut(_ bias: RelativeBias, to streams: [Int], of graph: inout Graph, _ node: Node) -> RelativeBias {
    guard streams.count == 1, node.outputs.count > 1 else { return bias }
    let kept = streams[0]
    let lengths = node.outputs.map { graph[$0].type.dimensions[1].size }
    let index = graph[bias.index]
    let start = lengths[..<kept].reduce(0) { $0 + ($1 ?? 0) }
    // A length that depends on the inputs is the last one: its tokens are the rest of the index.
    let tokens = start..<(lengths[kept].map { start + $0 } ?? index.data.shape[0])
    let name = "\(index.name).\(modality.rawValue)"
    let known = graph.constants.firstIndex { $0.name == name }
    let id =
      known.map(ConstantID.init)
      ?? graph.addConstant(
        Constant(
          name: name, role: index.role, modality: modality, data: .columns(.rows(index.data, tokens), tokens)))
    return RelativeBias(table: bias.table, index: id)
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
