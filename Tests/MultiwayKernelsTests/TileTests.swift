import MultiwayKernels
import Testing

/// Matrix products on every size around their tiles: a tile is six rows or fewer of a part of a panel of 64 outputs, and runs over
/// quads of inputs or, in fp32, vectors of 16. Buffers end at guard pages.
/// That the scalar kernels follow the definition is for the tests of each family to say.
@Suite struct TileTests {
  @Test(arguments: 1...13) func int8Tiles(rows: Int) {
    let sizes = outputCounts.map { ($0, 1 + ($0 + 3 * rows) % 19) } + [1, 3, 4, 5, 8, 9, 16, 17].map { (66, $0) }
    let cases = sizes.map { Int8Case(rows, $1, $0) }
    checkVariants(threads: [2]) { context in
      cases.flatMap { $0.run(context, bias: true, residual: true, gelu: false).bits }
    }
  }

  @Test(arguments: WeightType.allCases, 1...13) func floatTiles(type: WeightType, rows: Int) {
    let sizes = outputCounts.map { ($0, 1 + ($0 + 5 * rows) % 35) } + [15, 16, 17, 31, 32, 33].map { (66, $0) }
    let cases = sizes.map { FloatCase(rows, $1, $0, type) }
    checkVariants(threads: [2]) { context in cases.flatMap { $0.run(context, epilogue: true).bits } }
  }

  @Test(arguments: [1, 4, 8, 15, 16, 17, 33, 63, 64, 65, 88]) func attentionTiles(headSize: Int) {
    let tokens = Array(1...13) + [15, 16, 17, 63, 64, 65, 66]
    let cases = tokens.flatMap { count in
      [
        AttentionCase(1, 2, headSize, [count]), AttentionCase(2, 1, headSize, [3, count], padded: true),
        AttentionCase(1, 1, headSize, [7, count], caption: true, biased: true),
      ]
    }
    checkVariants(threads: [2]) { context in cases.flatMap { $0.run(context).bits + $0.inInt8.run(context).bits } }
  }
}
