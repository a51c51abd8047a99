/// What a parameter or a linear layer is for. Passes look at roles, never at names.
public enum Role: String, CaseIterable, Hashable, Sendable {
  /// The projection of image patches.
  case patchEmbedding
  /// The learned token before the patches.
  case classToken
  /// The learned token that replaces masked patches in pretraining; no inference reads it.
  case maskToken
  /// Learned absolute positions.
  case positions
  /// The table of text token embeddings.
  case tokenEmbedding
  /// The table of embeddings that tell text tokens from image tokens.
  case tokenType
  /// The LayerNorm of embeddings before the encoder.
  case embeddingNorm
  /// The LayerNorm before attention.
  case attentionNorm
  /// The query projection.
  case attentionQuery
  /// The key projection.
  case attentionKey
  /// The value projection.
  case attentionValue
  /// The LayerNorm between attention and its output projection (sub-LN).
  case attentionInnerNorm
  /// The output projection of attention.
  case attentionOut
  /// The LayerNorm before the feed-forward network.
  case feedForwardNorm
  /// The first feed-forward layer.
  case feedForwardIn
  /// The LayerNorm between the feed-forward layers (sub-LN).
  case feedForwardInnerNorm
  /// The second feed-forward layer.
  case feedForwardOut
  /// The learned factor of each channel of a block's result (layer scale).
  case layerScale
  /// The table of learned numbers for the relative positions of two tokens, [rows, heads].
  case relativePositionBias
  /// The row of that table for each pair of tokens, [tokens, tokens].
  case relativePositionIndex
  /// The LayerNorm at the end of the encoder.
  case finalNorm
  /// A LayerNorm of a task head.
  case headNorm
  /// A layer of the neck and decoder of semantic segmentation.
  case segmentation
  /// A head that only training reads.
  case auxiliaryHead
  /// A hidden layer of a task head.
  case headHidden
  /// The last layer of a task head.
  case head
  /// The last layer of a model that writes text: how likely each word is to be the next.
  case vocabulary
  /// A scalar that only training reads, such as a logit scale.
  case trainingScalar

  /// True for the linear layers inside the encoder's blocks, which hold nearly all weights.
  public var isBlockLinear: Bool {
    switch self {
    case .attentionQuery, .attentionKey, .attentionValue, .attentionOut, .feedForwardIn, .feedForwardOut: true
    default: false
    }
  }

  /// True for all linear layers that may be int8: those of the blocks, the patch embedding and the heads.
  public var isLinear: Bool {
    isBlockLinear || [.patchEmbedding, .headHidden, .head, .vocabulary].contains(self)
  }
}

/// Which tokens a parameter acts on: the A experts serve vision, the B experts serve text.
public enum Modality: String, CaseIterable, Hashable, Sendable {
  /// Image tokens (the `A` copies of the released checkpoints).
  case vision
  /// Text tokens (the `B` copies).
  case text
  /// Neither alone: task heads.
  case shared
}
