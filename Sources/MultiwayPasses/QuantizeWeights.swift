public import MultiwayCore
public import MultiwayGraph

/// Stores the weights of linear layers in blocks of 8 or 4 bits; activations and sums stay fp32. What it makes smaller is what has to be
/// read: for few tokens at a time that is what takes the time.
///
///     w: f32[768, 768]     │   w: q8_0[768, 768]
///
/// A layer whose inputs do not fill whole blocks of 32 stays as it is.
public struct QuantizeWeights: Pass {
  /// The pass's name.
  public static let name = "quantize-weights"
  /// What it does.
  public static let summary = "weights in blocks of 8 or 4 bits, computed in fp32"

  /// What casts the other matrices would cast these first; what folds would round them twice.
  public static var follows: [any Pass.Type] { [FoldQueryScale.self, FoldLayerScale.self, FoldNorms.self] }

  /// q8_0, q4_0 or q4_1.
  public var type: BlockType
  /// The roles of the layers.
  public var roles: Set<Role>

  /// Makes the pass.
  public init(_ type: BlockType, roles: Set<Role>) {
    precondition(type.isComputed)
    self.type = type
    self.roles = roles
  }

  /// Encodes the weights of every linear layer of the roles, and of heads that give numbers for each token: their weights are the table
  /// of a vocabulary.
  public func run(on graph: inout Graph) throws(PassError) -> PassStatistics {
    var statistics = PassStatistics()
    // A table that something else reads too is looked up row by row.
    let others = Set(
      graph.nodes.flatMap { node -> [ConstantID] in
        if case .linear = node.op { return [] }
        return node.op.constants.map(\.id)
      })
    var (unfit, fit): ([String], Set<ConstantID>) = ([], [])
    for node in graph.nodes {
      guard case .linear(let weight, _) = node.op, let role = node.role, !others.contains(weight),
        !fit.contains(weight),
        roles.contains(role) || role == .head && graph[node.outputs[0]].type.dimensions.count == 3
      else { continue }
      fit.insert(weight)
      let data = graph[weight].data
      guard data.encoded?.type != type else { continue }
      guard type.byteShape(of: data.shape) != nil else {
        unfit.append("\(graph[weight].name) \(data.shape)")
        continue
      }
      graph.constants[weight.index].data = .blocks(data, type)
      statistics.rewrites += 1
    }
    guard !fit.isEmpty else {
      throw PassError(
        .notApplicable, "no linear layer of the roles \(roles.map(\.rawValue).sorted().joined(separator: ", "))",
        expected: "a model whose weights are floating-point",
        remedy: "quantize the original checkpoint, not an int8 artifact")
    }
    if !unfit.isEmpty {
      let list = unfit.prefix(3).joined(separator: ", ") + (unfit.count > 3 ? ", …" : "")
      statistics.notes.append(
        "\(unfit.count) of \(fit.count) matrices stay as they are, their inputs fill no whole blocks of "
          + "\(type.elementCount): \(list)")
    }
    return statistics
  }
}
