/// Softmax attention over the joint sequence of all streams.
///
/// Inputs: key and value of each memory in turn, then query, key and value of each stream in turn and, if `isPadded`, the padding
/// mask [N, T] of the last stream. Outputs: one for each stream, heads concatenated. Keys stand in that order: memories, then streams.
/// Scores are not scaled here: a `scale` node on the query does that.
public struct Attention: Hashable, Sendable {
  /// The number of heads; it divides the width.
  public var heads: Int
  /// True where the last input is the padding mask of the last stream.
  public var isPadded: Bool
  /// Which keys a query may attend to.
  public var mask: AttentionMask
  /// What is added to the scores, nil for nothing.
  public var bias: RelativeBias?
  /// How many leading (key, value) pairs [M, S, width] have no queries: keys that every query may attend to, such as a decoding
  /// cache. M may be smaller than the streams' N by a whole factor: example `n` then reads example `n / (N / M)`, so that all beams
  /// of an image share its keys.
  public var memories: Int

  /// True where queries, keys and values are 8-bit numbers in the two products, each token scaled by itself, and the weights that the softmax
  /// gives 16-bit ones. `Docs/Numerics.md` defines it.
  public var isQuantized: Bool

  /// The most memories.
  public static let maximumMemories = 2
  /// The most streams.
  public static let maximumStreams = 2

  /// Describes an attention.
  public init(
    heads: Int, isPadded: Bool = false, mask: AttentionMask = .none, bias: RelativeBias? = nil, memories: Int = 0,
    isQuantized: Bool = false
  ) {
    self.heads = heads
    self.isPadded = isPadded
    self.mask = mask
    self.bias = bias
    self.memories = memories
    self.isQuantized = isQuantized
  }

  /// The same with every constant replaced by what `transform` makes of it.
  func mappingConstants(_ transform: (ConstantID) -> ConstantID) -> Attention {
    var mapped = self
    mapped.bias = bias.map { RelativeBias(table: transform($0.table), index: transform($0.index)) }
    return mapped
  }

  /// The input that is the key of a memory; its value is the next one.
  public func memoryPlace(_ memory: Int) -> Int { memory * 2 }
  /// The input that is the query of a stream; its key and its value are the next two.
  public func queryPlace(_ stream: Int) -> Int { memories * 2 + stream * 3 }
  /// The stream whose query, key or value an input is; nil for memories, and for the mask where there are `streams` streams.
  public func stream(ofPlace place: Int, streams: Int) -> Int? {
    let first = memories * 2
    return place >= first && place < first + streams * 3 ? (place - first) / 3 : nil
  }
}

/// Which keys a query may attend to.
public enum AttentionMask: String, CaseIterable, Hashable, Sendable {
  /// All of them.
  case none
  /// The last stream is a text that is being written: its tokens attend to everything before it and to the text up to themselves. A
  /// stream before it attends to everything but the text.
  case caption
}

/// A learned number for each head and each pair of tokens, added to the scores.
///
/// It is never expanded to [heads, T, T]: many pairs share a row of the table.
public struct RelativeBias: Hashable, Sendable {
  /// The learned numbers, fp32, fp16 or bf16 [rows, heads].
  public var table: ConstantID
  /// The row for a pair of tokens, i16 [T, T]: row = query token, column = key token over the joint sequence. Where the length of the
  /// last stream depends on the inputs, T is the most tokens, and fewer take the upper left corner.
  public var index: ConstantID

  /// Names the constants.
  public init(table: ConstantID, index: ConstantID) {
    self.table = table
    self.index = index
  }
}
