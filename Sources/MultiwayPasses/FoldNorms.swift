public import MultiwayCore
public import MultiwayGraph
public import MultiwayQuantization

/// Folds the bias, and where it helps the weight, of a LayerNorm into the linear layers that read it:
/// `W (γ·n + β) + b = (W diag γ) n + (W β + b)`.
///
///     %n = layer_norm %x, γ, β      │   %n.folded = layer_norm %x
///     %y = linear %n, W, b          │   %y = linear %n.folded, W·diag(γ), W·β + b
///
/// The bias always folds exactly. Of the weight any part may move, channel by channel: it shifts the spread of the channels from the
/// activations into the weights. For int8 the best of three ways is found by trying them on sample tokens (`NormFolding`): the weight
/// stays, all of it moves, or as much as balances the two.
public struct FoldNorms: Pass {
  /// The pass's name.
  public static let name = "fold-norms"
  /// What it does.
  public static let summary =
    "folds LayerNorm's bias, and as much of its weight as int8 is best with, into linear layers"

  /// What becomes of the weight.
  public enum WeightPolicy: String, CaseIterable, Hashable, Sendable {
    /// Only the bias folds.
    case never
    /// Every weight folds.
    case always
    /// As much folds as leaves the smallest measured int8 error, which never grows that way.
    case whereErrorDoesNotGrow = "measured"
  }

  /// What becomes of the weight.
  public var weights: WeightPolicy
  /// The roles of the linear layers that will be int8: weights fold only into these.
  public var roles: Set<Role>
  /// What the norms' results look like; nil where the model was not run.
  public var statistics: ActivationStatistics?

  /// Makes the pass.
  public init(
    weights: WeightPolicy = .whereErrorDoesNotGrow, roles: Set<Role> = Set(Role.allCases),
    statistics: ActivationStatistics? = nil
  ) {
    self.weights = weights
    self.roles = roles
    self.statistics = statistics
  }

  /// Folds every norm that only linear layers read. Norms that share a weight, because several streams go through them, fold together.
  public func run(on graph: inout Graph) throws(PassError) -> PassStatistics {
    var tally = Tally()
    for group in NormGroup.all(in: graph) {
      guard case .layerNorm(let weight, let bias, let epsilon) = graph.nodes[group.norms[0]].op else { continue }
      let choice = try weight.map { weight throws(PassError) in try choose(graph, group, weight: weight, bias: bias) }
      if bias == nil, case .keep = choice ?? .keep { continue }
      var layers = group.layers
      if let bias { fold(bias: bias, into: &layers, of: &graph) }
      let kept = weight.flatMap { move($0, choice ?? .keep, into: layers, of: &graph) }
      for norm in group.norms {
        graph.nodes[norm].op = .layerNorm(weight: kept, bias: nil, epsilon: epsilon)
        graph[graph.nodes[norm].outputs[0]].name += ".folded"
      }
      tally.count(choice ?? .keep)
    }
    graph.removeDeadCode()
    return tally.statistics
  }

  private func fold(bias: ConstantID, into layers: inout [NormGroup.Layer], of graph: inout Graph) {
    for place in layers.indices {
      let layer = layers[place]
      let data = TensorExpression.shiftedBias(
        layer.bias.map { graph[$0].data }, weight: graph[layer.weight].data, shift: graph[bias].data)
      if let old = layer.bias {
        graph[old].data = data
        continue
      }
      let weight = graph[layer.weight]
      let new = graph.addConstant(
        Constant(name: biasName(graph, layer.weight), role: weight.role, modality: weight.modality, data: data))
      layers[place].bias = new
      for node in layer.nodes { graph.nodes[node].op = .linear(weight: layer.weight, bias: new) }
    }
  }

  /// A name for a bias that a layer did not have: that of its weight with another ending, made unique.
  private func biasName(_ graph: Graph, _ weight: ConstantID) -> String {
    let own = graph[weight].name
    let base = (own.hasSuffix(".weight") ? String(own.dropLast(".weight".count)) : own) + ".bias"
    let names = Set(graph.constants.map(\.name))
    var (name, number) = (base, 1)
    while names.contains(name) {
      number += 1
      name = "\(base).\(number)"
    }
    return name
  }

  /// Moves the chosen part of a norm's weight into its readers. Returns the weight that stays with the norm.
  private func move(
    _ weight: ConstantID, _ choice: NormFolding.Choice, into layers: [NormGroup.Layer], of graph: inout Graph
  ) -> ConstantID? {
    switch choice {
    case .keep: return weight
    case .fold:
      scaleColumns(of: &graph, layers, by: graph[weight].data)
      return nil
    case .balance(let factors):
      let name = graph[weight].name
      let data = StoredTensor(name: name + ".balance", dtype: .f32, shape: [factors.count], elements: factors)
      scaleColumns(of: &graph, layers, by: .stored(data))
      let inverse = StoredTensor(
        name: name + ".inverse_balance", dtype: .f32, shape: [factors.count], elements: factors.map { 1 / $0 })
      // A vector times factors is a matrix of one row with its columns scaled.
      let row = TensorExpression.reshaped(graph[weight].data, [1, factors.count])
      graph[weight].data = .reshaped(.columnsScaled(row, by: .stored(inverse)), [factors.count])
      return weight
    }
  }

  private func scaleColumns(of graph: inout Graph, _ layers: [NormGroup.Layer], by scales: TensorExpression) {
    for layer in layers { graph[layer.weight].data = .columnsScaled(graph[layer.weight].data, by: scales) }
  }

  private func choose(
    _ graph: Graph, _ group: NormGroup, weight: ConstantID, bias: ConstantID?
  ) throws(PassError) -> NormFolding.Choice {
    let readers = group.layers.flatMap(\.nodes)
    let becomeInt8 = readers.allSatisfy { graph.nodes[$0].role.map(roles.contains) ?? false }
    guard becomeInt8, weights != .never else { return .keep }
    guard weights == .whereErrorDoesNotGrow else { return .fold }
    let names = group.norms.map { graph[graph.nodes[$0].outputs[0]].name }
    do {
      var materializer = Materializer(discardsSources: false)
      let folding = NormFolding(
        weight: try materializer.floats(of: graph[weight].data),
        bias: try bias.map { try materializer.floats(of: graph[$0].data) }, channels: statistics?.together(names))
      return try folding.choose(group.layers.map { graph[$0.weight].data })
    } catch let error as any DiagnosedError {
      throw PassError(.weights, error.diagnosis)
    } catch {
      throw PassError(.weights, "\(error)")
    }
  }
}

/// Counts what became of the weights.
private struct Tally {
  private var kept = 0
  private var folded = 0
  private var balanced = 0

  mutating func count(_ choice: NormFolding.Choice) {
    switch choice {
    case .keep: kept += 1
    case .fold: folded += 1
    case .balance: balanced += 1
    }
  }

  var statistics: PassStatistics {
    PassStatistics(
      rewrites: kept + folded + balanced,
      notes: ["weights: \(balanced) balanced, \(folded) folded whole, \(kept) kept"])
  }
}
