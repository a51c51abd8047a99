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

  /// Folds every norm that only linear layers read.
  public func run(on graph: inout Graph) throws(PassError) -> PassStatistics {
    let candidates = candidates(graph)
    let choices = try choices(candidates, graph)
    var tally = Tally()
    for (candidate, choice) in zip(candidates, choices) {
      if candidate.bias == nil, case .keep = choice { continue }
      if let bias = candidate.bias { fold(bias: bias, into: candidate.layers, of: &graph) }
      let kept = candidate.weight.flatMap { move($0, choice, into: candidate.layers.map { $0[0] }, of: &graph) }
      for norm in candidate.norms {
        graph.nodes[norm].op = .layerNorm(weight: kept, bias: nil, epsilon: candidate.epsilon)
        graph[graph.nodes[norm].outputs[0]].name += ".folded"
        tally.count(choice)
      }
    }
    graph.removeDeadCode()
    return tally.statistics
  }

  /// Norms with the same constants, and the layers that read them.
  private struct Candidate {
    var norms: [Int]
    var layers: [[Int]]
    var weight: ConstantID?
    var bias: ConstantID?
    var epsilon: Float
  }

  private func candidates(_ graph: Graph) -> [Candidate] {
    let (consumers, readers) = (graph.consumers(), ConstantReaders(graph))
    return graph.nodes.indices.compactMap { position in
      guard case .layerNorm(let weight, let bias, let epsilon) = graph.nodes[position].op,
        weight != nil || bias != nil, let norms = readers.twins(of: position, in: graph), norms.first == position,
        let layers = layers(behind: norms, of: graph, consumers, readers)
      else { return nil }
      return Candidate(norms: norms, layers: layers, weight: weight, bias: bias, epsilon: epsilon)
    }
  }

  /// What becomes of each candidate's weight. No candidate's layers are another's, so all can be tried at once.
  private func choices(_ candidates: [Candidate], _ graph: Graph) throws(PassError) -> [NormFolding.Choice] {
    let keepsPages = MemoryBudget.keepsPages(of: graph.constants.flatMap(\.data.sources))
    do {
      return try Pipeline.map(candidates.count) { place in
        try choose(candidates[place], graph, keepsPages: keepsPages)
      }
    } catch let error as any DiagnosedError {
      throw PassError(.weights, error.diagnosis)
    } catch {
      throw PassError(.weights, "\(error)")
    }
  }

  /// The layers that read the results of norms with the same constants, those with the same constants together. Nil where something else
  /// than linear layers reads a result, or their constants serve other layers too.
  private func layers(behind norms: [Int], of graph: Graph, _ consumers: [[Int]], _ constantReaders: ConstantReaders)
    -> [[Int]]?
  {
    let results = norms.map { graph.nodes[$0].outputs[0] }
    guard !graph.outputs.contains(where: { results.contains($0.value) }) else { return nil }
    let readers = results.flatMap { consumers[$0.index] }.sorted()
    guard !readers.isEmpty else { return nil }
    var layers: [[Int]] = []
    for reader in readers where !layers.contains(where: { $0.contains(reader) }) {
      guard case .linear = graph.nodes[reader].op, let twins = constantReaders.twins(of: reader, in: graph),
        twins.allSatisfy({ readers.contains($0) })
      else { return nil }
      layers.append(twins)
    }
    return layers
  }

  private func fold(bias: ConstantID, into layers: [[Int]], of graph: inout Graph) {
    for layer in layers {
      guard case .linear(let weight, let oldBias) = graph.nodes[layer[0]].op else { continue }
      let data = TensorExpression.shiftedBias(
        oldBias.map { graph[$0].data }, weight: graph[weight].data, shift: graph[bias].data)
      if let oldBias {
        graph[oldBias].data = data
      } else {
        let new = graph.addConstant(
          Constant(
            name: biasName(graph, weight), role: graph[weight].role, modality: graph[weight].modality, data: data))
        for node in layer { graph.nodes[node].op = .linear(weight: weight, bias: new) }
      }
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

  /// Moves the chosen part of a norm's weight into the layers behind it. Returns the weight that stays with the norm.
  private func move(
    _ weight: ConstantID, _ choice: NormFolding.Choice, into layers: [Int], of graph: inout Graph
  ) -> ConstantID? {
    switch choice {
    case .keep: return weight
    case .fold:
      scaleColumns(of: &graph, nodes: layers, by: graph[weight].data)
      return nil
    case .balance(let factors):
      let name = graph[weight].name
      let data = StoredTensor(name: name + ".balance", dtype: .f32, shape: [factors.count], elements: factors)
      scaleColumns(of: &graph, nodes: layers, by: .stored(data))
      let inverse = StoredTensor(
        name: name + ".inverse_balance", dtype: .f32, shape: [factors.count], elements: factors.map { 1 / $0 })
      // A vector times factors is a matrix of one row with its columns scaled.
      let row = TensorExpression.reshaped(graph[weight].data, [1, factors.count])
      graph[weight].data = .reshaped(.columnsScaled(row, by: .stored(inverse)), [factors.count])
      return weight
    }
  }

  private func scaleColumns(of graph: inout Graph, nodes: [Int], by scales: TensorExpression) {
    for node in nodes {
      guard case .linear(let weight, _) = graph.nodes[node].op else { continue }
      graph[weight].data = .columnsScaled(graph[weight].data, by: scales)
    }
  }

  private func choose(_ candidate: Candidate, _ graph: Graph, keepsPages: Bool) throws -> NormFolding.Choice {
    let layers = candidate.layers.map { $0[0] }
    let becomeInt8 = layers.allSatisfy { graph.nodes[$0].role.map(roles.contains) ?? false }
    guard let weight = candidate.weight, becomeInt8, weights != .never else { return .keep }
    guard weights == .whereErrorDoesNotGrow else { return .fold }
    var matrices: [TensorExpression] = []
    for layer in layers {
      if case .linear(let matrix, _) = graph.nodes[layer].op { matrices.append(graph[matrix].data) }
    }
    let names = candidate.norms.map { graph[graph.nodes[$0].outputs[0]].name }
    var materializer = Materializer(peekingFor: nil, keepsPages: keepsPages)
    let folding = NormFolding(
      weight: try materializer.floats(of: graph[weight].data),
      bias: try candidate.bias.map { try materializer.floats(of: graph[$0].data) },
      channels: statistics?.together(names))
    return try folding.choose(matrices, &materializer)
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
