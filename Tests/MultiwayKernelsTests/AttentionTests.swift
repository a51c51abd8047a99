import CMultiwayKernels
import Glibc
import MultiwayKernels
import Testing

/// One attention over one or two segments, q, k and v side by side in rows with a gap.
struct AttentionCase: CustomTestStringConvertible {
  var batch: Int, heads: Int, headSize: Int, tokens: [Int]
  var caption = false
  var padded = false
  var qkv: [[Float]] = []
  var padding: [UInt8] = []
  let gap = 5

  var width: Int { heads * headSize }
  var stride: Int { 3 * width + gap }
  var total: Int { tokens.reduce(0, +) }
  var testDescription: String {
    "\(batch)×\(tokens) heads \(heads)×\(headSize)\(caption ? " caption" : "")\(padded ? " padded" : "")"
  }

  init(_ batch: Int, _ heads: Int, _ headSize: Int, _ tokens: [Int], caption: Bool = false, padded: Bool = false) {
    (self.batch, self.heads, self.headSize, self.tokens) = (batch, heads, headSize, tokens)
    (self.caption, self.padded) = (caption, padded)
    var numbers = Numbers(seed: batch + heads + headSize + total)
    qkv = tokens.map { numbers.floats(max(0, batch * $0 * stride - gap), scale: 2) }
    padding = (0..<(batch * total)).map { _ in padded && numbers.next() % 3 == 0 ? 1 : 0 }
    // The first example's keys are all excluded: its rows must become zeros.
    if padded { for key in 0..<total { padding[key] = 1 } }
  }

  func run(_ context: RawContext) -> [Float] {
    let inputs = qkv.map { GuardedBuffer($0) }
    let outputs = tokens.map { GuardedBuffer<Float>(count: batch * $0 * width) }
    let mask = GuardedBuffer(padding)
    var job = unsafe mwk_attention_job()
    unsafe job.batch = batch
    unsafe job.heads = heads
    unsafe job.head_size = headSize
    unsafe job.scale = 0.3
    unsafe job.segment_count = tokens.count
    unsafe job.mode = caption ? mwk_attention_caption : mwk_attention_full
    unsafe job.key_padding = padded ? UnsafePointer(mask.pointer) : nil
    for s in tokens.indices {
      let start = unsafe inputs[s].pointer
      let segment = unsafe mwk_attention_segment(
        q: start, k: start + width, v: start + 2 * width, out: outputs[s].pointer, tokens: tokens[s], stride: stride,
        out_stride: width)
      if s == 0 { unsafe job.segments.0 = segment } else { unsafe job.segments.1 = segment }
    }
    #expect(unsafe mwk_attention_f32(context.pointer, &job) == mwk_ok)
    withExtendedLifetime((inputs, mask)) {}
    return outputs.flatMap(\.values)
  }

  private func element(_ part: Int, _ example: Int, _ token: Int, _ channel: Int) -> Double {
    let s = token < tokens[0] ? 0 : 1
    let row = example * tokens[s] + (s == 0 ? token : token - tokens[0])
    return Double(qkv[s][row * stride + part * width + channel])
  }

  private func keys(_ example: Int, _ token: Int) -> [Int] {
    let limit = !caption ? total : token < tokens[0] ? tokens[0] : token + 1
    return (0..<limit).filter { padding[example * total + $0] == 0 }
  }

  /// Attention in Double, as [segment][batch][tokens][width].
  func reference() -> [Double] {
    var result: [Double] = []
    for s in tokens.indices {
      for example in 0..<batch {
        for t in 0..<tokens[s] {
          let token = s == 0 ? t : tokens[0] + t
          let keys = keys(example, token)
          for head in 0..<heads {
            let channels = (head * headSize)..<((head + 1) * headSize)
            let scores = keys.map { key in
              0.3 * channels.reduce(0) { $0 + element(0, example, token, $1) * element(1, example, key, $1) }
            }
            let top = scores.max() ?? 0
            let weights = scores.map { Glibc.exp($0 - top) }
            let sum = weights.reduce(0, +)
            for c in channels {
              let value = zip(keys, weights).reduce(0) { $0 + $1.1 * element(2, example, $1.0, c) }
              result.append(keys.isEmpty ? 0 : value / sum)
            }
          }
        }
      }
    }
    return result
  }
}

@Suite struct AttentionTests {
  static let cases = [
    AttentionCase(1, 1, 64, [1]), AttentionCase(2, 3, 32, [7]), AttentionCase(1, 2, 88, [20]),
    AttentionCase(1, 1, 64, [64]), AttentionCase(1, 1, 5, [65]), AttentionCase(2, 2, 16, [13, 9]),
    AttentionCase(2, 2, 16, [13, 9], padded: true), AttentionCase(2, 2, 16, [13, 9], caption: true),
    AttentionCase(3, 1, 24, [70, 11], caption: true, padded: true), AttentionCase(2, 1, 8, [30], caption: true),
    AttentionCase(1, 1, 8, [0, 6], caption: true), AttentionCase(1, 1, 8, [6, 0]),
  ]

  @Test(arguments: cases) func variantsAgreeAndAreCloseToExact(attention: AttentionCase) {
    let y = checkVariants { attention.run($0).bits }.floats
    let exact = attention.reference()
    #expect(y.count == exact.count)
    // Scores reach 0.3 · 4 · headSize; their rounding, a few ulp, is the relative error of the weights. Values reach 2.
    let tolerance = 2e-6 * Double(attention.headSize)
    let worst = zip(y, exact).map { abs(Double($0) - $1) }.max() ?? 0
    #expect(worst <= tolerance)
  }

  @Test(arguments: [AttentionCase(1, 12, 64, [197]), AttentionCase(1, 2, 64, [197, 64], padded: true)])
  func modelShapes(attention: AttentionCase) {
    checkVariants(threads: [2, 5]) { attention.run($0).bits }
  }

  @Test func whatIsExcludedCannotPoison() {
    var attention = AttentionCase(2, 1, 16, [10], padded: true)
    let clean = attention.run(RawContext(.best))
    for key in 0..<20 where attention.padding[key] != 0 {
      for c in 16..<48 { attention.qkv[0][key * attention.stride + c] = c % 2 == 0 ? .nan : .infinity }
    }
    let poisoned = checkVariants { attention.run($0).bits }
    #expect(poisoned == clean.bits)
  }

  @Test func laterTokensCannotPoisonACaption() {
    var attention = AttentionCase(1, 1, 16, [9, 13], caption: true)
    let clean = attention.run(RawContext(.best)).bits
    for c in 16..<48 { attention.qkv[1][7 * attention.stride + c] = .nan }
    let poisoned = checkVariants { attention.run($0).bits }
    #expect(poisoned.prefix(16 * 16) == clean.prefix(16 * 16))
    #expect(Array(poisoned.dropFirst(16 * 16)).floats.allSatisfy { $0.isNaN })
  }

  @Test func nanInAKeyReachesEveryRow() {
    var attention = AttentionCase(1, 1, 16, [10])
    attention.qkv[0][3 * attention.stride + 16] = .nan
    let y = checkVariants { attention.run($0).bits }.floats
    #expect(y.allSatisfy { $0.isNaN })
  }
}
