import CMultiwayKernels
public import MultiwayCore

/// One stream's part of a joint attention: its queries, keys, values and result, [batch, tokens, heads · headSize] each.
public struct AttentionSegment: Sendable, Hashable {
  /// Queries.
  public var query: Region
  /// Keys.
  public var key: Region
  /// Values.
  public var value: Region
  /// Where the result goes.
  public var output: Region
  /// Tokens of one example.
  public var tokens: Int
  /// Elements from one token's queries, keys or values to the next token's; nil means heads · headSize.
  public var stride: Int?
  /// Elements from one token's result to the next token's; nil means heads · headSize.
  public var outputStride: Int?

  /// Names the regions of a segment.
  public init(
    query: Region, key: Region, value: Region, output: Region, tokens: Int, stride: Int? = nil, outputStride: Int? = nil
  ) {
    self.query = query
    self.key = key
    self.value = value
    self.output = output
    self.tokens = tokens
    self.stride = stride
    self.outputStride = outputStride
  }
}

/// Keys and values without queries, [batch / share, tokens, heads · headSize] each.
public struct AttentionMemory: Sendable, Hashable {
  /// Keys.
  public var key: Region
  /// Values.
  public var value: Region
  /// Tokens of one example.
  public var tokens: Int
  /// How many examples of the queries in a row share one of the memory.
  public var share: Int

  /// Names the regions of a memory.
  public init(key: Region, value: Region, tokens: Int, share: Int = 1) {
    self.key = key
    self.value = value
    self.tokens = tokens
    self.share = share
  }
}

/// A place where keys and values of the first memory stay, as the kernels read them, from one attention to the next.
public struct AttentionStore: Sendable, Hashable {
  /// At least `byteCount` bytes.
  public var region: Region
  /// Room for so many keys, those of all memories and segments together.
  public var keys: Int
  /// True where an attention with the same memory and the same room has been there; other keys, values and sizes may have changed.
  public var isFilled: Bool

  /// Names a place.
  public init(region: Region, keys: Int, isFilled: Bool) {
    self.region = region
    self.keys = keys
    self.isFilled = isFilled
  }

  /// The size of a store for a memory of so many examples; nil if it overflows.
  public static func byteCount(
    arithmetic: AttentionArithmetic, examples: Int, heads: Int, headSize: Int, keys: Int
  ) -> Int? {
    // Far above what any machine holds, and far below what overflows in the kernels.
    let limit = 1 << 20
    guard heads <= limit, headSize <= limit, keys <= 1 << 30, product(heads, headSize) <= limit else { return nil }
    let one = mwk_attention_store_bytes(arithmetic.code, 1, heads, headSize, keys)
    let (all, overflow) = one.multipliedReportingOverflow(by: examples)
    return overflow ? nil : all
  }
}

/// Numbers added to the scaled scores.
public struct AttentionBias: Sendable {
  /// fp32 [heads, rows].
  public var table: TensorBytes
  /// Rows of the table.
  public var rows: Int
  /// i16 [tokens, tokens]: the row for a query and a key. Every element has been checked to be below `rows`.
  public var index: TensorBytes
  /// The side of the index, at least the number of tokens.
  public var tokens: Int

  /// Names the constants.
  public init(table: TensorBytes, rows: Int, index: TensorBytes, tokens: Int) {
    self.table = table
    self.rows = rows
    self.index = index
    self.tokens = tokens
  }
}

/// Which keys a query may attend to.
public enum AttentionMode: Sendable {
  /// All keys of all memories and segments.
  case full
  /// Rows of the last segment: all keys before it, and its own up to theirs. Rows of a segment before it: all keys but those of
  /// the last.
  case caption
}

/// How the two products of attention are computed; scores and softmax are fp32 either way.
public enum AttentionArithmetic: Sendable, CaseIterable {
  /// Queries, keys, values and weights in fp32.
  case float
  /// Queries as u8, keys and values as s8, each token by itself, the weights as 16 bits; sums in int32.
  case int8

  var code: mwk_attention_arithmetic {
    switch self {
    case .float: mwk_attention_f32
    case .int8: mwk_attention_i8
    }
  }
}

extension KernelContext {
  /// Multi-head attention over memories and one or two segments: softmax(scale · q · kᵀ + bias) · v, head by head.
  ///
  /// `keyPadding` holds one byte a key of the last segment, [batch, tokens], nonzero where the key is excluded. A row all of whose
  /// keys are excluded becomes zeros. An `output` may be the `query` of no segment. With a `store`, no other memory is shared by more
  /// examples than the first.
  public func attention(
    _ arena: inout Arena, batch: Int, heads: Int, headSize: Int, scale: Float, memories: [AttentionMemory] = [],
    segments: [AttentionSegment], keyPadding: Region? = nil, mode: AttentionMode = .full, bias: AttentionBias? = nil,
    arithmetic: AttentionArithmetic = .float, store: AttentionStore? = nil
  ) {
    precondition(segments.count == 1 || segments.count == 2, "attention takes one or two segments")
    precondition(memories.count <= 2, "attention takes at most two memories")
    let width = product(heads, headSize)
    checkOverlaps(memories, segments)
    var job = unsafe mwk_attention_job()
    unsafe job.batch = product(batch)
    unsafe job.heads = heads
    unsafe job.head_size = headSize
    unsafe job.scale = scale
    let parts =
      unsafe memories.map { unsafe arena.memory($0, batch: batch, width: width) }
      + segments.map { unsafe arena.segment($0, batch: batch, width: width) }
    unsafe job.segment_count = parts.count
    unsafe job.segments.0 = parts[0]
    if unsafe parts.count > 1 { unsafe job.segments.1 = parts[1] }
    if unsafe parts.count > 2 { unsafe job.segments.2 = parts[2] }
    if unsafe parts.count > 3 { unsafe job.segments.3 = parts[3] }
    let last = segments[segments.count - 1].tokens
    unsafe job.key_padding = keyPadding.map {
      unsafe UnsafePointer(arena.pointer($0, count: product(batch, last), of: UInt8.self))
    }
    unsafe job.mode = mode == .full ? mwk_attention_full : mwk_attention_caption
    unsafe job.arithmetic = arithmetic.code
    if let store {
      let keys = memories.reduce(0) { $0 + $1.tokens } + segments.reduce(0) { $0 + $1.tokens }
      precondition(keys <= store.keys, "the store has no room for all keys")
      precondition(!segments.contains { $0.output.overlaps(store.region) }, "the result overlaps the store")
      unsafe job.store = arena.store(store, memories, batch: batch, heads: heads, headSize: headSize, arithmetic)
    }
    if let bias {
      precondition(memories.isEmpty && segments.reduce(0) { $0 + $1.tokens } <= bias.tokens, "the bias is too small")
      unsafe job.bias = bias.table.pointer(count: product(heads, bias.rows), of: Float.self)
      unsafe job.bias_rows = bias.rows
      unsafe job.bias_index = bias.index.pointer(count: product(bias.tokens, bias.tokens), of: Int16.self)
      unsafe job.bias_stride = bias.tokens
    }
    unsafe check(mwk_attention(pointer, &job))
    withExtendedLifetime(bias) {}
  }

  private func checkOverlaps(_ memories: [AttentionMemory], _ segments: [AttentionSegment]) {
    let inputs = memories.flatMap { [$0.key, $0.value] } + segments.flatMap { [$0.query, $0.key, $0.value] }
    for segment in segments {
      precondition(!inputs.contains { segment.output.overlaps($0) }, "the result overlaps an input")
    }
  }
}

extension Arena {
  @unsafe fileprivate func segment(_ segment: AttentionSegment, batch: Int, width: Int) -> mwk_attention_segment {
    let rows = product(batch, segment.tokens)
    let reach = extent(rows: rows, width: width, stride: segment.stride ?? width)
    let outputReach = extent(rows: rows, width: width, stride: segment.outputStride ?? width)
    return unsafe mwk_attention_segment(
      q: pointer(segment.query, count: reach), k: pointer(segment.key, count: reach),
      v: pointer(segment.value, count: reach), out: pointer(segment.output, count: outputReach),
      tokens: segment.tokens, stride: segment.stride ?? width, out_stride: segment.outputStride ?? width, share: 1)
  }

  @unsafe fileprivate func store(
    _ store: AttentionStore, _ memories: [AttentionMemory], batch: Int, heads: Int, headSize: Int,
    _ arithmetic: AttentionArithmetic
  ) -> mwk_attention_store {
    guard let first = memories.first, memories.allSatisfy({ $0.share <= first.share }) else {
      preconditionFailure("the store's memory is not the one that most examples share")
    }
    let needed = AttentionStore.byteCount(
      arithmetic: arithmetic, examples: batch / first.share, heads: heads, headSize: headSize, keys: store.keys)
    guard let needed, store.region.byteOffset % 64 == 0 else { preconditionFailure("the store is not aligned") }
    return unsafe mwk_attention_store(
      bytes: pointer(store.region, byteCount: needed), keys: store.keys, is_filled: store.isFilled)
  }

  @unsafe fileprivate func memory(_ memory: AttentionMemory, batch: Int, width: Int) -> mwk_attention_segment {
    precondition(memory.share > 0 && batch % memory.share == 0, "the memory's examples do not divide the batch")
    let count = product(batch / memory.share, memory.tokens, width)
    return unsafe mwk_attention_segment(
      q: nil, k: pointer(memory.key, count: count), v: pointer(memory.value, count: count), out: nil,
      tokens: memory.tokens, stride: width, out_stride: width, share: memory.share)
  }
}
