import MultiwayCore
import MultiwayGraph
import MultiwayQuantization
import MultiwayTestSupport
import Testing

/// Tables of another image size against what each original implementation makes of them (Tools/reference/resizing.py).
@Suite struct ResamplingTests {
  /// What is resized in one way: the name in the fixture, the method for it, and the rows around the grid's.
  struct Case: Sendable, CustomTestStringConvertible {
    var code: String
    var table: String
    var method: Resampling.Method
    var leadingRows = 0
    var trailingRows = 0
    var testDescription: String { "\(code).\(table)" }
  }

  static let cases = [
    Case(code: "unilm", table: "beit3_positions", method: .bicubic, leadingRows: 3),
    Case(code: "unilm", table: "positions", method: .bicubic, leadingRows: 1),
    Case(code: "unilm", table: "table", method: .geometricCubic, trailingRows: 3),
    Case(code: "timm", table: "positions", method: .bicubicAntialiased, leadingRows: 1),
    Case(code: "timm", table: "table", method: .geometricLinear, trailingRows: 3),
    Case(code: "huggingface", table: "positions", method: .bicubic, leadingRows: 1),
    Case(code: "huggingface", table: "table", method: .bilinear, trailingRows: 3),
  ]

  @Test(arguments: cases, [(3, 5), (5, 3), (14, 24)])
  func tablesAreThoseOfTheOriginal(of item: Case, grids: (from: Int, to: Int)) throws {
    let values = try Fixtures.values("family/resized/resize.safetensors")
    let source = try #require(values["\(item.table).G\(grids.from)"])
    let golden = try #require(values["\(item.code).\(item.table).G\(grids.from)_to_G\(grids.to)"])
    let channels = source.shape.last
    let isWindow = item.table == "table"
    let resampling = Resampling(
      item.method, from: isWindow ? 2 * grids.from - 1 : grids.from, to: isWindow ? 2 * grids.to - 1 : grids.to,
      leadingRows: item.leadingRows, trailingRows: item.trailingRows)
    let rows = source.shape.elementCount / channels
    let table = StoredTensor(name: "table", dtype: .f32, shape: [rows, channels], elements: source.floats)
    let expression = TensorExpression.resampled(.stored(table), resampling)
    #expect(expression.shape == [golden.shape.elementCount / channels, channels])
    var materializer = Materializer(discardsSources: false)
    let result = try materializer.floats(of: expression)
    #expect(result.count == golden.floats.count)
    let largest = zip(result, golden.floats).map { abs($0 - $1) }.max() ?? .infinity
    // The originals compute in fp32, this one in double precision.
    #expect(largest <= 4e-6, "differs by \(largest)")
  }
}
