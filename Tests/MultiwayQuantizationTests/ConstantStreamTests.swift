import MultiwayCore
import MultiwayGraph
import MultiwayQuantization
import MultiwayTestSupport
import Synchronization
import Testing

/// Numbers in memory as a file's, which counts how many bytes are asked for.
private final class CountingStorage: TensorStorage {
  let byteCount: Int
  private let contents: TensorBytes
  private let asked = Mutex(0)

  init(_ elements: [Float]) {
    contents = TensorBytes(copying: elements)
    byteCount = contents.byteCount
  }

  var count: Int { asked.withLock { $0 } }
  var workingByteCount: Int { 0 }
  func load() -> TensorBytes { load(in: 0..<byteCount) }
  func load(in range: Range<Int>) -> TensorBytes {
    asked.withLock { $0 += range.count }
    return contents.extracting(range)
  }
  func discard() {}
}

/// Constants as a writer takes them.
@Suite struct ConstantStreamTests {
  private static let (outputs, inputs) = (900, 768)

  /// A matrix of three pieces.
  private let storage: CountingStorage
  private let matrix: TensorExpression
  private let start: TensorExpression
  private let shift: TensorExpression
  private let scales: TensorExpression

  init() {
    var generator = SeededGenerator(seed: 21)
    func vector(_ name: String, _ count: Int) -> TensorExpression {
      .stored(StoredTensor(name: name, dtype: .f32, shape: [count], elements: generator.floats(count, in: -2...2)))
    }
    (start, shift) = (vector("start", Self.outputs), vector("shift", Self.inputs))
    scales = vector("scales", Self.inputs)
    storage = CountingStorage(generator.floats(Self.outputs * Self.inputs, in: -3...3))
    matrix = .stored(StoredTensor(name: "w", dtype: .f32, shape: [Self.outputs, Self.inputs], storage: storage))
  }

  private func streamed(_ data: [TensorExpression]) throws -> [[UInt8]] {
    let constants = data.enumerated().map {
      Constant(name: "constant.\($0)", role: .attentionQuery, modality: .vision, data: $1)
    }
    let stream = try SourceStream(constants, ledger: SourceLedger(of: data.flatMap(\.sources)))
    var (items, item): ([[UInt8]], [UInt8]) = ([], [])
    try stream.run(constants, consume: { item += $0.array(of: UInt8.self) }) { index, _ in
      #expect(index == items.count)
      items.append(item)
      item = []
    }
    return items
  }

  /// The panels, scales and sums of a layer, and a bias into which a norm's is folded, take one reading of the weights, and are what
  /// each is by itself.
  @Test(arguments: [1, 0.125] as [Float], [false, true])
  func aFoldedBiasComesOutOfTheSameReading(factor: Float, isBalanced: Bool) throws {
    let weight = factor == 1 ? matrix : .scaled(matrix, by: factor)
    let quantized = QuantizedMatrix(isBalanced ? .columnsScaled(weight, by: scales) : weight)
    let layer = QuantizedMatrix.Component.allCases.map { TensorExpression.quantized(quantized, $0) }
    let bias = TensorExpression.shiftedBias(start, weight: weight, shift: shift)
    let items = try streamed(layer + [bias])
    #expect(storage.count == storage.byteCount)
    // Apart from its layer a bias reads the weights for itself.
    #expect(try streamed([bias] + layer) == items.suffix(1) + items.prefix(3))
    #expect(storage.count == 3 * storage.byteCount)
    for (item, expression) in zip(items, layer + [bias]) {
      var materializer = Materializer(discardsSources: false)
      #expect(try item == materializer.bytes(of: expression).array(of: UInt8.self))
    }
  }

  /// A bias that is folded with other weights than those before it is computed from its own.
  @Test func biasesOfOtherWeightsAreTheirOwn() throws {
    let quantized = QuantizedMatrix(.scaled(matrix, by: 0.5))
    let layer = QuantizedMatrix.Component.allCases.map { TensorExpression.quantized(quantized, $0) }
    let others: [TensorExpression] = [
      matrix, .rows(matrix, 0..<800), .scaled(matrix, by: 0.3), .cast(matrix, .bf16),
      .columnsScaled(matrix, by: scales),
    ]
    for weight in others {
      let first = weight.shape[0] == Self.outputs ? start : nil
      let bias = TensorExpression.shiftedBias(first, weight: weight, shift: shift)
      var materializer = Materializer(discardsSources: false)
      let expected = try materializer.bytes(of: bias).array(of: UInt8.self)
      #expect(try streamed(layer + [bias])[3] == expected, "\(weight)")
    }
  }
}
