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

  /// Two memories, one shared by two examples, and a caption's mask over two streams.
  @Test func memoriesComeFirstAndACaptionLooksBack() throws {
    var generator = SeededGenerator(seed: 4)
    let (size, batch) = (3, 4)
    var small = SmallGraph()
    func tokens(_ name: String, _ examples: Int, _ count: Int, symbol: String? = nil) -> (ValueID, [Float]) {
      let values = generator.floats(examples * count * size, in: -2...2)
      return (small.floats(name, [examples, count, size], values), values)
    }
    let shared = ["mk", "mv"].map { name -> (ValueID, [Float]) in
      let values = generator.floats(2 * 2 * size, in: -2...2)
      let id = small.input(name, .f32, TensorValue([2, 2, size], values), batch: "images")
      return (id, values)
    }
    let own = ["ok", "ov"].map { tokens($0, batch, 1) }
    let image = ["iq", "ik", "iv"].map { tokens($0, batch, 2) }
    let text = ["tq", "tk", "tv"].map { tokens($0, batch, 3) }
    let outputs = try small.graph.add(
      .attention(Attention(heads: 1, mask: .caption, memories: 2)), (shared + own + image + text).map(\.0),
      names: ["image", "text"], modality: .shared)
    let results = try small.run(outputs[0], outputs[1])
    for example in 0..<batch {
      func part(_ values: [Float], _ count: Int, of place: Int? = nil) -> [[Double]] {
        (0..<count).map { token in
          let start = ((place ?? example) * count + token) * size
          return values[start..<start + size].map(Double.init)
        }
      }
      func joint(_ part1: Int) -> [[Double]] {
        part(shared[part1].1, 2, of: example / 2) + part(own[part1].1, 1) + part(image[part1 + 1].1, 2)
          + part(text[part1 + 1].1, 3)
      }
      let queries = part(image[0].1, 2) + part(text[0].1, 3)
      for (place, query) in queries.enumerated() {
        let limit = place < 2 ? 5 : 5 + place - 1
        let expected = naive(
          [query], joint(0), joint(1), isMasked: (0..<8).map { $0 >= limit })[0]
        let (stream, token, count) = place < 2 ? (0, place, 2) : (1, place - 2, 3)
        let start = (example * count + token) * size
        #expect(largestDifference(Array(results[stream].floats[start..<start + size]), expected) < 1e-6)
      }
    }
  }

  /// A bias of +∞'s opposite takes a key out; others move the weights as if the scores had them.
  @Test func aBiasIsAddedToTheScores() throws {
    var small = SmallGraph()
    let q = small.floats("q", [1, 3, 2], [1, 1, 1, 1, 1, 1])
    let v = small.floats("v", [1, 3, 2], [1, 10, 2, 20, 4, 40])
    let table = small.constant("table", [3, 2], [0, Float(log(2.0)), -100, 0, Float(log(3.0)), 0])
    let stored = StoredTensor(
      name: "index", dtype: .i16, shape: [3, 3], elements: [0, 1, 2, 1, 0, 1, 0, 0, 0] as [Int16])
    let index = small.graph.addConstant(
      Constant(name: "index", role: .relativePositionIndex, modality: .shared, data: .stored(stored)))
    let attention = Attention(heads: 2, bias: RelativeBias(table: table, index: index))
    let result = try small.run(try small.add(.attention(attention), q, q, v))[0].floats
    // Head 0: weights 1 : 0 : 3, then 0 : 1 : 0, then equal. Head 1: 2 : 1 : 1, then 1 : 2 : 1, then equal.
    #expect(
      largestDifference(result, [(1 + 12) / 4, (20 + 20 + 40) / 4, 2, (10 + 40 + 40) / 4, 7.0 / 3, 70.0 / 3]) < 1e-5)
  }

  @Test(arguments: [0, 3])
  func aMemoryThatDoesNotDivideTheBatchIsAnError(examples: Int) throws {
    var small = SmallGraph()
    let count = examples * 2
    let memory = small.input(
      "memory", .f32, TensorValue([examples, 1, 2], [Float](repeating: 1, count: count)), batch: "images")
    let x = small.floats("x", [4, 1, 2], [Float](repeating: 1, count: 8))
    let y = try small.add(.attention(Attention(heads: 1, memories: 1)), memory, memory, x, x, x)
    #expect(throws: (any Error).self) { _ = try small.run(y) }
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
