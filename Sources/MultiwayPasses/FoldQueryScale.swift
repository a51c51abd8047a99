internal import MultiwayCore
public import MultiwayGraph

/// Folds the scale of the queries into the layer that makes them. Exact where the head size is a power of 4, as in every released
/// model (64: the scale is 1/8); elsewhere the weights round once more.
///
///     %q = linear %x, w, b          │
///     %s = scale %q, by=0.125       │   %s = linear %x, 0.125·w, 0.125·b
public struct FoldQueryScale: Pass {
  /// The pass's name.
  public static let name = "fold-query-scale"
  /// What it does.
  public static let summary = "folds the query scale into the query projection"

  /// Makes the pass.
  public init() {}

  /// Folds every scale whose input is a linear layer that nothing else reads.
  public func run(on graph: inout Graph) -> PassStatistics {
    foldIntoLayers(of: &graph) { op, _ in
      guard case .scale(let factor) = op else { return nil }
      return { .scaled($0, by: factor) }
    }
  }
}
