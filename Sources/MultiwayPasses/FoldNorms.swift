public import MultiwayCore
public import MultiwayGraph
import MultiwayQuantization

/// Folds the bias, and where it helps the weight, of a LayerNorm into the linear layers that read it:
/// `W (γ·n + β) + b = (W diag γ) n + (W β + b)`.
///
///     %n = layer_norm %x, γ, β      │   %n.folded = layer_norm %x
///     %y = linear %n, W, b          │   %y = linear %n.folded, W·diag(γ), W·β + b
///
/// The bias always folds exactly. The weight moves the spread of the channels from the activations into the weights, which helps
/// where the activations suffer more from it; so int8 measures both ways on a sample and keeps the better one.
public struct FoldNorms: Pass {
  /// The pass's name.
  public static let name = "fold-norms"
  /// What it does.
  public static let summary = "folds LayerNorm's bias, and its weight where int8 errors do not grow, into linear layers"

  /// When to fold the weight.
  public enum WeightPolicy: String, CaseIterable, Hashable, Sendable {
    /// Only the bias folds.
    case never
    /// Every weight folds.
    case always
    /// A weight folds where the measured int8 error does not grow.
    case whereErrorDoesNotGrow = "measured"
  }

  /// When to fold the weight.
  public var weights: WeightPolicy

  /// Makes the pass.
  public init(weights: WeightPolicy = .whereErrorDoesNotGrow) { self.weights = weights }

  /// Folds every norm that only linear layers read.
  public func run(on graph: inout Graph) throws(PassError) -> PassStatistics {
    let consumers = graph.consumers()
    var statistics = PassStatistics()
    var foldedWeights = 0
    for position in graph.nodes.indices {
      guard case .layerNorm(let weight, let bias, let epsilon) = graph.nodes[position].op,
        weight != nil || bias != nil
      else { continue }
      let output = graph.nodes[position].outputs[0]
      let readers = consumers[output.index]
      guard !graph.outputs.contains(where: { $0.value == output }), readers.allSatisfy({ isFoldable(graph, $0) }) else {
        continue
      }
      if let bias { fold(bias: bias, into: readers, of: &graph) }
      let foldsWeight = try weight.map { weight throws(PassError) in
        try isWorthFolding(weight, into: readers, of: graph)
      }
      if let weight, foldsWeight == true {
        for reader in readers { scaleColumns(of: &graph, node: reader, by: graph[weight].data) }
        foldedWeights += 1
      }
      graph.nodes[position].op = .layerNorm(
        weight: foldsWeight == true ? nil : weight, bias: nil, epsilon: epsilon)
      graph[output].name += ".folded"
      statistics.rewrites += 1
    }
    graph.removeDeadCode()
    statistics.notes = ["\(foldedWeights) of \(statistics.rewrites) norm weights folded"]
    return statistics
  }

  /// A reader folds if it is a linear layer whose constants no other node reads.
  private func isFoldable(_ graph: Graph, _ position: Int) -> Bool {
    guard case .linear(let weight, _) = graph.nodes[position].op else { return false }
    return graph.nodes.filter { node in node.op.constants.contains { $0.id == weight } }.count == 1
  }

  private func fold(bias: ConstantID, into readers: [Int], of graph: inout Graph) {
    for reader in readers {
      guard case .linear(let weight, let oldBias) = graph.nodes[reader].op else { continue }
      let data = TensorExpression.shiftedBias(
        oldBias.map { graph[$0].data }, weight: graph[weight].data, shift: graph[bias].data)
      if let oldBias {
        graph[oldBias].data = data
      } else {
        let name = graph[weight].name.replacing(".weight", with: ".bias")
        let new = graph.addConstant(
          Constant(name: name, role: graph[weight].role, modality: graph[weight].modality, data: data))
        graph.nodes[reader].op = .linear(weight: weight, bias: new)
      }
    }
  }

  private func scaleColumns(of graph: inout Graph, node: Int, by scales: TensorExpression) {
    guard case .linear(let weight, _) = graph.nodes[node].op else { return }
    graph[weight].data = .columnsScaled(graph[weight].data, by: scales)
  }

  private func isWorthFolding(
    _ weight: ConstantID, into readers: [Int], of graph: Graph
  ) throws(PassError) -> Bool {
    switch weights {
    case .never: return false
    case .always: return true
    case .whereErrorDoesNotGrow:
      var matrices: [TensorExpression] = []
      for reader in readers {
        if case .linear(let matrix, _) = graph.nodes[reader].op { matrices.append(graph[matrix].data) }
      }
      do {
        return try NormFolding.errorDoesNotGrow(matrices: matrices, normWeight: graph[weight].data)
      } catch let error as any DiagnosedError {
        throw PassError(.weights, error.diagnosis)
      } catch {
        throw PassError(.weights, "\(error)")
      }
    }
  }
}
