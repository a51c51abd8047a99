public import MultiwayGraph

/// Turns the two products of attention into int8: queries, keys and values per token and head, and the weights that the softmax gives. There is
/// nothing to store: all of it is made as it comes.
///
///     %y = attention %q, %k, %v   │   %y = attention %q, %k, %v int8
public struct QuantizeAttention: Pass {
  /// The pass's name.
  public static let name = "quantize-attention"
  /// What it does.
  public static let summary = "int8 products of queries with keys and of weights with values"

  /// Makes the pass.
  public init() {}

  /// Quantizes every attention.
  public func run(on graph: inout Graph) -> PassStatistics {
    var statistics = PassStatistics()
    for position in graph.nodes.indices {
      guard case .attention(var attention) = graph.nodes[position].op, !attention.isQuantized else { continue }
      attention.isQuantized = true
      graph.nodes[position].op = .attention(attention)
      statistics.rewrites += 1
    }
    return statistics
  }
}
