import CMultiwayKernels

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

/// Which keys a query may attend to.
public enum AttentionMode: Sendable {
  /// All keys of all segments.
  case full
  /// Rows of the first segment: its own keys. Rows of the second: all keys of the first, and those of the second up to
  /// their own.
  case caption
}

extension KernelContext {
  /// Multi-head attention over one segment, or jointly over two: softmax(scale · q · kᵀ) · v, head by head.
  ///
  /// `keyPadding` holds one byte a key, [batch, all tokens], nonzero where the key is excluded. A row all of whose keys
  /// are excluded becomes zeros. An `output` may be the `query` of no segment.
  public func attention(
    _ arena: inout Arena, batch: Int, heads: Int, headSize: Int, scale: Float, segments: [AttentionSegment],
    keyPadding: Region? = nil, mode: AttentionMode = .full
  ) {
    precondition(segments.count == 1 || segments.count == 2, "attention takes one or two segments")
    let total = segments.reduce(0) { $0 + $1.tokens }
    let width = product(heads, headSize)
    for one in segments {
      for other in segments {
        precondition(
          !one.output.overlaps(other.query) && !one.output.overlaps(other.key) && !one.output.overlaps(other.value),
          "the result overlaps an input")
      }
    }
    var job = unsafe mwk_attention_job()
    unsafe job.batch = product(batch)
    unsafe job.heads = heads
    unsafe job.head_size = headSize
    unsafe job.scale = scale
    unsafe job.segment_count = segments.count
    unsafe job.segments.0 = arena.segment(segments[0], batch: batch, width: width)
    if segments.count == 2 { unsafe job.segments.1 = arena.segment(segments[1], batch: batch, width: width) }
    unsafe job.key_padding = keyPadding.map {
      unsafe UnsafePointer(arena.pointer($0, count: product(batch, total), of: UInt8.self))
    }
    unsafe job.mode = mode == .full ? mwk_attention_full : mwk_attention_caption
    unsafe check(mwk_attention_f32(pointer, &job))
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
      tokens: segment.tokens, stride: segment.stride ?? width, out_stride: segment.outputStride ?? width)
  }
}
