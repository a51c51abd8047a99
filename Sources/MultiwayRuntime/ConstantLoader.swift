import MultiwayCore
import MultiwayGraph
import MultiwayKernels
import MultiwayQuantization

/// The constants of a LayerNorm.
struct NormConstants: Sendable {
  var weight: TensorBytes?
  var bias: TensorBytes?
  var epsilon: Float
}

/// Loads constants as the kernels take them: in place where the file holds them so, computed once otherwise.
struct ConstantLoader {
  private let graph: Graph
  private let releasesWeights: Bool
  private var materializer: Materializer
  /// Biases that several layers share are loaded once.
  private var biases: [RelativeBias: AttentionBias] = [:]

  init(_ graph: Graph, releasesWeights: Bool) {
    self.graph = graph
    self.releasesWeights = releasesWeights
    materializer = Materializer(discardsSources: releasesWeights)
  }

  /// The bytes of a constant. Checking them may have touched every page, which then need not stay.
  private mutating func bytes(of data: TensorExpression) throws -> TensorBytes {
    let bytes = try materializer.bytes(of: data)
    if releasesWeights { for source in data.sources { source.discard() } }
    return bytes
  }

  /// A vector or table in fp32.
  mutating func vector(_ id: ConstantID) throws -> TensorBytes {
    let data = graph[id].data
    guard data.dtype == .f32 else { return TensorBytes(copying: try materializer.floats(of: data)) }
    return aligned(try bytes(of: data), to: 4)
  }

  /// A matrix in a type that the kernels decode.
  mutating func matrix(_ id: ConstantID) throws -> FloatWeights {
    let data = graph[id].data
    let shape = data.shape
    if let type = WeightType(data.dtype) {
      return FloatWeights(
        outputs: shape[0], inputs: shape[1], bytes: try bytes(of: data), type: type)
    }
    let floats = TensorBytes(copying: try materializer.floats(of: data))
    return FloatWeights(outputs: shape[0], inputs: shape[1], bytes: floats, type: .f32)
  }

  /// A matrix in the blocks that it is stored in, nil where it is not.
  mutating func blocks(_ id: ConstantID) throws -> BlockWeights? {
    guard let (block, data) = graph[id].data.encoded, let type = BlockWeightType(block) else { return nil }
    let shape = graph[id].data.shape
    return BlockWeights(outputs: shape[0], inputs: shape[1], bytes: try bytes(of: data), type: type)
  }

  /// A matrix rounded to bfloat16 and packed. The pages that it came from are let go: nothing reads them again.
  mutating func bfloat16(_ id: ConstantID, _ context: KernelContext) throws -> BFloat16Weights {
    let (weights, overflows) = context.bfloat16Weights(try matrix(id))
    guard overflows == 0 else {
      throw RuntimeError(
        .unsupported, "\(overflows) weights are too large for bfloat16", expected: "at most 3.39e38",
        remedy: "compute in f32", tensor: graph[id].data.sources.first?.name)
    }
    for source in graph[id].data.sources { source.discard() }
    return weights
  }

  /// The panels of an int8 layer.
  mutating func int8(_ linear: QuantizedLinear) throws -> Int8Weights {
    let panels = try bytes(of: graph[linear.panels].data)
    let scales = try bytes(of: graph[linear.scales].data)
    let sums = try bytes(of: graph[linear.sums].data)
    return Int8Weights(
      outputs: linear.outputs, inputs: linear.inputs, groups: linear.groups, panels: aligned(panels, to: 64),
      scales: aligned(scales, to: 4),
      sums: aligned(sums, to: 4))
  }

  mutating func norm(_ weight: ConstantID?, _ bias: ConstantID?, _ epsilon: Float) throws -> NormConstants {
    NormConstants(
      weight: try weight.map { try vector($0) }, bias: try bias.map { try vector($0) }, epsilon: epsilon)
  }

  mutating func bias(_ bias: RelativeBias) throws -> AttentionBias {
    if let loaded = biases[bias] { return loaded }
    let (table, index) = (graph[bias.table].data, graph[bias.index].data)
    let numbers = TensorBytes(copying: try materializer.biasTable(of: table))
    let places = try materializer.biasIndex(of: index, rows: table.shape[0])
    let loaded = AttentionBias(
      table: numbers, rows: table.shape[0], index: aligned(places, to: 2), tokens: index.shape[0])
    biases[bias] = loaded
    return loaded
  }

  private func aligned(_ bytes: TensorBytes, to alignment: Int) -> TensorBytes {
    bytes.isAligned(to: alignment) ? bytes : TensorBytes(copying: bytes.span)
  }
}
