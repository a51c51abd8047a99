import Glibc
import MultiwayCore
import MultiwayGraph
import MultiwayReference
import MultiwayTestSupport
import Testing

@Suite struct AttentionTests {
  /// Attention of one item and head in double precision: [tokens, size] each.
  private func naive(_ q: [[Double]], _ k: [[Double]], _ v: [[Double]], isMasked: [Bool]) -> [[Double]] {
    q.map { query in
      let scores = k.indices.map { key in
        isMasked[key] ? -Double.infinity : zip(query, k[key]).reduce(0) { $0 + $1.0 * $1.1 }
      }
      let weights = scores.map { exp($0 - (scores.max() ?? 0)) }
      let sum = weights.reduce(0, +)
      return v[0].indices.map { column in
        v.indices.reduce(0) { $0 + weights[$1] * v[$1][column] } / sum
      }
    }
  }

  @Test func oneHeadByHand() throws {
    var small = SmallGraph()
    let q = small.floats("q", [1, 2, 1], [0, 1])
    let k = small.floats("k", [1, 2, 1], [0, Float(log(3.0))])
    let v = small.floats("v", [1, 2, 1], [4, 8])
    let result = try small.run(try small.add(.attention(Attention(heads: 1, isPadded: false)), q, k, v))[0]
    #expect(largestDifference(result.floats, [6, 7]) < 1e-6)
  }

  @Test func twoStreamsAttendToEachOtherUnderAMask() throws {
    var generator = SeededGenerator(seed: 3)
    let (batch, heads, size, lengths) = (2, 2, 4, [3, 2])
    let width = heads * size
    var small = SmallGraph()
    var values: [[Float]] = []
    var ids: [ValueID] = []
    for index in 0..<6 {
      let length = lengths[index / 3]
      values.append(generator.floats(batch * length * width, in: -2...2))
      ids.append(small.floats("x\(index)", [batch, length, width], values[index]))
    }
    let mask = [0, 1, 0, 0]
    ids.append(small.input("padding_mask", .u8, TensorValue([batch, 2], integers: mask)))
    let outputs = try small.graph.add(
      .attention(Attention(heads: heads, isPadded: true)), ids, names: ["vision", "text"], modality: .shared)
    let results = try small.run(outputs[0], outputs[1])
    #expect(results.map(\.shape) == [[2, 3, 8], [2, 2, 8]])
    for item in 0..<batch {
      for head in 0..<heads {
        func joint(_ part: Int) -> [[Double]] {
          (0..<2).flatMap { stream in
            (0..<lengths[stream]).map { token in
              let start = (item * lengths[stream] + token) * width + head * size
              return values[stream * 3 + part][start..<start + size].map(Double.init)
            }
          }
        }
        let isMasked = [false, false, false, mask[item * 2] != 0, mask[item * 2 + 1] != 0]
        let expected = naive(joint(0), joint(1), joint(2), isMasked: isMasked)
        for token in 0..<5 {
          let (stream, place) = token < 3 ? (0, token) : (1, token - 3)
          let start = (item * lengths[stream] + place) * width + head * size
          #expect(largestDifference(Array(results[stream].floats[start..<start + size]), expected[token]) < 1e-6)
        }
      }
    }
  }

  @Test func scoresOfAnySizeAreSafeAndNaNIsKept() throws {
    var small = SmallGraph()
    let q = small.floats("q", [2, 2, 1], [1e18, -1e18, .nan, 1])
    let k = small.floats("k", [2, 2, 1], [1e18, 0, 1, 0])
    let v = small.floats("v", [2, 2, 1], [1, 3, 1, 3])
    let result = try small.run(try small.add(.attention(Attention(heads: 1, isPadded: false)), q, k, v))[0].floats
    #expect(result[0] == 1 && result[1] == 3)
    #expect(result[2].isNaN && !result[3].isNaN)
  }

  @Test func aFullyMaskedItemBecomesZero() throws {
    var small = SmallGraph()
    let q = small.floats("q", [2, 1, 2], [1, 2, 3, 4])
    let mask = small.input("padding_mask", .u8, TensorValue([2, 1], integers: [1, 0]))
    let result = try small.run(try small.add(.attention(Attention(heads: 2, isPadded: true)), q, q, q, mask))[0]
    #expect(result.floats == [0, 0, 3, 4])
  }
}
