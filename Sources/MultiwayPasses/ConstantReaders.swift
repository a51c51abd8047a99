import MultiwayGraph

/// Which nodes read each constant: made once for a pass, as asking every node for every node takes longer than the pass.
struct ConstantReaders {
  /// The positions of nodes in order, by the constant's index.
  private let readers: [[Int]]

  init(_ graph: Graph) {
    var readers = [[Int]](repeating: [], count: graph.constants.count)
    for position in graph.nodes.indices {
      for constant in graph.nodes[position].op.constants where readers[constant.id.index].last != position {
        readers[constant.id.index].append(position)
      }
    }
    self.readers = readers
  }

  /// The nodes that read the constants of the node at `position`, itself among them, where all of them are the same op: what is done
  /// to those constants is then done to all of these nodes, as where an encoder runs twice. Nil where another op, or the same one with
  /// other constants, reads one of them. The nodes' ops must be those that the readers were found by.
  func twins(of position: Int, in graph: Graph) -> [Int]? {
    let op = graph.nodes[position].op
    let twins = op.constants.first.map { readers[$0.id.index] } ?? [position]
    let isShared = op.constants.allSatisfy { readers[$0.id.index] == twins }
    return isShared && twins.allSatisfy { graph.nodes[$0].op == op } ? twins : nil
  }
}
