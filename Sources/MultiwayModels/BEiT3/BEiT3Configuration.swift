import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph

/// The sizes of a BEiT-3, all found from the shapes of its tensors but for the number of heads.
struct BEiT3Configuration: Sendable, TransformerSizes {
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
  var vocabularySize: Int
  /// The number of text tokens that have positions.
  var textTokens: Int
  var assumptions: [String]

  /// ε of every LayerNorm, from torchscale's `EncoderConfig` as the released models use it.
  let epsilon: Float = 1e-5
  /// Positions start at row 2 of unilm's tables, a habit of fairseq: rows 0 and 1 are never read.
  static let unreadPositionRows = 2

  var imageSize: Int { targetGridSize * patchSize }
  /// Tokens of an image of the checkpoint's size: the patches and the class token.
  var storedVisionTokens: Int { gridSize * gridSize + 1 }
  var headSize: Int { width / heads }

  /// What stands before the backbone's keys: `beit3.` in released files.
  var prefix: String {
    let key = keyMap.key("vision.patches.weight") ?? ""
    for ending in ["vision_embed.proj.weight", "patch_embed.proj.weight"] where key.hasSuffix(ending) {
      return String(key.dropLast(ending.count))
    }
    return ""
  }

  /// The parameters with the positions of the image size that was asked for. unilm and timm resize differently.
  func resized(_ parameters: BoundParameters) -> BoundParameters {
    guard targetGridSize != gridSize else { return parameters }
    return parameters.resized(
      from: gridSize, to: targetGridSize, positions: keyMap.layout == "timm" ? .bicubicAntialiased : .bicubic,
      leadingRows: 1, tables: .geometricLinear)
  }

  init(
    _ tensors: [StoredTensor], keyMap: KeyMap, checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) {
    let sizes = SizeFinder(tensors, keyMap: keyMap, file: checkpoint.path)
    self.keyMap = keyMap
    let patch = try sizes.require("vision.patches.weight", rank: 4)
    guard patch[2] == patch[3] else { throw sizes.failure("vision.patches.weight", patch, "square patches") }
    (width, channels, patchSize) = (patch[0], patch[1], patch[2])
    gridSize = try BEiT3Configuration.grid(sizes)
    feedForwardWidth = try sizes.require("layers.0.vision.feed_forward_in.weight", rank: 2)[0]
    depth = sizes.layerCount()
    vocabularySize = sizes["text.embedding.weight"]?[0] ?? 0
    let textPositions = sizes["text.positions"]
    textTokens = max(0, (textPositions?[0] ?? 0) - BEiT3Configuration.unreadPositionRows)
    if let textPositions, textTokens == 0 { throw sizes.failure("text.positions", textPositions, "at least 3 rows") }
    (heads, assumptions) = try HeadCount.find(
      width: width, metadata: checkpoint.metadata, options: options, file: checkpoint.path)
    targetGridSize = gridSize
    if let size = options.imageSize { targetGridSize = try grid(imageSize: size, file: checkpoint.path) }
  }

  /// One layer, every size 1: for its keys alone.
  init(smallest keyMap: KeyMap) {
    self.keyMap = keyMap
    (depth, width, heads, feedForwardWidth, channels, patchSize, gridSize, targetGridSize) = (1, 1, 1, 1, 1, 1, 1, 1)
    (vocabularySize, textTokens, assumptions) = (1, 1, [])
  }

  /// Patches along a side: unilm's table has two rows that nothing reads and one for the class token before those of the patches, timm's
  /// only the latter.
  private static func grid(_ sizes: SizeFinder) throws(ModelError) -> Int {
    let isTimm = sizes["vision.positions"]?.rank == 3
    let shape = try sizes.require("vision.positions", rank: isTimm ? 3 : 2)
    return try isTimm
      ? sizes.gridSize("vision.positions", rows: shape[1], extra: 1)
      : sizes.gridSize("vision.positions", rows: shape[0], extra: unreadPositionRows + 1)
  }

  /// `BEiT-3 base, patch 16, 224×224`.
  var summary: String {
    let size: String =
      switch (depth, width) {
      case (12, 768): "base"
      case (24, 1024): "large"
      case (40, 1408): "giant"
      default: "of \(depth) layers, width \(width)"
      }
    return "BEiT-3 \(size), patch \(patchSize), \(imageSize)×\(imageSize)"
  }

  var hyperparameters: [(name: String, value: HyperparameterValue)] {
    commonHyperparameters + (vocabularySize > 0 ? [("text.vocabulary_size", .integer(vocabularySize))] : [])
      + (textTokens > 0 ? [("text.context_length", .integer(textTokens))] : [])
  }
}
