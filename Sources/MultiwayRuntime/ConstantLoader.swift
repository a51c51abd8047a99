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
  private var materializer = Materializer(discardsSources: false)

  init(_ graph: Graph) { self.graph = graph }

  /// A vector or table in fp32.
  mutating func vector(_ id: ConstantID) throws -> TensorBytes {
    let data = graph[id].data
    guard data.dtype == .f32 else { return TensorBytes(copying: try materializer.floats(of: data)) }
    return aligned(try materializer.bytes(of: data), to: 4)
  }

  /// A matrix in a type that the kernels decode.
  mutating func matrix(_ id: ConstantID) throws -> FloatWeights {
    let data = graph[id].data
    let shape = data.shape
    if let type = WeightType(data.dtype) {
      return FloatWeights(
        outputs: shape[0], inputs: shape[1], bytes: try materializer.bytes(of: data), type: type)
    }
    let floats = TensorBytes(copying: try materializer.floats(of: data))
    return FloatWeights(outputs: shape[0], inputs: shape[1], bytes: floats, type: .f32)
  }

  /// The panels of an int8 layer.
  mutating func int8(_ linear: QuantizedLinear) throws -> Int8Weights {
    let panels = try materializer.bytes(of: graph[linear.panels].data)
    let scales = try materializer.bytes(of: graph[linear.scales].data)
    let sums = try materializer.bytes(of: graph[linear.sums].data)
    return Int8Weights(
      outputs: linear.outputs, inputs: linear.inputs, panels: aligned(panels, to: 64), scales: aligned(scales, to: 4),
      sums: aligned(sums, to: 4))
  }

  mutating func norm(_ weight: ConstantID?, _ bias: ConstantID?, _ epsilon: Float) throws -> NormConstants {
    NormConstants(
      weight: try weight.map { try vector($0) }, bias: try bias.map { try vector($0) }, epsilon: epsilon)
  }

  private func aligned(_ bytes: TensorBytes, to alignment: Int) -> TensorBytes {
    bytes.isAligned(to: alignment) ? bytes : TensorBytes(copying: bytes.span)
  }
}
