import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph

/// The sizes and options of a VLMo, found from its keys and shapes.
struct VLMoConfiguration: Sendable, TransformerSizes {
  /// What stands before `transformer.` in the keys.
  var prefix: String
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
  /// The most text tokens.
  var textTokens: Int
  /// The number of text tokens that the table of relative position biases was made for; 0 where there is none.
  var tableTextTokens: Int
  /// Token types: text, image, and for NLVR2 a second image.
  var tokenTypes: Int
  /// The first layer whose feed-forward network serves both modalities together; the depth where there is none.
  var jointStart: Int
  /// Absolute positions, as in base_plus; the other models have relative position biases instead.
  var hasPositions: Bool
  var hasLayerScale: Bool
  var hasQueryBias: Bool
  var assumptions: [String]

  /// ε of the encoder's LayerNorms.
  let epsilon: Float = 1e-6
  /// ε of the LayerNorms that come from BERT: behind the text embeddings and in the language head.
  static let bertEpsilon: Float = 1e-12
  /// ε of the LayerNorms in classifiers.
  static let classifierEpsilon: Float = 1e-5
  /// The text length that every released table was made for.
  static let releasedTableTextTokens = 196

  var imageSize: Int { targetGridSize * patchSize }
  var headSize: Int { width / heads }
  var hasRelativeBias: Bool { tableTextTokens > 0 }
  var positions: VLMoPositions {
    VLMoPositions(grid: targetGridSize, textTokens: textTokens, tableTextTokens: tableTextTokens)
  }
  /// The key layout, with the buffers that follow from the sizes.
  var keyMap: KeyMap {
    .vlmo(prefix: prefix, buffers: (hasRelativeBias ? positions.buffers : []) + (textTokens > 0 ? [textPositions] : []))
  }

  /// BERT's buffer of the places 0, 1, 2 and so on.
  private var textPositions: StoredTensor {
    StoredTensor(
      name: "text_embeddings.position_ids", dtype: .i64, shape: [1, textTokens],
      elements: (0..<textTokens).map { Int64($0) })
  }

  init(_ tensors: [StoredTensor], checkpoint: Checkpoint, options: ModelOptions) throws(ModelError) {
    prefix = VLMo.prefix(tensors) ?? ""
    let sizes = SizeFinder(tensors, keyMap: .vlmo(prefix: prefix), file: checkpoint.path)
    let patch = try sizes.require("vision.patches.weight", rank: 4)
    guard patch[2] == patch[3] else { throw sizes.failure("vision.patches.weight", patch, "square patches") }
    (width, channels, patchSize) = (patch[0], patch[1], patch[2])
    feedForwardWidth = try sizes.require("layers.0.vision.feed_forward_in.weight", rank: 2)[0]
    depth = sizes.layerCount("layers.0.attention_norm.weight")
    vocabularySize = sizes["text.embedding.weight"]?[0] ?? 0
    textTokens = sizes["text.positions.weight"]?[0] ?? 0
    tokenTypes = try sizes.require("token_types.weight", rank: 2)[0]
    let depth = depth
    jointStart = (0..<depth).first { sizes.has("layers.\($0).joint.feed_forward_in.weight") } ?? depth
    hasPositions = sizes.has("vision.positions")
    hasLayerScale = sizes.has("layers.0.attention_scale")
    hasQueryBias = sizes.has("layers.0.query.bias")
    (heads, gridSize, targetGridSize, tableTextTokens, assumptions) = (1, 0, 0, 0, [])
    guard textTokens < 1 << 15 else {
      throw sizes.failure("text.positions.weight", [textTokens, width], "fewer than 32768 rows")
    }
    if sizes.has("relative_bias.table") {
      try findTable(sizes)
    } else {
      let rows = try sizes.require("vision.positions", rank: 3)[1]
      gridSize = try sizes.gridSize("vision.positions", rows: rows, extra: 1)
      try findHeads(checkpoint, options)
    }
    targetGridSize = gridSize
    try resize(to: options.imageSize, file: checkpoint.path)
  }

  /// One layer, every size 1 and every option on: for its keys alone.
  static let smallest = VLMoConfiguration()

  private init() {
    prefix = ""
    (depth, width, heads, feedForwardWidth, channels, patchSize, gridSize, targetGridSize) = (1, 1, 1, 1, 1, 1, 1, 1)
    (vocabularySize, textTokens, tableTextTokens, tokenTypes, jointStart) = (1, 1, 1, 2, 0)
    (hasPositions, hasLayerScale, hasQueryBias, assumptions) = (true, true, true, [])
  }

  private mutating func resize(to size: Int?, file: String) throws(ModelError) {
    guard let size, size != imageSize else { return }
    guard size > 0, size % patchSize == 0, size / patchSize <= RelativePositions.largestGrid else {
      throw ModelError(
        .unsupported, "an image size of \(size)",
        expected: "a multiple of the patch size \(patchSize), at most \(RelativePositions.largestGrid) times it",
        file: file)
    }
    targetGridSize = size / patchSize
    guard !hasRelativeBias || positions.tableRows <= Int(Int16.max) + 1 else {
      throw ModelError(
        .unsupported, "an image size of \(size), whose bias table has \(positions.tableRows) rows",
        expected: "at most \(Int(Int16.max) + 1)", file: file)
    }
  }

  /// The parameters with positions and table of the image size that was asked for, as `load_pretrained_weight` of the original has them.
  func resized(_ parameters: BoundParameters) -> BoundParameters {
    guard targetGridSize != gridSize else { return parameters }
    return parameters.resized(
      from: gridSize, to: targetGridSize, positions: .bicubic, leadingRows: 1, tables: .geometricCubic,
      trailingRows: VLMoPositions.extraRows + 2 * tableTextTokens)
  }

  /// The table has a column for every head of every layer, and rows for an image and a text of a certain size.
  private mutating func findTable(_ sizes: SizeFinder) throws(ModelError) {
    let table = try sizes.require("relative_bias.table", rank: 2)
    guard depth > 0, table[1] % depth == 0, width % (table[1] / depth) == 0 else {
      throw sizes.failure("relative_bias.table", table, "a column for every head of \(depth) layers")
    }
    heads = table[1] / depth
    guard table[0] <= Int(Int16.max) + 1 else {
      throw sizes.failure("relative_bias.table", table, "at most \(Int(Int16.max) + 1) rows")
    }
    if let tokens = sizes.rows(ofKey: prefix + "relative_position_index") {
      gridSize = try sizes.gridSize("relative_position_index", rows: tokens, extra: 1)
      tableTextTokens = textLength(rows: table[0], grid: gridSize) ?? 0
    } else {
      try assumeTextLength(table, sizes)
    }
    guard hasRelativeBias, gridSize <= RelativePositions.largestGrid, tableTextTokens >= textTokens else {
      throw sizes.failure(
        "relative_bias.table", table,
        "rows for \(gridSize)×\(gridSize) patches and at least \(textTokens) text tokens")
    }
  }

  /// The text length of a table for a grid, nil where there is none.
  private func textLength(rows: Int, grid: Int) -> Int? {
    let rest = rows - VLMoPositions.tableRows(grid: grid, textTokens: 0)
    return rest > 0 && rest % 2 == 0 ? rest / 2 : nil
  }

  /// Without an index no key tells how the rows are shared: the text length of every released table, or else that of the text
  /// embeddings, must leave rows for a square.
  private mutating func assumeTextLength(_ table: Shape, _ sizes: SizeFinder) throws(ModelError) {
    for length in [VLMoConfiguration.releasedTableTextTokens, textTokens] where length > 0 {
      let window = table[0] - VLMoPositions.extraRows - 2 * length
      let side = Int(Double(max(0, window)).squareRoot().rounded())
      guard side * side == window, side % 2 == 1, length >= textTokens else { continue }
      (gridSize, tableTextTokens) = ((side + 1) / 2, length)
      assumptions.append(
        "images of \(gridSize * patchSize)×\(gridSize * patchSize) and a bias table made for \(length) text tokens: only together do the rows tell them"
      )
      return
    }
    throw sizes.failure(
      "relative_bias.table", table,
      "(2 · grid − 1)² + 5 rows and two for each of \(VLMoConfiguration.releasedTableTextTokens) or \(textTokens) text tokens"
    )
  }

  private mutating func findHeads(_ checkpoint: Checkpoint, _ options: ModelOptions) throws(ModelError) {
    let (found, assumed) = try HeadCount.find(
      width: width, metadata: checkpoint.metadata, options: options, file: checkpoint.path)
    heads = found
    assumptions += assumed
  }

  /// `VLMo base, patch 16, 224×224`.
  var summary: String {
    let size: String =
      switch (depth, width) {
      case (12, 768): "base"
      case (24, 544): "base plus"
      case (24, 1024): "large"
      default: "of \(depth) layers, width \(width)"
      }
    return "VLMo \(size), patch \(patchSize), \(imageSize)×\(imageSize)"
  }

  var hyperparameters: [(name: String, value: HyperparameterValue)] {
    commonHyperparameters + [("joint_block_start", .integer(jointStart))]
      + (vocabularySize > 0 ? [("text.vocabulary_size", .integer(vocabularySize))] : [])
      + (textTokens > 0 ? [("text.context_length", .integer(textTokens))] : [])
  }
}
