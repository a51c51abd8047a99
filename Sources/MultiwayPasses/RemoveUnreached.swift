public import MultiwayGraph

/// Removes what no output depends on. For a task that never reads text this takes all text experts, the text positions and the
/// token embedding away, and for every task the parameters that only training reads.
///
///     %a = linear %x, w1        │
///     %b = linear %x, w2        │   %a = linear %x, w1
///     return logits = %a        │   return logits = %a
public struct RemoveUnreached: Pass {
  /// The pass's name.
  public static let name = "remove-unreached"
  /// What it does.
  public static let summary = "removes nodes, inputs and weights that no output depends on"

  /// Makes the pass.
  public init() {}

  /// Removes dead code.
  public func run(on graph: inout Graph) -> PassStatistics {
    let constants = graph.constants.count
    let removed = graph.removeDeadCode()
    return PassStatistics(rewrites: constants - graph.constants.count, removedNodes: removed)
  }
}
