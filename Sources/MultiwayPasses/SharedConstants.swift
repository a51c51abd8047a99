import MultiwayGraph

extension Graph {
  /// The nodes that read the constants of the node at `position`, itself among them, where all of them are the same op: what is done
  /// to those constants is then done to all of these nodes, as where an encoder runs twice. Nil where another op, or the same one with
  /// other constants, reads one of them.
  func twins(of position: Int) -> [Int]? {
    let op = nodes[position].op
    let own = Set(op.constants.map(\.id))
    let readers = nodes.indices.filter { place in
      place == position || nodes[place].op.constants.contains { own.contains($0.id) }
    }
    return readers.allSatisfy { nodes[$0].op == op } ? readers : nil
  }
}
