import MultiwayCore

/// After how many blocks the four feature maps of a decoder are taken; 0 is before the first block.
struct FeatureTaps: Hashable, Sendable {
  /// Four numbers, from the finest level of the pyramid to the coarsest.
  var blocks: [Int]
  /// What was assumed about them, nil where somebody said it.
  var assumption: String?

  /// The number of levels of the pyramid.
  static let count = 4

  /// Under which name a file's metadata hold the taps.
  static let recordedName = "feature_taps"

  /// What the user says, or the file records; else what the layout's own code does.
  ///
  /// unilm taps after blocks 4, 6, 8 and 12 of 12, and 8, 12, 16 and 24 of 24. Its configurations count blocks from 0: 3, 5, 7, 11.
  /// transformers (5.23, `BeitForSemanticSegmentation.forward`) has the same numbers as `out_indices` and reads
  /// `hidden_states[i - 1]`, whose first entry is the embedding: the outputs after 2, 4, 6 and 10 blocks.
  init(layout: String, depth: Int, metadata: JSONObject, options: ModelOptions, file: String) throws(ModelError) {
    // A file that was written in another layout records its taps: they belong to the weights, not to the keys.
    let recordedTaps = RecordedValue.integers(FeatureTaps.recordedName, in: metadata)
    if let stated = options.featureTaps ?? recordedTaps {
      guard FeatureTaps.fit(stated, depth: depth) else {
        throw FeatureTaps.failure("feature taps after blocks \(FeatureTaps.text(stated))", depth: depth, file: file)
      }
      (blocks, assumption) = (stated, nil)
      return
    }
    let original = depth % 6 == 0 ? [depth / 3, depth / 2, depth * 2 / 3, depth] : nil
    guard layout == "huggingface" else {
      guard let original else {
        throw FeatureTaps.failure("a segmentation model of \(depth) blocks", depth: depth, file: file)
      }
      blocks = original
      assumption =
        "feature maps taken after blocks \(FeatureTaps.text(original)), as unilm does; choose with --taps"
      return
    }
    let recorded = RecordedValue.integers("out_indices", in: metadata)
    let indices = recorded ?? original?.map { $0 - 1 }
    guard let indices, FeatureTaps.fit(indices.map { $0 &- 1 }, depth: depth) else {
      let found = recorded.map { "out_indices \(FeatureTaps.text($0))" } ?? "a segmentation model of \(depth) blocks"
      throw FeatureTaps.failure(found, depth: depth, file: file)
    }
    blocks = indices.map { $0 - 1 }
    let source = recorded == nil ? "out_indices that no config.json states, taken to be" : "out_indices"
    let others = indices.map { $0 + 1 }
    assumption =
      "feature maps taken after blocks \(FeatureTaps.text(blocks)), as transformers reads \(source) "
      + "\(FeatureTaps.text(indices)); models of unilm were trained with \(FeatureTaps.text(others)): choose with --taps"
  }

  private static func fit(_ blocks: [Int], depth: Int) -> Bool {
    blocks.count == count && blocks.allSatisfy { (0...depth).contains($0) }
  }

  private static func failure(_ found: String, depth: Int, file: String) -> ModelError {
    ModelError(
      .unsupported, found, expected: "\(count) numbers of blocks from 0 to \(depth)",
      remedy: "say with --taps after which blocks the feature maps are taken: --taps 4,6,8,12", file: file)
  }

  /// `4, 6, 8, 12`.
  private static func text(_ numbers: [Int]) -> String { numbers.map(String.init).joined(separator: ", ") }

  /// `4,6,8,12`, as `--taps` takes it.
  var description: String { blocks.map(String.init).joined(separator: ",") }
}
