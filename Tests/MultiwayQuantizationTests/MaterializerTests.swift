import MultiwayCore
import MultiwayGraph
import MultiwayQuantization
import MultiwayTestSupport
import Testing

/// Expressions over seeded weights, and what plain loops make of them.
private struct Samples {
  static let (rows, columns) = (70, 13)
  let weights: [Float]
  let factors: [Float]
  let bias: [Float]

  init() {
    var generator = SeededGenerator(seed: 11)
    weights = generator.floats(Samples.rows * Samples.columns, in: -3...3)
    factors = generator.floats(Samples.columns)
    bias = generator.floats(Samples.rows)
  }

  static func stored(_ shape: Shape, _ elements: [Float]) -> TensorExpression {
    .stored(StoredTensor(name: "w", dtype: .f32, shape: shape, elements: elements))
  }

  var matrix: TensorExpression { Samples.stored([Samples.rows, Samples.columns], weights) }
  var scales: TensorExpression { Samples.stored([Samples.columns], factors) }

  /// The transposed weights, seen through strides that undo it.
  var strided: TensorExpression {
    var transposed: [Float] = []
    for column in 0..<Samples.columns {
      for row in 0..<Samples.rows { transposed.append(weights[row * Samples.columns + column]) }
    }
    return .stored(
      StoredTensor(
        name: "t", dtype: .f32, shape: [Samples.rows, Samples.columns], strides: [1, Samples.rows],
        storage: MemoryStorage(TensorBytes(copying: transposed))))
  }

  /// [columns, rows].
  var transposed: [Float] {
    (0..<Samples.columns).flatMap { column in
      (0..<Samples.rows).map { weights[$0 * Samples.columns + column] }
    }
  }

  var scaledColumns: [Float] { weights.indices.map { weights[$0] * factors[$0 % Samples.columns] } }

  func shifted(_ start: [Float]) -> [Float] {
    (0..<Samples.rows).map { row in
      var sum = Double(start[row])
      for column in 0..<Samples.columns {
        sum += Double(weights[row * Samples.columns + column]) * Double(factors[column])
      }
      return Float(sum)
    }
  }

  var scaledRows: [Float] { weights.indices.map { weights[$0] * bias[$0 / Samples.columns] } }

  func columns(_ range: Range<Int>, _ values: [Float]) -> [Float] {
    (0..<Samples.rows).flatMap { row in range.map { values[row * Samples.columns + $0] } }
  }

  func rows(_ range: Range<Int>, _ values: [Float]) -> [Float] {
    Array(values[range.lowerBound * Samples.columns..<range.upperBound * Samples.columns])
  }

  /// Each expression with its fp32 elements.
  var cases: [(TensorExpression, [Float])] {
    let half = weights.map { HalfPrecision.float(fromF16: HalfPrecision.f16(from: $0)) }
    let brain = weights.map { HalfPrecision.float(fromBF16: HalfPrecision.bf16(from: $0)) }
    let zeros = [Float](repeating: 0, count: Samples.rows)
    let rowScales = Samples.stored([Samples.rows], bias)
    return [
      (.columns(matrix, 2..<9), columns(2..<9, weights)), (.columns(strided, 2..<9), columns(2..<9, weights)),
      (.columns(.cast(matrix, .f16), 12..<13), columns(12..<13, half)), (.columns(matrix, 5..<5), []),
      (.columns(.rows(matrix, 0..<70), 0..<13), weights),
      (.rows(.columns(.scaled(matrix, by: 2), 0..<13), 3..<9), rows(3..<9, weights.map { $0 * 2 })),
      (.rowsScaled(matrix, by: rowScales), scaledRows), (.rowsScaled(strided, by: rowScales), scaledRows),
      (.rows(.rowsScaled(matrix, by: rowScales), 60..<70), rows(60..<70, scaledRows)),
      (.rowsScaled(rowScales, by: rowScales), bias.map { $0 * $0 }),
      (
        .columnsScaled(.rowsScaled(matrix, by: rowScales), by: scales),
        scaledRows.indices.map { scaledRows[$0] * factors[$0 % Samples.columns] }
      ),
      (matrix, weights), (strided, weights), (.reshaped(matrix, [13, 10, 7]), weights),
      (.reshaped(strided, [910]), weights), (.rows(matrix, 3..<9), rows(3..<9, weights)),
      (.rows(strided, 3..<9), rows(3..<9, weights)), (.rows(.rows(matrix, 3..<60), 2..<20), rows(5..<23, weights)),
      (.permuted(matrix, axes: [1, 0]), transposed), (.permuted(strided, axes: [1, 0]), transposed),
      (.permuted(.permuted(.scaled(matrix, by: 0.5), axes: [1, 0]), axes: [1, 0]), weights.map { $0 * 0.5 }),
      (.reshaped(.permuted(.reshaped(matrix, [70, 13, 1]), axes: [1, 2, 0]), [13, 70]), transposed),
      (.cast(.reshaped(.permuted(matrix, axes: [1, 0]), [13, 10, 7]), .f32), transposed),
      (.rows(.permuted(matrix, axes: [1, 0]), 2..<4), Array(transposed[2 * Samples.rows..<4 * Samples.rows])),
      (.joinedRows([scales, scales]), factors + factors),
      (.rows(matrix, 4..<4), []), (.scaled(matrix, by: 0.3), weights.map { $0 * 0.3 }),
      (.columnsScaled(matrix, by: scales), scaledColumns), (.columnsScaled(strided, by: scales), scaledColumns),
      (.rows(.columnsScaled(matrix, by: scales), 60..<70), rows(60..<70, scaledColumns)),
      (.shiftedBias(nil, weight: matrix, shift: scales), shifted(zeros)),
      (.shiftedBias(Samples.stored([Samples.rows], bias), weight: strided, shift: scales), shifted(bias)),
      (.cast(matrix, .f16), half), (.cast(strided, .bf16), brain), (.cast(.cast(matrix, .bf16), .f32), brain),
      (.rows(.cast(matrix, .f16), 1..<3), rows(1..<3, half)),
      (.scaled(.cast(matrix, .f16), by: -2), half.map { $0 * -2 }),
      (
        .cast(.scaled(.columnsScaled(matrix, by: scales), by: 0.125), .bf16),
        scaledColumns.map { HalfPrecision.float(fromBF16: HalfPrecision.bf16(from: $0 * 0.125)) }
      ),
    ]
  }
}

@Suite struct MaterializerTests {
  @Test func expressionsAgreeWithPlainLoops() throws {
    for (expression, expected) in Samples().cases {
      for discards in [false, true] {
        var materializer = Materializer(discardsSources: discards)
        let floats = try materializer.floats(of: expression)
        #expect(floats == expected, "\(expression.shape)")
        let bytes = try materializer.bytes(of: expression)
        #expect(bytes.byteCount == expression.shape.byteCount(of: expression.dtype))
        let decoded = try StoredTensor(
          name: "x", dtype: expression.dtype, shape: expression.shape, storage: MemoryStorage(bytes)
        ).floats()
        #expect(decoded == expected, "\(expression.shape)")
      }
    }
  }

  @Test(arguments: [1, 60, 500, 1 << 20])
  func piecesTogetherAreTheWhole(pieceBytes: Int) throws {
    let matrix = QuantizedMatrix(Samples().matrix)
    let quantized = QuantizedMatrix.Component.allCases.map { TensorExpression.quantized(matrix, $0) }
    for expression in Samples().cases.map(\.0) + quantized {
      var materializer = Materializer(discardsSources: true)
      let whole = try materializer.bytes(of: expression).array(of: UInt8.self)
      var joined: [UInt8] = []
      var largest = 0
      try materializer.forEachPiece(of: expression, pieceBytes: pieceBytes) { piece in
        joined += piece.array
        largest = max(largest, piece.byteCount)
      }
      #expect(joined == whole, "\(expression.shape)")
      if case .columnsScaled = expression { #expect(largest <= max(pieceBytes, Samples.columns * 4)) }
    }
  }

  @Test func batchNormsComeDownToAFactorAndASum() throws {
    let norm = BatchNorm(
      weight: Samples.stored([3], [2, -1, 0.5]), bias: Samples.stored([3], [1, 2, 3]),
      mean: Samples.stored([3], [0.5, 0, -4]), variance: Samples.stored([3], [4, 0.25, 0]), epsilon: 0.25)
    var materializer = Materializer(discardsSources: true)
    let scale = try materializer.floats(of: .batchNormScale(norm))
    #expect(scale == [Float(2 / 4.25.squareRoot()), Float(-1 / 0.5.squareRoot()), 1])
    let shift = try materializer.floats(of: .batchNormShift(norm, bias: Samples.stored([3], [1, 0, 2])))
    #expect(shift == [Float(1 + 0.5 * (2 / 4.25.squareRoot())), 2, 9])
    #expect(try materializer.floats(of: .batchNormShift(norm, bias: nil))[2] == 7)
    #expect(TensorExpression.batchNormShift(norm, bias: Samples().scales).sources.count == 5)
  }

  @Test func sourcesAreOnlyTheStoredTensors() {
    let samples = Samples()
    let folded = TensorExpression.cast(.columnsScaled(samples.matrix, by: samples.scales), .f16)
    #expect(folded.sources.map(\.shape) == [[Samples.rows, Samples.columns], [Samples.columns]])
    let sums = TensorExpression.quantized(QuantizedMatrix(folded), .sums)
    #expect(sums.sources.count == 2 && sums.dtype == .i32 && sums.shape == [1, Samples.rows])
  }

  @Test func castsThatOverflowAreRefused() throws {
    var materializer = Materializer(discardsSources: false)
    let large = Samples.stored([1, 3], [1, 65519, 65520])
    #expect {
      _ = try materializer.bytes(of: .cast(large, .f16))
    } throws: { error in
      guard let error = error as? QuantizationError else { return false }
      return error.code == .overflow && error.category == .data && error.description.contains("element 2 is 65520.0")
    }
    let fits = try materializer.floats(of: .cast(Samples.stored([2], [65519, -65519]), .f16))
    #expect(fits == [65504, -65504])
    // What is infinite before stays so: nothing was lost by the cast.
    let infinite = try materializer.floats(of: .cast(Samples.stored([2], [.infinity, .nan]), .bf16))
    #expect(infinite[0] == .infinity && infinite[1].isNaN)
    #expect(throws: QuantizationError.self) {
      _ = try materializer.bytes(of: .cast(Samples.stored([1], [3.4e38]), .bf16))
    }
  }

  @Test func castsToOtherTypesAreRefused() {
    var materializer = Materializer(discardsSources: false)
    #expect(throws: TensorError.self) { _ = try materializer.bytes(of: .cast(Samples().matrix, .i32)) }
    #expect(throws: TensorError.self) {
      _ = try materializer.floats(of: .quantized(QuantizedMatrix(Samples().matrix), .panels))
    }
  }
}

@Suite struct QuantizedMatrixTests {
  @Test func channelsAgreeWithPlainLoops() throws {
    let samples = Samples()
    let (rows, columns) = (Samples.rows, Samples.columns)
    let matrix = QuantizedMatrix(samples.matrix)
    var materializer = Materializer(discardsSources: false)
    let panels = try materializer.bytes(of: .quantized(matrix, .panels)).array(of: Int8.self)
    let scales = try materializer.bytes(of: .quantized(matrix, .scales)).array(of: Float.self)
    let sums = try materializer.bytes(of: .quantized(matrix, .sums)).array(of: Int32.self)
    #expect(panels.count == 2 * 4 * 64 * 4)
    let unpacked = Int8Panels.unpacked(panels, outputs: rows, inputs: columns)
    for row in 0..<rows {
      let weights = samples.weights[row * columns..<(row + 1) * columns]
      let largest = weights.map(abs).max() ?? 0
      let expected = weights.map { Int8(($0 * (127 / largest)).rounded(.toNearestOrEven)) }
      #expect(scales[row] == largest / 127)
      #expect(Array(unpacked[row * columns..<(row + 1) * columns]) == expected)
      #expect(sums[row] == expected.reduce(0) { $0 + Int32($1) })
      #expect(expected.contains { abs($0) == 127 })
    }
    // The padding of the panels is zero.
    #expect(panels.filter { $0 != 0 }.count == unpacked.filter { $0 != 0 }.count)
  }

  @Test func panelsHoldFourInputsOfAnOutputTogether() {
    #expect(Int8Panels.offset(output: 0, input: 3, inputs: 9) == 3)
    #expect(Int8Panels.offset(output: 1, input: 0, inputs: 9) == 4)
    #expect(Int8Panels.offset(output: 0, input: 4, inputs: 9) == 256)
    #expect(Int8Panels.offset(output: 64, input: 0, inputs: 9) == 3 * 256)
    #expect(Int8Panels.offset(output: 65, input: 8, inputs: 9) == 5 * 256 + 4)
  }

  @Test func channelsOfNothingBecomeZeros() throws {
    // The second channel is not zero, but so small that 127 / max|w| would overflow.
    let weights = Samples.stored([2, 2], [0, 0, 0x1p-130, 0])
    let matrix = QuantizedMatrix(weights)
    var materializer = Materializer(discardsSources: false)
    let panels = try materializer.bytes(of: .quantized(matrix, .panels)).array(of: Int8.self)
    let scales = try materializer.bytes(of: .quantized(matrix, .scales)).array(of: Float.self)
    #expect(panels.allSatisfy { $0 == 0 } && scales == [1, 1])
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity])
  func weightsThatAreNotFiniteAreRefused(value: Float) {
    let matrix = QuantizedMatrix(Samples.stored([2, 2], [0, 1, 2, value]))
    var materializer = Materializer(discardsSources: false)
    #expect {
      _ = try materializer.bytes(of: .quantized(matrix, .scales))
    } throws: { error in
      guard let error = error as? QuantizationError else { return false }
      return error.code == .nonFinite && error.diagnosis.tensor == "w" && error.description.contains("1 of 2 rows")
    }
  }
}

/// Matrices in blocks of ggml.
@Suite struct BlockMaterializerTests {
  private static let shape: Shape = [70, 96]

  private func matrix(_ change: (inout [Float]) -> Void = { _ in }) -> TensorExpression {
    var generator = SeededGenerator(seed: 12)
    var weights = generator.floats(Self.shape.elementCount, in: -0.2...0.2)
    change(&weights)
    return .stored(StoredTensor(name: "w", dtype: .f32, shape: Self.shape, elements: weights))
  }

  /// The numbers are what the bytes stand for, in every piece and of any rows; bytes in a file are read in place.
  @Test(arguments: BlockType.allCases.filter(\.isComputed)) func bytesAndNumbersAgree(type: BlockType) throws {
    var materializer = Materializer(discardsSources: false)
    let expression = TensorExpression.blocks(matrix(), type)
    let (encodedType, data) = try #require(expression.encoded)
    #expect(encodedType == type && data.dtype == .u8 && expression.typeName == type.rawValue)
    #expect(data.shape == [70, 3 * type.byteCount] && expression.shape == Self.shape && expression.dtype == .f32)
    let bytes = try materializer.bytes(of: data)
    let storage = BlockStorage(type, elementCount: Self.shape.elementCount, blocks: MemoryStorage(bytes))
    let stored = StoredTensor(name: "w", dtype: .f32, shape: Self.shape, storage: storage)
    let numbers = try stored.floats()
    #expect(try materializer.floats(of: expression) == numbers)
    #expect(try materializer.bytes(of: expression).array(of: Float.self) == numbers)
    #expect(try materializer.floats(of: .rows(expression, 3..<5)) == Array(numbers[3 * 96..<5 * 96]))
    for pieceSize in [1, 1000, 1 << 20] {
      for (form, whole) in [
        (data, bytes.array(of: UInt8.self)), (expression, TensorBytes(copying: numbers).array(of: UInt8.self)),
      ] {
        var pieces: [UInt8] = []
        var peeking = Materializer(peekingFor: nil)
        try peeking.stream(form, pieceSize: pieceSize) { piece, _ in pieces += piece.array(of: UInt8.self) }
        #expect(pieces == whole)
        #expect(Materializer.workingByteCount(of: form, pieceSize: pieceSize) <= 5 * 70 * 96 * 4)
      }
    }
    let (readType, view) = try #require(TensorExpression.stored(stored).encoded)
    #expect(readType == type && stored.typeName == type.rawValue && stored.storedByteCount == bytes.byteCount)
    #expect(try materializer.bytes(of: view).array(of: UInt8.self) == bytes.array(of: UInt8.self))
  }

  /// A view that does not begin with a block, or is no matrix, is read as numbers.
  @Test func otherViewsAreNumbers() throws {
    var materializer = Materializer(discardsSources: false)
    let bytes = try materializer.bytes(of: .blockBytes(matrix(), .q8_0))
    let storage = BlockStorage(.q8_0, elementCount: Self.shape.elementCount, blocks: MemoryStorage(bytes))
    func view(_ shape: Shape, offset: Int, strides: [Int]? = nil) -> StoredTensor {
      StoredTensor(name: "w", dtype: .f32, shape: shape, strides: strides, elementOffset: offset, storage: storage)
    }
    #expect(view([2, 96], offset: 96).blocks?.bytes.elementOffset == 3 * 34)
    for tensor in [
      view([2, 96], offset: 16), view([6, 16], offset: 0), view([96, 2], offset: 0, strides: [1, 96]),
      view([70, 97], offset: 0),
    ] { #expect(tensor.blocks == nil) }
    #expect(TensorExpression.stored(view([96], offset: 0)).encoded == nil)
  }

  @Test func whatCannotBeEncodedIsNamed() throws {
    for (value, code) in [(Float.nan, QuantizationErrorCode.nonFinite), (1e8, .overflow)] {
      var materializer = Materializer(discardsSources: false)
      let error = #expect(throws: QuantizationError.self) {
        _ = try materializer.bytes(of: .blockBytes(matrix { $0[100] = value }, .q4_1))
      }
      #expect(error?.code == code && error?.diagnosis.tensor == "w")
    }
    var materializer = Materializer(discardsSources: false)
    let narrow = TensorExpression.stored(
      StoredTensor(name: "w", dtype: .f32, shape: [2, 33], elements: [Float](repeating: 0, count: 66)))
    #expect(throws: TensorError.self) { _ = try materializer.bytes(of: .blockBytes(narrow, .q8_0)) }
    #expect(throws: TensorError.self) { _ = try materializer.bytes(of: .blockBytes(matrix(), .q5_0)) }
  }
}
