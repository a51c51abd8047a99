import CMultiwayKernels
import Glibc
import MultiwayKernels
import Testing

/// One attention over one or two segments, q, k and v side by side in rows with a gap, and memories, k and v apart.
struct AttentionCase: CustomTestStringConvertible {
  /// Keys and values that `share` examples in a row have together.
  struct Memory {
    var tokens: Int
    var share = 1
    var keys: [Float] = []
    var values: [Float] = []
  }

  var batch: Int, heads: Int, headSize: Int, tokens: [Int]
  var caption = false
  var padded = false
  var isInt8 = false
  var memories: [Memory] = []
  var qkv: [[Float]] = []
  /// One for each token of the last segment.
  var padding: [UInt8] = []
  /// [heads, biasRows], empty for none.
  var bias: [Float] = []
  /// [queries + slack, keys + slack].
  var biasIndex: [Int16] = []
  let gap = 5
  let biasRows = 11
  let biasSlack = 3

  var width: Int { heads * headSize }
  var stride: Int { 3 * width + gap }
  var queries: Int { tokens.reduce(0, +) }
  var keys: Int { memories.reduce(queries) { $0 + $1.tokens } }
  var last: Int { tokens[tokens.count - 1] }
  var testDescription: String {
    "\(batch)×\(tokens) heads \(heads)×\(headSize)\(caption ? " caption" : "")\(padded ? " padded" : "")"
      + "\(bias.isEmpty ? "" : " biased")\(isInt8 ? " int8" : "") memories \(memories.map { [$0.tokens, $0.share] })"
  }

  init(
    _ batch: Int, _ heads: Int, _ headSize: Int, _ tokens: [Int], caption: Bool = false, padded: Bool = false,
    biased: Bool = false, memories: [Memory] = []
  ) {
    (self.batch, self.heads, self.headSize, self.tokens) = (batch, heads, headSize, tokens)
    (self.caption, self.padded) = (caption, padded)
    var numbers = Numbers(seed: batch + heads + headSize + tokens.reduce(0, +))
    qkv = tokens.map { numbers.floats(max(0, batch * $0 * stride - gap), scale: 2) }
    padding = (0..<(batch * last)).map { _ in padded && numbers.next() % 3 == 0 ? 1 : 0 }
    // The first example's keys are all excluded: where there are no others its rows must become zeros.
    if padded { for key in 0..<last { padding[key] = 1 } }
    self.memories = memories.map { memory in
      let count = batch / memory.share * memory.tokens * width
      return Memory(
        tokens: memory.tokens, share: memory.share, keys: numbers.floats(count, scale: 2),
        values: numbers.floats(count, scale: 2))
    }
    guard biased else { return }
    bias = numbers.floats(heads * biasRows, scale: 3)
    biasIndex = (0..<(queries + biasSlack) * (keys + biasSlack)).map { _ in Int16(numbers.next() % UInt64(biasRows)) }
  }

  /// What a store has room for, and its memory, which ends at a guard page.
  struct Store {
    let keys: Int
    let buffer: GuardedBuffer<UInt8>
    var isFilled = false

    init(_ attention: AttentionCase, keys: Int) {
      self.keys = keys
      let count = mwk_attention_store_bytes(
        attention.isInt8 ? mwk_attention_i8 : mwk_attention_f32, attention.batch / attention.memories[0].share,
        attention.heads, attention.headSize, keys)
      buffer = GuardedBuffer(count: count)
    }
  }

  func run(_ context: RawContext, store: Store? = nil) -> [Float] {
    let inputs = qkv.map { GuardedBuffer($0) }
    let outputs = tokens.map { GuardedBuffer<Float>(count: batch * $0 * width) }
    let held = memories.map { (GuardedBuffer($0.keys), GuardedBuffer($0.values)) }
    let (mask, table, index) = (GuardedBuffer(padding), GuardedBuffer(bias), GuardedBuffer(biasIndex))
    var job = unsafe mwk_attention_job()
    unsafe job.batch = batch
    unsafe job.heads = heads
    unsafe job.head_size = headSize
    unsafe job.scale = 0.3
    unsafe job.segment_count = memories.count + tokens.count
    unsafe job.arithmetic = isInt8 ? mwk_attention_i8 : mwk_attention_f32
    unsafe job.mode = caption ? mwk_attention_caption : mwk_attention_full
    unsafe job.key_padding = padded ? UnsafePointer(mask.pointer) : nil
    if !bias.isEmpty {
      unsafe job.bias = UnsafePointer(table.pointer)
      unsafe job.bias_rows = biasRows
      unsafe job.bias_index = UnsafePointer(index.pointer)
      unsafe job.bias_stride = keys + biasSlack
    }
    var parts = unsafe [mwk_attention_segment]()
    for (memory, buffers) in zip(memories, held) {
      unsafe parts.append(
        mwk_attention_segment(
          q: nil, k: buffers.0.pointer, v: buffers.1.pointer, out: nil, tokens: memory.tokens, stride: width,
          out_stride: width, share: memory.share))
    }
    for s in tokens.indices {
      let start = unsafe inputs[s].pointer
      unsafe parts.append(
        mwk_attention_segment(
          q: start, k: start + width, v: start + 2 * width, out: outputs[s].pointer, tokens: tokens[s],
          stride: stride, out_stride: width, share: 1))
    }
    unsafe job.segments.0 = parts[0]
    if unsafe parts.count > 1 { unsafe job.segments.1 = parts[1] }
    if unsafe parts.count > 2 { unsafe job.segments.2 = parts[2] }
    if unsafe parts.count > 3 { unsafe job.segments.3 = parts[3] }
    if let store {
      unsafe job.store = mwk_attention_store(bytes: store.buffer.pointer, keys: store.keys, is_filled: store.isFilled)
    }
    #expect(unsafe mwk_attention(context.pointer, &job) == mwk_ok)
    withExtendedLifetime((inputs, mask, held, table, index, store)) {}
    return outputs.flatMap(\.values)
  }

  /// An element of the queries, keys or values (part 0, 1, 2) of the joint sequence of the segments.
  private func element(_ part: Int, _ example: Int, _ token: Int, _ channel: Int) -> Double {
    let s = token < tokens[0] ? 0 : 1
    let row = example * tokens[s] + (s == 0 ? token : token - tokens[0])
    return Double(qkv[s][row * stride + part * width + channel])
  }

  /// An element of the keys or values (part 1, 2), memories first.
  private func keyed(_ part: Int, _ example: Int, _ key: Int, _ channel: Int) -> Double {
    var token = key
    for memory in memories {
      if token < memory.tokens {
        let row = example / memory.share * memory.tokens + token
        return Double((part == 1 ? memory.keys : memory.values)[row * width + channel])
      }
      token -= memory.tokens
    }
    return element(part, example, token, channel)
  }

  private func allowed(_ example: Int, _ query: Int) -> [Int] {
    let before = keys - last
    return (0..<keys).filter { key in
      if key < before { return true }
      if padding[example * last + key - before] != 0 { return false }
      return !caption || (query >= queries - last && key - before <= query - (queries - last))
    }
  }

  /// The same in int8.
  var inInt8: AttentionCase {
    var copy = self
    copy.isInt8 = true
    return copy
  }

  /// Attention as [segment][batch][tokens][width]: exact, or by the definition of int8.
  func reference() -> [Double] {
    var result: [Double] = []
    for s in tokens.indices {
      for example in 0..<batch {
        for t in 0..<tokens[s] {
          let token = s == 0 ? t : tokens[0] + t
          for head in 0..<heads { result += isInt8 ? int8Row(example, token, head) : row(example, token, head) }
        }
      }
    }
    return result
  }

  private func row(_ example: Int, _ token: Int, _ head: Int) -> [Double] {
    let allowed = allowed(example, token)
    let channels = (head * headSize)..<((head + 1) * headSize)
    let scores = allowed.map { key in
      let product = channels.reduce(0) { $0 + element(0, example, token, $1) * keyed(1, example, key, $1) }
      let place = bias.isEmpty ? 0 : Int(biasIndex[token * (keys + biasSlack) + key])
      return 0.3 * product + (bias.isEmpty ? 0 : Double(bias[head * biasRows + place]))
    }
    let top = scores.max() ?? 0
    let weights = scores.map { Glibc.exp($0 - top) }
    let sum = weights.reduce(0, +)
    return channels.map { c in
      let value = zip(allowed, weights).reduce(0) { $0 + $1.1 * keyed(2, example, $1.0, c) }
      return allowed.isEmpty ? 0 : value / sum
    }
  }
}

/// The definition of attention in int8, from Docs/Numerics.md.
extension AttentionCase {
  private func int8Row(_ example: Int, _ token: Int, _ head: Int) -> [Double] {
    let allowed = allowed(example, token)
    guard !allowed.isEmpty else { return [Double](repeating: 0, count: headSize) }
    let channels = (head * headSize)..<((head + 1) * headSize)
    let query = unsignedToken(channels.map { Float(element(0, example, token, $0)) * 0.3 })
    let scores = allowed.map { key -> Float in
      let key8 = signedToken(channels.map { Float(keyed(1, example, key, $0)) })
      let sum = zip(query.values, key8.values).reduce(0) { $0 + $1.0 * $1.1 }
      let score = Float(sum) * (query.scale * key8.scale)
      guard !bias.isEmpty else { return score }
      return score + bias[head * biasRows + Int(biasIndex[token * (keys + biasSlack) + key])]
    }
    let top = scores.max() ?? 0
    let weights = scores.map { Float(Glibc.exp(Double($0 - top))) }
    let values = allowed.map { key in signedToken(channels.map { Float(keyed(2, example, key, $0)) }) }
    let scaled = zip(weights, values).map { $0 * $1.scale }
    let step = (scaled.max() ?? 0) / 65535
    let whole = scaled.map { ($0 / step).rounded(.toNearestOrEven) }
    return channels.indices.map { c in
      let sum = zip(whole, values).reduce(0) { $0 + Int($1.0) * $1.1.values[c - channels.lowerBound] }
      return Double(sum) * Double(step) / Double(weights.reduce(0, +))
    }
  }

  /// x ≈ scale · values, the values being q − zero for q in 0…255.
  private func unsignedToken(_ x: [Float]) -> (scale: Float, values: [Int]) {
    let (low, high) = (min(0, x.min() ?? 0), max(0, x.max() ?? 0))
    let inverse = 255 / (high - low)
    let zero = (-low * inverse).rounded(.toNearestOrEven)
    return (
      (high - low) / 255, x.map { Int(max(0, min(255, ($0 * inverse).rounded(.toNearestOrEven) + zero)) - zero) }
    )
  }

  private func signedToken(_ x: [Float]) -> (scale: Float, values: [Int]) {
    let top = x.map(\.magnitude).max() ?? 0
    return (top / 127, x.map { Int(max(-127, min(127, ($0 * (127 / top)).rounded(.toNearestOrEven)))) })
  }
}

@Suite struct AttentionTests {
  static let cases = [
    AttentionCase(1, 1, 64, [1]), AttentionCase(2, 3, 32, [7]), AttentionCase(1, 2, 88, [20]),
    AttentionCase(1, 1, 64, [64]), AttentionCase(1, 1, 5, [65]), AttentionCase(2, 2, 16, [13, 9]),
    AttentionCase(2, 2, 16, [13, 9], padded: true), AttentionCase(2, 2, 16, [13, 9], caption: true),
    AttentionCase(3, 1, 24, [70, 11], caption: true, padded: true), AttentionCase(2, 1, 8, [30], caption: true),
    AttentionCase(1, 1, 8, [0, 6], caption: true), AttentionCase(1, 1, 8, [6, 0]),
    AttentionCase(2, 3, 16, [5], padded: true), AttentionCase(2, 2, 16, [20], biased: true),
    AttentionCase(2, 3, 8, [67, 9], padded: true, biased: true),
    AttentionCase(1, 2, 8, [70, 5], caption: true, biased: true),
    AttentionCase(2, 2, 16, [7], memories: [.init(tokens: 65)]),
    AttentionCase(6, 1, 24, [2], caption: true, memories: [.init(tokens: 70, share: 3), .init(tokens: 4)]),
    AttentionCase(4, 2, 8, [2], caption: true, padded: true, memories: [.init(tokens: 9, share: 4), .init(tokens: 0)]),
    AttentionCase(2, 1, 8, [3, 8], caption: true, memories: [.init(tokens: 5, share: 2), .init(tokens: 66)]),
  ]

  /// The exponential is good to 3·10⁻⁶, which may also make a weight round the other way, by a 65535th; values reach 2.
  @Test(arguments: cases.map(\.inInt8)) func int8FollowsItsDefinition(attention: AttentionCase) {
    let y = checkVariants { attention.run($0).bits }.floats
    let defined = attention.reference()
    #expect(y.count == defined.count)
    let worst = zip(y, defined).map { abs(Double($0) - $1) }.max() ?? 0
    #expect(worst <= 1e-4)
  }

  /// What 8 bits cost: the tokens' own errors, a 255th and a 127th of their ranges.
  @Test(arguments: cases) func int8IsCloseToExact(attention: AttentionCase) {
    let y = attention.inInt8.run(RawContext(.best))
    let exact = attention.reference()
    let signal = exact.reduce(0) { $0 + $1 * $1 }
    let noise = zip(y, exact).reduce(0) { $0 + (Double($1.0) - $1.1) * (Double($1.0) - $1.1) }
    #expect(noise <= signal / 400, "\(10 * log10(signal / noise)) dB")
  }

  @Test(arguments: cases) func variantsAgreeAndAreCloseToExact(attention: AttentionCase) {
    let y = checkVariants { attention.run($0).bits }.floats
    let exact = attention.reference()
    #expect(y.count == exact.count)
    // Scores reach 0.3 · 4 · headSize; their rounding, a few ulp, is the relative error of the weights. Values reach 2.
    let tolerance = 2e-6 * Double(attention.headSize)
    let worst = zip(y, exact).map { abs(Double($0) - $1) }.max() ?? 0
    #expect(worst <= tolerance)
  }

  @Test(arguments: [
    AttentionCase(1, 12, 64, [197]), AttentionCase(1, 2, 64, [197, 64], padded: true),
    AttentionCase(1, 12, 64, [197], biased: true), AttentionCase(1, 12, 64, [197]).inInt8,
    AttentionCase(1, 2, 64, [197, 64], padded: true).inInt8, AttentionCase(2, 3, 64, [70, 64], caption: true).inInt8,
  ])
  func modelShapes(attention: AttentionCase) {
    checkVariants(threads: [2, 5]) { attention.run($0).bits }
  }

  @Test(arguments: [false, true]) func whatIsExcludedCannotPoison(isInt8: Bool) {
    var attention = AttentionCase(2, 1, 16, [10], padded: true)
    attention.isInt8 = isInt8
    let clean = attention.run(RawContext(.best))
    for key in 0..<20 where attention.padding[key] != 0 {
      for c in 16..<48 { attention.qkv[0][key * attention.stride + c] = c % 2 == 0 ? .nan : .infinity }
    }
    let poisoned = checkVariants { attention.run($0).bits }
    #expect(poisoned == clean.bits)
  }

  @Test(arguments: [false, true]) func laterTokensCannotPoisonACaption(isInt8: Bool) {
    var attention = AttentionCase(1, 1, 16, [9, 13], caption: true)
    attention.isInt8 = isInt8
    let clean = attention.run(RawContext(.best)).bits
    for c in 16..<48 { attention.qkv[1][7 * attention.stride + c] = .nan }
    let poisoned = checkVariants { attention.run($0).bits }
    #expect(poisoned.prefix(16 * 16) == clean.prefix(16 * 16))
    #expect(Array(poisoned.dropFirst(16 * 16)).floats.allSatisfy { $0.isNaN })
  }

  @Test(arguments: [false, true], [0, 1, 2]) func nanInATokenReachesWhatItShould(isInt8: Bool, part: Int) {
    var attention = AttentionCase(1, 1, 16, [10])
    attention.isInt8 = isInt8
    attention.qkv[0][3 * attention.stride + part * 16] = .nan
    let y = checkVariants { attention.run($0).bits }.floats
    // A query has its own row, a key all rows; a value its channel of all rows, or in int8, where a token has one scale, all of them.
    for (place, value) in y.enumerated() {
      let reached = part == 0 ? place / 16 == 3 : part == 1 || isInt8 || place % 16 == 0
      #expect(value.isNaN == reached)
    }
  }

  /// A text that grows after memories has the bits of the whole, so decoding with a cache changes nothing.
  @Test(arguments: [false, true]) func aGrowingTextHasTheBitsOfTheWhole(isInt8: Bool) {
    var whole = AttentionCase(2, 2, 16, [70, 9], caption: true)
    whole.isInt8 = isInt8
    let expected = whole.run(RawContext(.scalar))
    let before = 2 * 70 * whole.width
    for cached in [0, 1, 6] {
      var step = AttentionCase(
        2, 2, 16, [9 - cached], caption: true, memories: [.init(tokens: 70), .init(tokens: cached)])
      step.isInt8 = isInt8
      func part(_ segment: Int, _ part: Int, _ tokens: Range<Int>) -> [Float] {
        (0..<2).flatMap { example in
          tokens.flatMap { token -> ArraySlice<Float> in
            let start = (example * whole.tokens[segment] + token) * whole.stride + part * whole.width
            return whole.qkv[segment][start..<start + whole.width]
          }
        }
      }
      for (place, range) in [0..<70, 0..<cached].enumerated() {
        step.memories[place].keys = part(place, 1, range)
        step.memories[place].values = part(place, 2, range)
      }
      let rows = (0..<2).flatMap { example in (cached..<9).map { example * 9 + $0 } }
      step.qkv[0] = Array(
        rows.flatMap { whole.qkv[1][$0 * whole.stride..<min($0 * whole.stride + whole.stride, whole.qkv[1].count)] })
      let found = checkVariants { step.run($0).bits }
      #expect(found == rows.flatMap { expected[before + $0 * whole.width..<before + ($0 + 1) * whole.width] }.bits)
    }
  }

  /// What a store keeps of a memory is what would be made of it again, whoever reads it: other texts, more texts, longer ones.
  @Test(arguments: [false, true], [5, 16, 65]) func aStoreKeepsAMemory(isInt8: Bool, headSize: Int) {
    for tokens in [1, 3, 4, 63, 64, 65, 130] {
      func attention(beams: Int, cached: Int, new: Int, memory: AttentionCase.Memory? = nil) -> AttentionCase {
        var attention = AttentionCase(
          2 * beams, 3, headSize, [new], caption: true,
          memories: [.init(tokens: tokens, share: beams), .init(tokens: cached)])
        attention.isInt8 = isInt8
        if let memory { (attention.memories[0].keys, attention.memories[0].values) = (memory.keys, memory.values) }
        return attention
      }
      let first = attention(beams: 1, cached: 0, new: 2)
      let others = [(1, 1, 2), (3, 2, 2), (2, 60, 3), (1, 62, 1)].map { beams, cached, new in
        attention(beams: beams, cached: cached, new: new, memory: first.memories[0])
      }
      let expected = ([first] + others).map { $0.run(RawContext(.scalar)).bits }
      checkVariants(threads: [2]) { context in
        var store = AttentionCase.Store(first, keys: tokens + 64)
        var found = [first.run(context, store: store).bits]
        store.isFilled = true
        for var other in others {
          // Nothing but the last keys, which share four places with the text's, is read again.
          for key in 0..<2 * tokens where key % tokens < tokens / 4 * 4 || !isInt8 {
            for channel in 0..<other.width {
              other.memories[0].keys[key * other.width + channel] = .nan
              other.memories[0].values[key * other.width + channel] = .nan
            }
          }
          found.append(other.run(context, store: store).bits)
        }
        #expect(found == expected)
        return found.flatMap { $0 }
      }
    }
  }

  /// A store that is not filled takes the memory that it is given, whatever it held.
  @Test(arguments: [false, true]) func aStoreTakesAnotherMemory(isInt8: Bool) {
    var attention = AttentionCase(2, 2, 16, [2], caption: true, memories: [.init(tokens: 70), .init(tokens: 3)])
    attention.isInt8 = isInt8
    let store = AttentionCase.Store(attention, keys: 75)
    for _ in 0..<2 {
      #expect(attention.run(RawContext(.best), store: store).bits == attention.run(RawContext(.scalar)).bits)
      attention.memories[0].keys.reverse()
      attention.memories[0].values.reverse()
    }
  }
}
