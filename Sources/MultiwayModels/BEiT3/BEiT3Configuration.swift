import MultiwayCheckpoint
import MultiwayCore

/// The sizes of a BEiT-3, all found from the shapes of its tensors but for the number of heads.
struct BEiT3Configuration: Sendable {
  /// What stands before `vision_embed` in the keys: `beit3.` in released files.
  var prefix: String
  var depth: Int
  var width: Int
  var heads: Int
  var feedForwardWidth: Int
  var channels: Int
  var patchSize: Int
  /// Patches along a side of the square image.
  var gridSize: Int
  var vocabularySize: Int
  /// Rows of the text position table; two of them are never used.
  var textPositionRows: Int
  var assumptions: [String]

  /// ε of every LayerNorm, from torchscale's `EncoderConfig` as the released models use it.
  let epsilon: Float = 1e-5
  /// Positions start at row 2, a habit of fairseq: rows 0 and 1 are never read.
  static let firstPositionRow = 2

  var imageSize: Int { gridSize * patchSize }
  var visionTokens: Int { gridSize * gridSize + 1 }
  var headSize: Int { width / heads }

  init(_ tensors: [StoredTensor], checkpoint: Checkpoint, options: ModelOptions) throws(ModelError) {
    let shapes = ShapeFinder(tensors, file: checkpoint.path)
    prefix = shapes.prefix
    let patch = try shapes.require("vision_embed.proj.weight", rank: 4)
    guard patch[2] == patch[3], patch[2] > 0, patch[1] > 0 else {
      throw shapes.failure("vision_embed.proj.weight", patch, "square patches")
    }
    width = patch[0]
    channels = patch[1]
    patchSize = patch[2]
    let positions = try shapes.require("encoder.embed_positions.A.weight", rank: 2)
    gridSize = Int(Double(max(0, positions[0] - 3)).squareRoot().rounded())
    guard gridSize > 0, gridSize < 1 << 15, gridSize * gridSize + 3 == positions[0] else {
      throw shapes.failure("encoder.embed_positions.A.weight", positions, "3 rows more than a square number")
    }
    feedForwardWidth = try shapes.require("encoder.layers.0.ffn.A.fc1.weight", rank: 2)[0]
    depth = shapes.layerCount
    vocabularySize = shapes["text_embed.weight"]?[0] ?? 0
    let textPositions = shapes["encoder.embed_positions.B.weight"]
    textPositionRows = textPositions?[0] ?? 0
    if let textPositions, textPositionRows <= BEiT3Configuration.firstPositionRow {
      throw shapes.failure("encoder.embed_positions.B.weight", textPositions, "at least 3 rows")
    }
    (heads, assumptions) = try HeadCount.find(
      width: width, metadata: checkpoint.metadata, options: options, file: checkpoint.path)
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
    [
      ("block_count", .integer(depth)), ("embedding_length", .integer(width)),
      ("feed_forward_length", .integer(feedForwardWidth)), ("attention.head_count", .integer(heads)),
      ("attention.layer_norm_epsilon", .real(epsilon)), ("vision.image_size", .integer(imageSize)),
      ("vision.patch_size", .integer(patchSize)), ("vision.channel_count", .integer(channels)),
    ] + (vocabularySize > 0 ? [("text.vocabulary_size", .integer(vocabularySize))] : [])
      + (textPositionRows > 2 ? [("text.context_length", .integer(textPositionRows - 2))] : [])
  }
}

/// Looks shapes up by the part of the key after the prefix.
private struct ShapeFinder {
  let prefix: String
  private let shapes: [String: Shape]
  private let file: String

  init(_ tensors: [StoredTensor], file: String) {
    let marker = "vision_embed.proj.weight"
    prefix = tensors.first { $0.name.hasSuffix(marker) }.map { String($0.name.dropLast(marker.count)) } ?? ""
    shapes = Dictionary(tensors.map { ($0.name, $0.shape) }, uniquingKeysWith: { first, _ in first })
    self.file = file
  }

  subscript(key: String) -> Shape? {
    // An empty tensor may claim any dimension; a size that no file can fill is no size.
    guard let shape = shapes[prefix + key], shape.rank > 0, shape[0] < 1 << 30 else { return nil }
    return shape
  }

  func require(_ key: String, rank: Int) throws(ModelError) -> Shape {
    guard let shape = shapes[prefix + key] else {
      throw ModelError(
        .keysDoNotFit, "the key \(prefix + key) is missing, which tells the size of the model", file: file)
    }
    guard shape.rank == rank, shape.dimensions.allSatisfy({ $0 > 0 && $0 < 1 << 30 }) else {
      throw failure(key, shape, "\(rank) dimensions, none of them 0")
    }
    return shape
  }

  func failure(_ key: String, _ shape: Shape, _ expected: String) -> ModelError {
    ModelError(.keysDoNotFit, "the shape is \(shape)", expected: expected, file: file, tensor: prefix + key)
  }

  /// One more than the largest layer number of any key, so that a layer that lacks a key is reported as such and not cut off.
  /// A layer has some twenty keys: a number beyond what the file can hold is a stray key's.
  var layerCount: Int {
    let marker = prefix + "encoder.layers."
    let limit = max(1, shapes.count / 8)
    let numbers = shapes.keys.filter { $0.hasPrefix(marker) }
      .compactMap { Int($0.dropFirst(marker.count).prefix { $0 != "." }) }
    return (numbers.filter { $0 >= 0 && $0 < limit }.max() ?? -1) + 1
  }
}

/// Finds the number of attention heads, which no tensor's shape tells.
private enum HeadCount {
  static func find(
    width: Int, metadata: JSONObject, options: ModelOptions, file: String
  ) throws(ModelError) -> (Int, [String]) {
    let stated = options.heads ?? recorded(in: metadata)
    let heads = stated ?? assumed(width: width)
    guard heads > 0, width % heads == 0 else {
      throw ModelError(
        .keysDoNotFit, "a width of \(width) does not divide into \(heads) heads",
        remedy: "pass --heads with the right number",
        file: file)
    }
    if stated != nil || known[width] != nil { return (heads, []) }
    return (
      heads,
      ["\(heads) attention heads of size \(width / heads): no key tells their number; pass --heads if it is another"]
    )
  }

  /// The released sizes, and giant of the paper.
  private static let known = [768: 12, 1024: 16, 1408: 16]

  /// Heads of 64, as in nearly every vision transformer, but for narrow models, whose heads are commonly 32.
  private static func assumed(width: Int) -> Int {
    if let heads = known[width] { return heads }
    let size = width >= 384 ? 64 : 32
    return width % size == 0 ? width / size : 1
  }

  /// What a training run's `args` say: a number of heads, or a model's name.
  private static func recorded(in metadata: JSONObject) -> Int? {
    for source in [metadata["args"]?.object, metadata] {
      for name in ["encoder_attention_heads", "num_attention_heads", "num_heads", "heads"] {
        if let heads = source?[name]?.integer { return heads }
        // safetensors metadata holds strings only.
        if let text = source?[name]?.string, let heads = Int(text) { return heads }
      }
    }
    return nil
  }
}
