import MultiwayCheckpoint
import MultiwayCore

/// The sizes of an UperNet behind a vision transformer, found from its keys and shapes.
///
/// Sources: mmsegmentation `uper_head.py` as unilm configures it, transformers `BeitFPNNeck` and `BeitUperHead`.
struct UperNetConfiguration: Sendable {
  /// The channels of the feature maps, the transformer's width; the decoder has as many.
  var width: Int
  var classes: Int
  var taps: FeatureTaps
  /// Blocks along a side of each pool.
  var poolScales: [Int]
  /// The shapes of the auxiliary head's weights by canonical name, in order: only training reads them.
  var auxiliary: [(name: String, shape: Shape)]
  var assumptions: [String]

  /// ε of every batch norm, PyTorch's default.
  static let batchNormEpsilon: Float = 1e-5
  /// The pools of every released model.
  private static let usualPoolScales = [1, 2, 3, 6]
  private static let mostPools = 16
  private static let largestPoolScale = 64
  /// Far beyond any model; shapes made of it cannot overflow.
  private static let widest = 1 << 20

  /// Finds the decoder's sizes; nil where the checkpoint has no decoder.
  init?(
    _ sizes: SizeFinder, width: Int, depth: Int, layout: String, checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) {
    guard sizes.has("decoder.classes.weight") else {
      guard options.featureTaps == nil else {
        throw ModelError(
          .unsupported, "feature taps for a model without a segmentation decoder", expected: "decode_head.…",
          remedy: "leave --taps out", file: checkpoint.path)
      }
      return nil
    }
    guard width <= UperNetConfiguration.widest else {
      throw ModelError(
        .unsupported, "a segmentation decoder of \(width) channels",
        expected: "at most \(UperNetConfiguration.widest)", file: checkpoint.path)
    }
    self.width = width
    classes = try sizes.require("decoder.classes.weight", rank: 4)[0]
    let pools = (0..<UperNetConfiguration.mostPools).prefix { sizes.has("decoder.pools.\($0).convolution.weight") }
      .count
    let stated = RecordedValue.integers("pool_scales", in: checkpoint.metadata)
    poolScales = stated ?? UperNetConfiguration.usualPoolScales
    guard poolScales.count == pools, poolScales.allSatisfy({ (1...UperNetConfiguration.largestPoolScale).contains($0) })
    else {
      throw ModelError(
        .unsupported, "\(pools) pools with the scales \(poolScales)",
        expected: "as many scales as pools, 1 to \(UperNetConfiguration.largestPoolScale)",
        remedy: stated == nil ? "give the config.json that says the pool_scales" : nil, file: checkpoint.path)
    }
    taps = try FeatureTaps(
      layout: layout, depth: depth, metadata: checkpoint.metadata, options: options, file: checkpoint.path)
    assumptions = taps.assumption.map { [$0] } ?? []
    auxiliary = UperNetConfiguration.auxiliary(sizes)
  }

  /// One of everything, every size 1: for its keys alone.
  static let smallest = UperNetConfiguration(
    width: 1, classes: 1, taps: FeatureTaps(blocks: [0, 0, 0, 0]), poolScales: [1],
    auxiliary: ["convolutions.0.convolution", "joined.convolution", "classes"].map {
      ("auxiliary." + $0 + ".weight", [1, 1, 1, 1])
    }, assumptions: [])

  private init(
    width: Int, classes: Int, taps: FeatureTaps, poolScales: [Int], auxiliary: [(name: String, shape: Shape)],
    assumptions: [String]
  ) {
    (self.width, self.classes, self.taps, self.poolScales) = (width, classes, taps, poolScales)
    (self.auxiliary, self.assumptions) = (auxiliary, assumptions)
  }

  /// What the file has of the auxiliary head; its sizes are nobody's concern but the file's.
  private static func auxiliary(_ sizes: SizeFinder) -> [(name: String, shape: Shape)] {
    let convolutions = (0..<mostPools).map { "auxiliary.convolutions.\($0).convolution.weight" }
    return (convolutions + ["auxiliary.joined.convolution.weight", "auxiliary.classes.weight"]).compactMap { name in
      guard let shape = sizes[name], shape.rank == 4 else { return nil }
      return (name, shape)
    }
  }

  var hyperparameters: [(name: String, value: HyperparameterValue)] {
    [
      ("class_count", .integer(classes)), ("segmentation.taps", .text(taps.description)),
      ("segmentation.pool_scales", .text(poolScales.map(String.init).joined(separator: ","))),
    ]
  }
}

extension FeatureTaps {
  /// Taps that nobody had to assume.
  init(blocks: [Int]) {
    self.blocks = blocks
    assumption = nil
  }
}
