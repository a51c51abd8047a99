/// An operation of the graph. `MultiwayReference` defines what each one computes; the docstrings say it in short.
///
/// Activations are fp32, token streams have the shape [batch, tokens, width], and every op keeps its input's leading
/// dimensions unless it says otherwise.
public enum Op: Hashable, Sendable {
  /// Cuts an image [N, C, H, W] into patches [N, (H/p)·(W/p), C·p·p], row by row; inside a patch channel, row, column.
  case patchify(size: Int)
  /// Looks up rows of a table [rows, width] by token ids [N, T].
  case embedding(table: ConstantID)
  /// Puts a learned token [width] before the first token.
  case prependToken(ConstantID)
  /// Adds row `t + firstRow` of a table [rows, width] to token `t`.
  case addPositions(table: ConstantID, firstRow: Int)
  /// Makes the tokens zero whose padding mask [N, T] is 1. Inputs: tokens, mask.
  case zeroPadding
  /// LayerNorm over the last axis with biased variance: (x − mean) / √(variance + ε) · weight + bias.
  case layerNorm(weight: ConstantID?, bias: ConstantID?, epsilon: Float)
  /// x · weightᵀ + bias with weight [out, in] in fp32, fp16 or bf16; sums in fp32.
  case linear(weight: ConstantID, bias: ConstantID?)
  /// A linear layer with int8 weights and activations that are quantized per token as they come (Docs/Numerics.md).
  case quantizedLinear(QuantizedLinear)
  /// x · factor.
  case scale(by: Float)
  /// x · γ over the last axis, γ [width]: layer scale.
  case scaleChannels(ConstantID)
  /// GELU with the exact error function.
  case gelu
  /// Hyperbolic tangent.
  case tanh
  /// The larger of x and 0.
  case relu
  /// Sum of two values of the same shape.
  case add
  /// Softmax attention over the joint sequence of all streams.
  case attention(Attention)
  /// The mean over the tokens from `first` on: [N, T, width] → [N, width].
  case meanTokens(first: Int)
  /// One token: [N, T, width] → [N, width].
  case selectToken(Int)
  /// The tokens from `first` on: [N, T, width] → [N, T − first, width].
  case dropTokens(first: Int)
  /// The tokens of all inputs after one another.
  case joinTokens
  /// The channels of all inputs, which have the same tokens, after one another: [N, T, width] each, or [N, width].
  case joinChannels
  /// x / max(‖x‖₂, 1e-12) over the last axis.
  case normalizeL2
  /// An operation on a stream that is a feature map of that many rows and columns.
  case featureMap(FeatureMapOp, Grid)
}

/// The constants of a linear layer in int8.
public struct QuantizedLinear: Hashable, Sendable {
  /// Int8 panels [⌈out/64⌉, ⌈in/4⌉, 64, 4].
  public var panels: ConstantID
  /// fp32 scales [groups, out].
  public var scales: ConstantID
  /// int32 sums [groups, out].
  public var sums: ConstantID
  /// fp32 bias [out].
  public var bias: ConstantID?
  /// The number of inputs; the panels alone do not tell it from its padding.
  public var inputs: Int
  /// The number of outputs.
  public var outputs: Int
  /// The number of runs of equal length that the inputs are cut into, each with scales of its own.
  public var groups: Int

  /// Names the constants.
  public init(
    panels: ConstantID, scales: ConstantID, sums: ConstantID, bias: ConstantID?, inputs: Int, outputs: Int,
    groups: Int = 1
  ) {
    self.panels = panels
    self.scales = scales
    self.sums = sums
    self.bias = bias
    self.inputs = inputs
    self.outputs = outputs
    self.groups = groups
  }
}

extension Op {
  /// The name that the printer and the artifact use.
  public var name: String {
    switch self {
    case .patchify: "patchify"
    case .embedding: "embedding"
    case .prependToken: "prepend_token"
    case .addPositions: "add_positions"
    case .zeroPadding: "zero_padding"
    case .layerNorm: "layer_norm"
    case .linear: "linear"
    case .quantizedLinear: "quantized_linear"
    case .scale: "scale"
    case .scaleChannels: "scale_channels"
    case .gelu: "gelu"
    case .tanh: "tanh"
    case .relu: "relu"
    case .add: "add"
    case .attention: "attention"
    case .meanTokens: "mean_tokens"
    case .selectToken: "select_token"
    case .dropTokens: "drop_tokens"
    case .joinTokens: "join_tokens"
    case .joinChannels: "join_channels"
    case .normalizeL2: "normalize_l2"
    case .featureMap(let op, _): op.name
    }
  }

  /// How many values the op reads.
  var inputCounts: ClosedRange<Int> {
    switch self {
    case .zeroPadding, .add: 2...2
    case .attention(let attention):
      3...(Attention.maximumMemories * 2 + Attention.maximumStreams * 3 + (attention.isPadded ? 1 : 0))
    case .joinTokens, .joinChannels: 2...8
    default: 1...1
    }
  }

  /// The constants that the op reads, by the name of their place.
  public var constants: [(place: String, id: ConstantID)] {
    let places: [(String, ConstantID?)] =
      switch self {
      case .embedding(let table), .addPositions(let table, _): [("table", table)]
      case .prependToken(let token): [("token", token)]
      case .scaleChannels(let factors): [("factors", factors)]
      case .attention(let attention): [("bias_table", attention.bias?.table), ("bias_index", attention.bias?.index)]
      case .layerNorm(let weight, let bias, _): [("weight", weight), ("bias", bias)]
      case .linear(let weight, let bias): [("weight", weight), ("bias", bias)]
      case .quantizedLinear(let linear):
        [("panels", linear.panels), ("scales", linear.scales), ("sums", linear.sums), ("bias", linear.bias)]
      case .featureMap(let op, _): op.constants
      default: []
      }
    return places.compactMap { place, id in id.map { (place, $0) } }
  }

  /// The op with every constant replaced by what `transform` makes of it.
  public func mappingConstants(_ transform: (ConstantID) -> ConstantID) -> Op {
    switch self {
    case .embedding(let table): .embedding(table: transform(table))
    case .addPositions(let table, let firstRow): .addPositions(table: transform(table), firstRow: firstRow)
    case .prependToken(let token): .prependToken(transform(token))
    case .scaleChannels(let factors): .scaleChannels(transform(factors))
    case .attention(let attention): .attention(attention.mappingConstants(transform))
    case .layerNorm(let weight, let bias, let epsilon):
      .layerNorm(weight: weight.map(transform), bias: bias.map(transform), epsilon: epsilon)
    case .linear(let weight, let bias): .linear(weight: transform(weight), bias: bias.map(transform))
    case .quantizedLinear(let linear):
      .quantizedLinear(
        QuantizedLinear(
          panels: transform(linear.panels), scales: transform(linear.scales), sums: transform(linear.sums),
          bias: linear.bias.map(transform), inputs: linear.inputs, outputs: linear.outputs, groups: linear.groups))
    case .featureMap(let op, let grid): .featureMap(op.mappingConstants(transform), grid)
    default: self
    }
  }
}
