public import MultiwayCore
public import MultiwayGraph

/// Stores matrices and tables in a 16-bit type; vectors (biases, norms, scales) and the tables of relative positions stay fp32, as they
/// are small and add error to all.
///
///     w: f32[768, 768]     │   w: f16[768, 768]
public struct CastStorage: Pass {
  /// The pass's name.
  public static let name = "cast-storage"
  /// What it does.
  public static let summary = "stores matrices in fp16 or bf16"

  /// f32, f16 or bf16.
  public var dtype: DType
  /// The roles to cast; nil for all.
  public var roles: Set<Role>?

  /// True where matrices in blocks stay in them.
  public var keepsBlocks: Bool

  /// Makes the pass.
  public init(_ dtype: DType, roles: Set<Role>? = nil, keepsBlocks: Bool = false) {
    self.dtype = dtype
    self.roles = roles
    self.keepsBlocks = keepsBlocks
  }

  /// Casts every floating-point matrix of the roles.
  public func run(on graph: inout Graph) -> PassStatistics {
    var statistics = PassStatistics()
    // The scales of int8 layers have two dimensions too, but are no matrices of the model.
    let scales = Set(
      graph.nodes.compactMap { node -> ConstantID? in
        if case .quantizedLinear(let linear) = node.op { return linear.scales }
        return nil
      })
    for index in graph.constants.indices {
      let constant = graph.constants[index]
      guard constant.data.shape.rank == 2, constant.role != .relativePositionBias, !scales.contains(ConstantID(index)),
        constant.data.dtype.isFloatingPoint,
        constant.data.dtype != dtype || constant.data.encoded != nil,
        !(keepsBlocks && constant.data.encoded != nil),
        roles?.contains(constant.role) ?? true
      else { continue }
      graph.constants[index].data = .cast(constant.data, dtype)
      statistics.rewrites += 1
    }
    return statistics
  }
}
