import MultiwayCheckpoint
import MultiwayCore

/// The families that share the vision transformer's graph.
enum VisionFamily: String, Sendable {
  /// BEiT v1 and v2: relative position bias, layer scale, no key bias.
  case beit
  /// The plain vision transformer: absolute positions, biases everywhere.
  case vit
  /// Data2VecVision: BEiT's graph under keys of its own.
  case data2vec = "data2vec_vision"

  var title: String {
    switch self {
    case .beit: "BEiT"
    case .vit: "ViT"
    case .data2vec: "Data2VecVision"
    }
  }
}

/// The sizes and options of a vision transformer, found from its keys and shapes.
struct VisionConfiguration: Sendable, TransformerSizes {
  var family: VisionFamily
  var keyMap: KeyMap
  var depth: Int
  var width: Int
  var heads: Int
  var feedForwardWidth: Int
  var channels: Int
  var patchSize: Int
  /// Patches along a side of the square image of the checkpoint.
  var gridSize: Int
  /// Patches along a side of the square image of the graph: another number where a size was asked for.
  var targetGridSize: Int
  var epsilon: Float
  /// Absolute positions; `positionsSkipClass` where the class token has none (DeiT-3).
  var hasPositions: Bool
  var positionsSkipClass = false
  var hasSharedBias: Bool
  var hasLayerBias: Bool
  var hasLayerScale: Bool
  var hasQueryBias: Bool
  var hasKeyBias: Bool
  /// LayerNorm at the encoder's end.
  var hasFinalNorm: Bool
  /// LayerNorm of the mean over the patches.
  var hasPooledNorm: Bool
  /// The decoder of semantic segmentation, where the file has one.
  var decoder: UperNetConfiguration?
  var assumptions: [String]

  var imageSize: Int { targetGridSize * patchSize }
  var headSize: Int { width / heads }

  /// Rows of a relative position bias table: a window of (2G − 1)², and three for the class token.
  static func relativeRows(grid: Int) -> Int { (2 * grid - 1) * (2 * grid - 1) + 3 }

  init(
    _ tensors: [StoredTensor], family: VisionFamily, keyMap: KeyMap, checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) {
    let sizes = SizeFinder(tensors, keyMap: keyMap, file: checkpoint.path)
    self.family = family
    self.keyMap = keyMap
    let patch = try sizes.require("vision.patches.weight", rank: 4)
    guard patch[2] == patch[3] else { throw sizes.failure("vision.patches.weight", patch, "square patches") }
    (width, channels, patchSize) = (patch[0], patch[1], patch[2])
    feedForwardWidth = try sizes.require("layers.0.vision.feed_forward_in.weight", rank: 2)[0]
    depth = sizes.layerCount()
    hasPositions = sizes.has("vision.positions")
    hasSharedBias = sizes.has("vision.relative_bias.table")
    hasLayerBias = sizes.has("layers.0.vision.relative_bias.table")
    hasLayerScale = sizes.has("layers.0.vision.attention_scale")
    hasQueryBias = sizes.has("layers.0.vision.query.bias")
    hasKeyBias = sizes.has("layers.0.vision.key.bias")
    hasFinalNorm = sizes.has("vision.final_norm.weight")
    hasPooledNorm = sizes.has("fc_norm.weight")
    assumptions = []
    (gridSize, positionsSkipClass) = try VisionConfiguration.grid(
      sizes, hasPositions: hasPositions, hasBias: hasSharedBias || hasLayerBias, file: checkpoint.path)
    (targetGridSize, heads, epsilon) = (gridSize, 1, 0)
    try findHeads(sizes, checkpoint: checkpoint, options: options)
    findEpsilon(checkpoint.metadata)
    if let size = options.imageSize { targetGridSize = try grid(imageSize: size, file: checkpoint.path) }
    decoder = try UperNetConfiguration(
      sizes, width: width, depth: depth, layout: keyMap.layout, checkpoint: checkpoint, options: options)
    assumptions += decoder?.assumptions ?? []
  }

  /// One layer with every option, every size 1: for its keys alone.
  init(smallest family: VisionFamily, keyMap: KeyMap) {
    self.family = family
    self.keyMap = keyMap
    (depth, width, heads, feedForwardWidth, channels, patchSize, gridSize, targetGridSize) = (1, 1, 1, 1, 1, 1, 1, 1)
    (epsilon, assumptions) = (1e-6, [])
    decoder = family != .vit && keyMap.layout != "timm" ? .smallest : nil
    (hasPositions, hasQueryBias, hasKeyBias, hasFinalNorm, hasPooledNorm) = (true, true, family == .vit, true, true)
    (hasSharedBias, hasLayerBias, hasLayerScale) = (family != .vit, family != .vit, family != .vit)
  }

  /// The grid of patches, which the position table and the bias tables tell.
  private static func grid(
    _ sizes: SizeFinder, hasPositions: Bool, hasBias: Bool, file: String
  ) throws(ModelError) -> (grid: Int, skipsClass: Bool) {
    if hasPositions {
      let shape = try sizes.require("vision.positions", rank: 3)
      let root = Int(Double(shape[1]).squareRoot().rounded())
      if root * root == shape[1] { return (root, true) }
      return (try sizes.gridSize("vision.positions", rows: shape[1], extra: 1), false)
    }
    guard hasBias else {
      throw ModelError(
        .keysDoNotFit, "neither positions nor relative position biases, which tell the size of the image", file: file)
    }
    let name =
      sizes.has("vision.relative_bias.table") ? "vision.relative_bias.table" : "layers.0.vision.relative_bias.table"
    let shape = try sizes.require(name, rank: 2)
    let window = try sizes.gridSize(name, rows: shape[0], extra: 3)
    guard window % 2 == 1 else { throw sizes.failure(name, shape, "(2 · grid − 1)² + 3 rows") }
    return ((window + 1) / 2, false)
  }

  private mutating func findHeads(
    _ sizes: SizeFinder, checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) {
    let table = sizes["layers.0.vision.relative_bias.table"] ?? sizes["vision.relative_bias.table"]
    guard let columns = table?.last, columns > 0, width % columns == 0 else {
      (heads, assumptions) = try HeadCount.find(
        width: width, metadata: checkpoint.metadata, options: options, file: checkpoint.path)
      return
    }
    heads = columns
  }

  /// ε is 1e-6 in unilm and timm; transformers takes what the configuration says, and 1e-12 where it says nothing.
  private mutating func findEpsilon(_ metadata: JSONObject) {
    if let stated = RecordedValue.number("layer_norm_eps", in: metadata), stated > 0, stated < 1 {
      epsilon = Float(stated)
      return
    }
    epsilon = keyMap.layout == "huggingface" ? 1e-12 : 1e-6
    if keyMap.layout == "huggingface" {
      assumptions.append("ε of 1e-12 in every LayerNorm, as transformers has it where no config.json says otherwise")
    }
  }

  /// `BEiT base, patch 16, 224×224`.
  var summary: String {
    let size: String =
      switch (depth, width) {
      case (12, 192): " tiny"
      case (12, 384): " small"
      case (12, 768): " base"
      case (24, 1024): " large"
      case (32, 1280): " huge"
      default: " of \(depth) layers, width \(width)"
      }
    return "\(family.title)\(size), patch \(patchSize), \(imageSize)×\(imageSize)"
  }

  var hyperparameters: [(name: String, value: HyperparameterValue)] {
    commonHyperparameters
  }
}
