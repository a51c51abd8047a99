public import MultiwayCore
public import MultiwayGraph

/// Turns linear layers into int8: weights per output channel, symmetric; activations per token as they come. Layers with many inputs are
/// cut into groups of at most 768, each with scales of its own: a long row's largest element would make the steps of all the others coarse.
///
///     %y = linear %x, w, b     │   %y = quantized_linear %x, panels, scales, sums, b
public struct QuantizeLinears: Pass {
  /// The pass's name.
  public static let name = "quantize-linears"
  /// What it does.
  public static let summary = "int8 weights per output channel, int8 activations per token"

  /// What folds into the weights can no longer do so once they are int8.
  public static var follows: [any Pass.Type] { [FoldQueryScale.self, FoldLayerScale.self, FoldNorms.self] }

  /// The roles of the layers to quantize.
  public var roles: Set<Role>

  /// Makes the pass.
  public init(roles: Set<Role>) { self.roles = roles }

  /// Quantizes every linear layer of the roles.
  public func run(on graph: inout Graph) throws(PassError) -> PassStatistics {
    var statistics = PassStatistics()
    var quantized: [ConstantID: [ConstantID]] = [:]
    for position in graph.nodes.indices {
      let node = graph.nodes[position]
      guard case .linear(let weight, let bias) = node.op, let role = node.role, roles.contains(role) else { continue }
      let shape = graph[weight].data.shape
      let groups = QuantizedMatrix.groupCount(inputs: shape[1])
      // Longer groups could overflow their int32 sums.
      guard shape[1] / groups <= 65536 else { continue }
      // Layers that share a weight share its panels.
      let parts = quantized[weight] ?? addConstants(for: weight, groups, of: node, role, to: &graph)
      quantized[weight] = parts
      graph.nodes[position].op = .quantizedLinear(
        QuantizedLinear(
          panels: parts[0], scales: parts[1], sums: parts[2], bias: bias, inputs: shape[1], outputs: shape[0],
          groups: groups))
      statistics.rewrites += 1
    }
    guard statistics.rewrites > 0 else {
      throw PassError(
        .notApplicable, "no linear layer of the roles \(roles.map(\.rawValue).sorted().joined(separator: ", "))",
        expected: "a floating-point model", remedy: "quantize the original checkpoint, not an int8 artifact")
    }
    graph.removeDeadCode()
    // A bias behind its matrix comes out of the same reading of the weights.
    graph.orderConstantsByUse()
    return statistics
  }

  /// Adds panels, scales and sums of a weight.
  private func addConstants(
    for weight: ConstantID, _ groups: Int, of node: Node, _ role: Role, to graph: inout Graph
  ) -> [ConstantID] {
    let matrix = QuantizedMatrix(graph[weight].data, groups: groups)
    let base = graph[weight].name
    let parts: [(String, QuantizedMatrix.Component)] = [(".int8", .panels), (".scale", .scales), (".sum", .sums)]
    return parts.map { suffix, component in
      graph.addConstant(
        Constant(name: base + suffix, role: role, modality: node.modality, data: .quantized(matrix, component)))
    }
  }
}
