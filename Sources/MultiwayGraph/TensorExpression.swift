public import MultiwayCore

/// How a constant's elements come about: a stored tensor, or arithmetic on others that is done only when the constant is
/// written or loaded. So passes rewrite a model of any size without touching a weight, and one tensor is in memory at a time.
public indirect enum TensorExpression: Sendable {
  /// A tensor of a checkpoint or an artifact.
  case stored(StoredTensor)
  /// The same elements under another shape.
  case reshaped(TensorExpression, Shape)
  /// The axes in another order: axis `i` of the result is axis `axes[i]` of the source. Transposes a matrix with [1, 0].
  case permuted(TensorExpression, axes: [Int])
  /// A range of the first axis.
  case rows(TensorExpression, Range<Int>)
  /// The rows of several tensors after one another; all of one dtype, or fp32 where they differ.
  case joinedRows([TensorExpression])
  /// The sum of two tensors of one shape, in fp32.
  case sum(TensorExpression, TensorExpression)
  /// A table [rows, …] of another size.
  case resampled(TensorExpression, Resampling)
  /// Every element times a number.
  case scaled(TensorExpression, by: Float)
  /// A range of the second axis of a matrix.
  case columns(TensorExpression, Range<Int>)
  /// A matrix [out, in] with column `k` times `scales[k]`: W·diag(γ).
  case columnsScaled(TensorExpression, by: TensorExpression)
  /// A matrix [out, in] or a vector [out] with row `i` times `scales[i]`: diag(γ)·W.
  case rowsScaled(TensorExpression, by: TensorExpression)
  /// `bias + weight · shift` for a matrix [out, in], a shift [in] and a bias [out] (zero where nil).
  case shiftedBias(TensorExpression?, weight: TensorExpression, shift: TensorExpression)
  /// The factor of each channel that a batch normalization comes down to in inference, [channels].
  case batchNormScale(BatchNorm)
  /// What it adds to each channel, [channels]. The bias is that of the layer before; zero where nil.
  case batchNormShift(BatchNorm, bias: TensorExpression?)
  /// The elements in another dtype, rounded to nearest even.
  case cast(TensorExpression, DType)
  /// The fp32 numbers that a matrix's blocks stand for; its rows fill whole ones.
  case blocks(TensorExpression, BlockType)
  /// Those blocks, u8 [rows, bytes of a row].
  case blockBytes(TensorExpression, BlockType)
  /// One of the tensors that a matrix is quantized into.
  case quantized(QuantizedMatrix, QuantizedMatrix.Component)
}

/// A batch normalization in inference, (x − mean) / √(variance + ε) · weight + bias with four vectors [channels]. It comes down to a
/// factor and a sum for each channel, which are computed in double precision and then rounded.
public struct BatchNorm: Sendable {
  /// The learned factors.
  public var weight: TensorExpression
  /// The learned offsets.
  public var bias: TensorExpression
  /// The means of the training data.
  public var mean: TensorExpression
  /// Their variances.
  public var variance: TensorExpression
  /// What keeps the variances from zero.
  public var epsilon: Float

  /// Names the vectors.
  public init(
    weight: TensorExpression, bias: TensorExpression, mean: TensorExpression, variance: TensorExpression, epsilon: Float
  ) {
    self.weight = weight
    self.bias = bias
    self.mean = mean
    self.variance = variance
    self.epsilon = epsilon
  }

  var sources: [StoredTensor] { weight.sources + bias.sources + mean.sources + variance.sources }
}

/// A matrix [out, in] on its way to int8. The three tensors that come of it share this one object, so that the work is done once.
public final class QuantizedMatrix: Sendable {
  /// The tensors that a matrix is quantized into.
  public enum Component: String, CaseIterable, Sendable {
    /// Int8 values in panels [⌈out/64⌉, ⌈in/4⌉, 64, 4], padded with zeros.
    case panels
    /// One fp32 scale for each group of inputs and output channel, [groups, out].
    case scales
    /// The sums of int8 values, int32 [groups, out]: what the zero points of the activations are multiplied with.
    case sums
  }

  /// The number of outputs in a panel.
  public static let panelOutputs = 64
  /// The number of consecutive inputs that lie together for one output.
  public static let panelInputs = 4

  /// The matrix, in a floating-point dtype.
  public let weight: TensorExpression
  /// The number of runs of equal length that the inputs are cut into.
  public let groups: Int

  /// Describes the quantization of `weight`.
  public init(_ weight: TensorExpression, groups: Int = 1) {
    self.weight = weight
    self.groups = groups
  }

  /// A group's longest length. Short groups follow the spread of the channels more closely and cost time; this length, the width of base,
  /// costs less than a twentieth.
  public static let longestGroup = 768

  /// The number of groups for a matrix of so many inputs: the least whose equal lengths are multiples of 4 and not too long; 1 where
  /// there is no such number.
  public static func groupCount(inputs: Int) -> Int {
    guard inputs > longestGroup else { return 1 }
    let least = (inputs + longestGroup - 1) / longestGroup
    return (least..<least * 4).first { inputs % $0 == 0 && inputs / $0 % panelInputs == 0 } ?? 1
  }

  /// The shape of the panels of a matrix [outputs, inputs].
  public static func panelShape(outputs: Int, inputs: Int) -> Shape {
    [
      (outputs + panelOutputs - 1) / panelOutputs, (inputs + panelInputs - 1) / panelInputs, panelOutputs, panelInputs,
    ]
  }
}

extension TensorExpression {
  /// The shape of the elements.
  public var shape: Shape {
    switch self {
    case .stored(let tensor): tensor.shape
    case .reshaped(_, let shape): shape
    case .permuted(let source, let axes): Shape(axes.map { source.shape[$0] })
    case .rows(let source, let range): Shape([range.count] + source.shape.dimensions.dropFirst())
    case .columns(let source, let range): [source.shape[0], range.count]
    case .joinedRows(let parts):
      Shape([parts.reduce(0) { $0 + $1.shape[0] }] + (parts.first?.shape.dimensions.dropFirst() ?? []))
    case .resampled(let source, let resampling): Shape([resampling.rows] + source.shape.dimensions.dropFirst())
    case .scaled(let source, _), .columnsScaled(let source, _), .rowsScaled(let source, _), .cast(let source, _),
      .sum(let source, _), .blocks(let source, _):
      source.shape
    case .blockBytes(let source, let type): type.byteShape(of: source.shape) ?? source.shape
    case .shiftedBias(_, let weight, _): [weight.shape[0]]
    case .batchNormScale(let norm), .batchNormShift(let norm, _): norm.weight.shape
    case .quantized(let matrix, .panels):
      QuantizedMatrix.panelShape(outputs: matrix.weight.shape[0], inputs: matrix.weight.shape[1])
    case .quantized(let matrix, .scales), .quantized(let matrix, .sums): [matrix.groups, matrix.weight.shape[0]]
    }
  }

  /// The element type.
  public var dtype: DType {
    switch self {
    case .stored(let tensor): tensor.dtype
    case .reshaped(let source, _), .permuted(let source, _), .rows(let source, _), .columns(let source, _): source.dtype
    case .joinedRows(let parts): Set(parts.map(\.dtype)).count == 1 ? parts[0].dtype : .f32
    case .scaled, .columnsScaled, .rowsScaled, .shiftedBias, .sum, .resampled, .batchNormScale, .batchNormShift,
      .blocks:
      .f32
    case .blockBytes: .u8
    case .cast(_, let dtype): dtype
    case .quantized(_, .panels): .i8
    case .quantized(_, .scales): .f32
    case .quantized(_, .sums): .i32
    }
  }

  /// The stored tensors that the elements are computed from.
  public var sources: [StoredTensor] {
    switch self {
    case .stored(let tensor): [tensor]
    case .reshaped(let source, _), .permuted(let source, _), .rows(let source, _), .columns(let source, _),
      .scaled(let source, _), .cast(let source, _), .resampled(let source, _), .blocks(let source, _),
      .blockBytes(let source, _):
      source.sources
    case .joinedRows(let parts): parts.flatMap(\.sources)
    case .sum(let left, let right): left.sources + right.sources
    case .columnsScaled(let source, let scales), .rowsScaled(let source, let scales): source.sources + scales.sources
    case .shiftedBias(let bias, let weight, let shift): (bias?.sources ?? []) + weight.sources + shift.sources
    case .batchNormScale(let norm): norm.sources
    case .batchNormShift(let norm, let bias): norm.sources + (bias?.sources ?? [])
    case .quantized(let matrix, _): matrix.weight.sources
    }
  }
}

extension TensorExpression {
  /// The blocks of a matrix that is stored in such as kernels compute with, or shall be; nil for any other tensor.
  public var encoded: (type: BlockType, bytes: TensorExpression)? {
    switch self {
    case .blocks(let source, let type): return (type, .blockBytes(source, type))
    case .stored(let tensor):
      guard tensor.shape.rank == 2, let (type, bytes) = tensor.blocks, type.isComputed else { return nil }
      return (type, .stored(bytes))
    default: return nil
    }
  }

  /// What a file calls the type of the elements: `q8_0` where they are stored in blocks, the dtype's name elsewhere.
  public var typeName: String { encoded?.type.rawValue ?? dtype.shortName }
}
