import MultiwayCore
import MultiwayGraph
import Testing

@Suite struct TokenOpTests {
  @Test func patchesGoRowByRowAndHoldChannelRowColumn() throws {
    var small = SmallGraph()
    let image = small.floats("image", [1, 2, 4, 4], (0..<32).map { Float($0) })
    let patches = try small.add(.patchify(size: 2), image)
    let result = try small.run(patches)[0]
    #expect(result.shape == [1, 4, 8])
    #expect(Array(result.floats[0..<8]) == [0, 1, 4, 5, 16, 17, 20, 21])
    #expect(Array(result.floats[8..<16]) == [2, 3, 6, 7, 18, 19, 22, 23])
    #expect(Array(result.floats[16..<24]) == [8, 9, 12, 13, 24, 25, 28, 29])
  }

  @Test func patchesOfAWideImageInABatch() throws {
    var small = SmallGraph()
    let image = small.floats("image", [2, 1, 1, 3], [0, 1, 2, 3, 4, 5])
    let result = try small.run(try small.add(.patchify(size: 1), image))[0]
    #expect(result == TensorValue([2, 3, 1], [0, 1, 2, 3, 4, 5]))
  }

  @Test(arguments: [DType.f32, .f16, .bf16])
  func embeddingLooksRowsUp(dtype: DType) throws {
    var small = SmallGraph()
    let ids = small.input("text", .i64, TensorValue([2, 2], integers: [2, 0, 2, 1]))
    let table = small.constant("table", [3, 2], [0, 1, 10, 11, 20, 21], as: dtype)
    let result = try small.run(try small.add(.embedding(table: table), ids))[0]
    #expect(result == TensorValue([2, 2, 2], [20, 21, 0, 1, 20, 21, 10, 11]))
  }

  @Test func prependedTokenStandsFirstInEveryItem() throws {
    var small = SmallGraph()
    let tokens = small.floats("x", [2, 1, 2], [1, 2, 3, 4])
    let token = small.constant("token", [2], [8, 9])
    let result = try small.run(try small.add(.prependToken(token), tokens))[0]
    #expect(result == TensorValue([2, 2, 2], [8, 9, 1, 2, 8, 9, 3, 4]))
  }

  @Test func positionsStartAtTheFirstRow() throws {
    var small = SmallGraph()
    let tokens = small.floats("x", [2, 2, 1], [1, 2, 3, 4])
    let table = small.constant("table", [4, 1], [100, 200, 10, 20])
    let result = try small.run(try small.add(.addPositions(table: table, firstRow: 2), tokens))[0]
    #expect(result == TensorValue([2, 2, 1], [11, 22, 13, 24]))
  }

  @Test func paddingOfAnyNumberTypeMakesZeros() throws {
    for mask in [TensorValue([1, 3], integers: [0, 7, 0]), TensorValue([1, 3], [0, 0.5, -0.0])] {
      var small = SmallGraph()
      let tokens = small.floats("x", [1, 3, 2], [1, 2, .nan, 4, 5, 6])
      let padding = small.input("padding_mask", .u8, mask)
      let result = try small.run(try small.add(.zeroPadding, tokens, padding))[0]
      #expect(result.floats == [1, 2, 0, 0, 5, 6])
    }
  }

  @Test func meanLeavesTheFirstTokensOut() throws {
    var small = SmallGraph()
    let tokens = small.floats("x", [2, 3, 2], [9, 9, 1, 2, 3, 6, 9, 9, 5, 6, 7, 8])
    let result = try small.run(try small.add(.meanTokens(first: 1), tokens))[0]
    #expect(result == TensorValue([2, 2], [2, 4, 6, 7]))
  }

  @Test func selectTakesOneToken() throws {
    var small = SmallGraph()
    let tokens = small.floats("x", [2, 2, 2], [1, 2, 3, 4, 5, 6, 7, 8])
    let result = try small.run(try small.add(.selectToken(1), tokens))[0]
    #expect(result == TensorValue([2, 2], [3, 4, 7, 8]))
  }

  @Test func dropLeavesTheFirstTokensOut() throws {
    var small = SmallGraph()
    let tokens = small.floats("x", [2, 3, 1], [1, 2, 3, 4, 5, 6])
    let result = try small.run(try small.add(.dropTokens(first: 1), tokens))[0]
    #expect(result == TensorValue([2, 2, 1], [2, 3, 5, 6]))
  }

  @Test func joinPutsStreamsAfterOneAnotherItemByItem() throws {
    var small = SmallGraph()
    let first = small.floats("a", [2, 1, 1], [1, 2])
    let second = small.floats("b", [2, 2, 1], [3, 4, 5, 6])
    let result = try small.run(try small.add(.joinTokens, first, second))[0]
    #expect(result == TensorValue([2, 3, 1], [1, 3, 4, 2, 5, 6]))
  }
}
