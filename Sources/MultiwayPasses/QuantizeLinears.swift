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

  /// The roles of the layers to quantize.
  public var roles: Set<Role>

  /// Makes the pass.
  public init(roles: Set<Role>) { self.roles = roles }

  /// Quantizes every linear layer of the roles.
  public func run(on graph: inout Graph) throws(PassError) -> PassStatistics {
    var statistics = PassStatistics()
    for position in graph.nodes.indices {
      let node = graph.nodes[position]
      guard case .linear(let weight, let bias) = node.op, let role = node.role, roles.contains(role) else { continue }
      let shape = graph[weight].data.shape
      let groups = QuantizedMatrix.groupCount(inputs: shape[1])
      // Longer groups could overflow their int32 sums.
      guard shape[1] / groups <= 65536 else { continue }
      let matrix = QuantizedMatrix(graph[weight].data, groups: groups)
      let base = graph[weight].name
      func constant(_ suffix: String, _ component: QuantizedMatrix.Component) -> ConstantID {
        graph.addConstant(
          Constant(
            name: base + suffix, role: role, modality: node.modality, data: .quantized(matrix, component)))
      }
      graph.nodes[position].op = .quantizedLinear(
        QuantizedLinear(
          panels: constant(".int8", .panels), scales: constant(".scale", .scales), sums: constant(".sum", .sums),
          bias: bias, inputs: shape[1], outputs: shape[0], groups: groups))
      statistics.rewrites += 1
    }
    guard statistics.rewrites > 0 else {
      throw PassError(
        .notApplicable, "no linear layer of the roles \(roles.map(\.rawValue).sorted().joined(separator: ", "))",
        expected: "a floating-point model", remedy: "quantize the original checkpoint, not an int8 artifact")
    }
    graph.removeDeadCode()
    return statistics
  }
}
