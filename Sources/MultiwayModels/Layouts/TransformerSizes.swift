import MultiwayCore

/// The sizes that the configurations of all architectures have.
protocol TransformerSizes {
  var depth: Int { get }
  var width: Int { get }
  var heads: Int { get }
  var feedForwardWidth: Int { get }
  var channels: Int { get }
  var patchSize: Int { get }
  /// The side of the graph's image in pixels.
  var imageSize: Int { get }
  var epsilon: Float { get }
}

extension TransformerSizes {
  /// The hyper-parameters under the names that artifacts have them.
  var commonHyperparameters: [(name: String, value: HyperparameterValue)] {
    [
      ("block_count", .integer(depth)), ("embedding_length", .integer(width)),
      ("feed_forward_length", .integer(feedForwardWidth)), ("attention.head_count", .integer(heads)),
      ("attention.layer_norm_epsilon", .real(epsilon)), ("vision.image_size", .integer(imageSize)),
      ("vision.patch_size", .integer(patchSize)), ("vision.channel_count", .integer(channels)),
    ]
  }

  /// Patches along a side of an image size that was asked for.
  func grid(imageSize size: Int, file: String) throws(ModelError) -> Int {
    guard size > 0, size % patchSize == 0, size / patchSize < 1 << 12 else {
      throw ModelError(
        .unsupported, "an image size of \(size)", expected: "a multiple of the patch size \(patchSize)", file: file)
    }
    return size / patchSize
  }
}
