import CMultiwayKernels
import MultiwayCore
import MultiwayKernels
import Testing

extension BlockWeightType {
  var rawCode: mwk_block_type {
    switch self {
    case .q8_0: mwk_block_q8_0
    case .q4_0: mwk_block_q4_0
    case .q4_1: mwk_block_q4_1
    }
  }

  /// The numbers that blocks stand for, decoded without the kernels.
  func decoded(_ blocks: [UInt8]) throws -> [Float] {
    let count = blocks.count / blockType.byteCount * 32
    let storage = BlockStorage(blockType, elementCount: count, blocks: MemoryStorage(TensorBytes(copying: blocks)))
    return try storage.load().array(of: Float.self)
  }

  /// Encodes with guarded pointers.
  func encoded(_ values: [Float], _ context: RawContext) -> (blocks: [UInt8], broken: Int) {
    let source = GuardedBuffer(values)
    let blocks = GuardedBuffer<UInt8>(count: values.count / 32 * blockType.byteCount)
    var broken = 0
    let status = unsafe mwk_encode_blocks(
      context.pointer, rawCode, values.count / 32, source.pointer, blocks.pointer, &broken)
    #expect(status == mwk_ok)
    return (blocks.values, broken)
  }

  /// The scale of a block.
  func scale(_ blocks: [UInt8], _ block: Int) -> Float {
    let at = block * blockType.byteCount
    return HalfPrecision.float(fromF16: UInt16(blocks[at]) | UInt16(blocks[at + 1]) << 8)
  }
}

private func squaredError(_ a: ArraySlice<Float>, _ b: ArraySlice<Float>) -> Double {
  zip(a, b).reduce(0) { $0 + (Double($1.0) - Double($1.1)) * (Double($1.0) - Double($1.1)) }
}

/// Blocks whose scale is the largest number's, as the simplest encoders make them.
private func plainlyEncoded(_ block: ArraySlice<Float>, _ type: BlockWeightType) -> [Float] {
  func half(_ value: Float) -> Float { HalfPrecision.float(fromF16: HalfPrecision.f16(from: value)) }
  let (least, most) = (block.min() ?? 0, block.max() ?? 0)
  switch type {
  case .q8_0:
    let scale = half(max(most, -least) / 127)
    return block.map { scale * ($0 / scale).rounded(.toNearestOrEven) }
  case .q4_0:
    let scale = half((most > -least ? most : least) / -8)
    return block.map { scale * min(7, max(-8, ($0 / scale).rounded(.toNearestOrEven))) }
  case .q4_1:
    let (scale, offset) = (half((most - least) / 15), half(least))
    return block.map { scale * min(15, max(0, (($0 - offset) / scale).rounded(.toNearestOrEven))) + offset }
  }
}

@Suite struct BlockCodecTests {
  private func samples(_ count: Int) -> [Float] {
    var numbers = Numbers(seed: 71)
    // Sums of uniform numbers: close to a bell, as weights are.
    return zip(zip(numbers.floats(count), numbers.floats(count)), numbers.floats(count)).map {
      ($0.0 + $0.1 + $1) * 0.03
    }
  }

  @Test(arguments: BlockWeightType.allCases) func everyInstructionSetEncodesTheSame(type: BlockWeightType) {
    let values = samples(32 * 300)
    checkVariants { type.encoded(values, $0).blocks }
  }

  /// No number is further from what its block stands for than half a step, save where four bits cut the ends off on purpose.
  @Test func eightBitsAreWithinHalfAStep() throws {
    let values = samples(32 * 200)
    let (blocks, broken) = BlockWeightType.q8_0.encoded(values, RawContext(.scalar))
    #expect(broken == 0)
    let decoded = try BlockWeightType.q8_0.decoded(blocks)
    for index in values.indices {
      let scale = BlockWeightType.q8_0.scale(blocks, index / 32)
      // Half precision may round the scale down by 2⁻¹¹ of itself: the largest number then lies that much further out.
      #expect(abs(values[index] - decoded[index]) <= scale * (0.5 + 127 * 0x1p-11))
    }
    #expect(BlockWeightType.q8_0.encoded(decoded, RawContext(.scalar)).blocks == blocks, "what was encoded stays")
  }

  /// The search never loses to the largest number's scale by more than roundings of half precision, and gains much over all.
  @Test(arguments: [BlockWeightType.q4_0, .q4_1]) func fourBitsGainByTheSearch(type: BlockWeightType) throws {
    let values = samples(32 * 400)
    let decoded = try type.decoded(type.encoded(values, RawContext(.scalar)).blocks)
    var (found, plain) = (0.0, 0.0)
    for start in stride(from: 0, to: values.count, by: 32) {
      let block = values[start..<start + 32]
      let ours = squaredError(block, decoded[start..<start + 32])
      let theirs = squaredError(block, plainlyEncoded(block, type)[...])
      #expect(ours <= theirs * 1.02)
      found += ours
      plain += theirs
    }
    #expect(found < plain * 0.94)
  }

  @Test(arguments: BlockWeightType.allCases) func zerosAndConstantsAreExact(type: BlockWeightType) throws {
    for value: Float in [0, -0.0, 0.5, -2, 0x1p-14] {
      let values = [Float](repeating: value, count: 64)
      let (blocks, broken) = type.encoded(values, RawContext(.scalar))
      #expect(broken == 0)
      let decoded = try type.decoded(blocks)
      // Half precision holds few bits of the scale of small numbers.
      let step = type == .q4_1 ? 0 : max(abs(value) * 0x1p-10, 127 * 0x1p-25)
      #expect(decoded.allSatisfy { abs($0 - value) <= step }, "\(value)")
      if value == 0 { #expect(decoded.allSatisfy { $0 == 0 }) }
    }
  }

  /// Numbers below the range of half precision become zeros, none becomes NaN.
  @Test(arguments: BlockWeightType.allCases) func subnormalsVanish(type: BlockWeightType) throws {
    var numbers = Numbers(seed: 3)
    for power in [-149, -130, -40, -30, -26] {
      let scale = Float(sign: .plus, exponent: max(power, -126), significand: 1)
      let values = numbers.floats(64).map { $0 * scale }
      let (blocks, broken) = type.encoded(values, RawContext(.scalar))
      #expect(broken == 0)
      let decoded = try type.decoded(blocks)
      #expect(zip(values, decoded).allSatisfy { abs($0 - $1) <= max(abs($0), 0x1p-24 * 8) })
    }
  }

  @Test(arguments: BlockWeightType.allCases) func whatCannotBeEncodedIsCounted(type: BlockWeightType) {
    var values = samples(32 * 10)
    (values[3], values[40], values[95], values[96]) = (.nan, .infinity, -.infinity, 3e38)
    checkVariants { [type.encoded(values, $0).broken] }
    #expect(type.encoded(values, RawContext(.scalar)).broken == 4)
    let limit: Float = type == .q8_0 ? 127 * 65504 : type == .q4_0 ? 8 * 65504 : 15 * 65504
    for (value, count) in [(limit * 0.99, 0), (limit * 2, 1)] {
      #expect(type.encoded([value] + [Float](repeating: 0, count: 31), RawContext(.scalar)).broken == count)
    }
  }
}

/// One linear layer with weights in blocks.
struct BlockCase: CustomTestStringConvertible {
  var rows: Int, inputs: Int, outputs: Int, type: BlockWeightType
  var x: [Float], blocks: [UInt8], bias: [Float], residual: [Float]
  /// Extra elements between rows.
  let gap = 3

  var testDescription: String { "\(rows)×\(inputs)→\(outputs) \(type)" }

  init(_ rows: Int, _ inputs: Int, _ outputs: Int, _ type: BlockWeightType) {
    (self.rows, self.inputs, self.outputs, self.type) = (rows, inputs, outputs, type)
    var numbers = Numbers(seed: rows * 31 + inputs * 7 + outputs)
    x = numbers.floats(max(0, rows * (inputs + gap) - gap))
    blocks = type.encoded(numbers.floats(outputs * inputs, scale: 0.3), RawContext(.scalar)).blocks
    (bias, residual) = (numbers.floats(outputs), numbers.floats(max(0, rows * (outputs + gap) - gap)))
  }

  func run(_ context: RawContext, epilogue: Bool, gelu: Bool = false) -> [Float] {
    let (x, w) = (GuardedBuffer(x), GuardedBuffer(blocks, misalignedBy: 1))
    let (b, r) = (GuardedBuffer(bias), GuardedBuffer(residual))
    let y = GuardedBuffer([Float](repeating: 7, count: residual.count))
    var job = unsafe mwk_linear_blocks_job(
      rows: rows, inputs: inputs, outputs: outputs, x: x.pointer, x_stride: inputs + gap, blocks: w.pointer,
      type: type.rawCode, bias: epilogue ? UnsafePointer(b.pointer) : nil,
      residual: epilogue ? UnsafePointer(r.pointer) : nil,
      activation: gelu ? mwk_activation_gelu : mwk_activation_none, y: y.pointer, y_stride: outputs + gap)
    #expect(unsafe mwk_linear_blocks(context.pointer, &job) == mwk_ok)
    withExtendedLifetime((x, w, b, r)) {}
    return y.values
  }

  /// The definition: 16 chains of fma, then a tree.
  func reference(epilogue: Bool) throws -> [Float] {
    let weights = try type.decoded(blocks)
    var y = [Float](repeating: 7, count: residual.count)
    for r in 0..<rows {
      for o in 0..<outputs {
        var chains = [Float](repeating: 0, count: 16)
        for k in 0..<inputs {
          chains[k % 16] = chains[k % 16].addingProduct(x[r * (inputs + gap) + k], weights[o * inputs + k])
        }
        for half in [8, 4, 2, 1] { for lane in 0..<half { chains[lane] += chains[lane + half] } }
        let at = r * (outputs + gap) + o
        y[at] = epilogue ? chains[0] + bias[o] + residual[at] : chains[0]
      }
    }
    return y
  }
}

@Suite struct LinearBlocksTests {
  static let cases = BlockWeightType.allCases.flatMap { type in
    [
      BlockCase(0, 32, 8, type), BlockCase(1, 32, 1, type), BlockCase(1, 96, 70, type), BlockCase(2, 64, 17, type),
      BlockCase(3, 544, 65, type), BlockCase(4, 32, 130, type), BlockCase(5, 64, 64, type),
      BlockCase(7, 1056, 21, type), BlockCase(13, 96, 100, type), BlockCase(3, 0, 5, type),
    ]
  }

  @Test(arguments: cases) func variantsAgreeWithTheDefinition(layer: BlockCase) throws {
    for epilogue in [true, false] {
      let y = checkVariants { layer.run($0, epilogue: epilogue).bits }
      #expect(try y == layer.reference(epilogue: epilogue).bits)
    }
    checkVariants { layer.run($0, epilogue: true, gelu: true).bits }
  }

  /// The bits of a row do not depend on how many rows come with it: few are computed straight from the blocks, many from panels.
  @Test(arguments: BlockWeightType.allCases) func rowsDoNotDependOnTheirNumber(type: BlockWeightType) {
    let whole = BlockCase(40, 160, 66, type)
    for isa in ISA.supported {
      let all = whole.run(RawContext(isa, threads: 2), epilogue: true)
      for rows in 1...9 {
        var part = whole
        (part.rows, part.x) = (rows, Array(whole.x.prefix(rows * 163 - 3)))
        part.residual = Array(whole.residual.prefix(rows * 69 - 3))
        #expect(part.run(RawContext(isa), epilogue: true) == Array(all.prefix(rows * 69 - 3)))
      }
    }
  }

  @Test(arguments: [
    BlockCase(197, 64, 192, .q8_0), BlockCase(20, 3072, 64, .q4_1), BlockCase(9, 20_000 / 32 * 32, 7, .q4_0),
  ]) func modelShapes(layer: BlockCase) {
    checkVariants { layer.run($0, epilogue: true).bits }
  }

  /// Any bytes are blocks: scales among them that are infinite or NaN reach their own outputs only.
  @Test(arguments: BlockWeightType.allCases) func anyBytesGiveTheSameBits(type: BlockWeightType) {
    for rows in [1, 8] {
      var layer = BlockCase(rows, 64, 40, type)
      var numbers = Numbers(seed: 9)
      layer.blocks = numbers.bytes(layer.blocks.count)
      layer.blocks[1] = 0x7E
      let y = checkVariants { layer.run($0, epilogue: false).bits }.floats
      #expect(y[0].isNaN)
    }
  }

  @Test func theFacePassesOn() throws {
    let layer = BlockCase(5, 64, 33, .q4_1)
    let context = try KernelContext(isa: .scalar, threads: 2)
    var layout = RegionLayout()
    let (x, y, r) = (layout.floats(layer.x.count), layout.floats(5 * 36), layout.floats(5 * 36))
    var arena = try Arena(byteCount: layout.byteCount)
    arena.write(layer.x, at: x)
    arena.write(layer.residual, at: r)
    let weights = BlockWeights(
      outputs: 33, inputs: 64, bytes: TensorBytes(copying: layer.blocks), type: .q4_1)
    let epilogue = Epilogue(bias: TensorBytes(copying: layer.bias), residual: r)
    context.linear(&arena, rows: 5, x: x, xStride: 67, weights: weights, epilogue: epilogue, into: y, yStride: 36)
    let expected = try layer.reference(epilogue: true)
    for row in 0..<5 {
      #expect(Array(arena.read(y)[row * 36..<row * 36 + 33]) == Array(expected[row * 36..<row * 36 + 33]))
    }
    let (blocks, broken) = context.encodeBlocks([Float](repeating: .nan, count: 32) + layer.x.prefix(32), type: .q8_0)
    #expect(broken == 1 && blocks.byteCount == 68)
  }

  @Test func benchmarksMeasureSomething() throws {
    let context = try KernelContext(isa: .scalar)
    let layer = BlockCase(1, 64, 33, .q4_1)
    let weights = BlockWeights(outputs: 33, inputs: 64, bytes: TensorBytes(copying: layer.blocks), type: .q4_1)
    #expect(try #require(try KernelBenchmarks.tokenBandwidth(context, weights: [weights, weights])) > 0)
    #expect(try KernelBenchmarks.tokenBandwidth(context, weights: []) == nil)
    #expect(KernelBenchmarks.memoryBandwidth(context, repetitions: 1) > 0)
  }

  /// A read of memory counts every byte once, whatever the threads.
  @Test func readingMemorySumsIt() {
    let numbers = GuardedBuffer((0..<400_000).map { UInt64($0) })
    for threads in [1, 3] {
      var sum: UInt64 = 0
      let context = RawContext(.scalar, threads: threads)
      let status = unsafe mwk_read_memory(context.pointer, 8 * numbers.count, numbers.pointer, &sum)
      withExtendedLifetime(context) {}
      #expect(status == mwk_ok && sum == 399_999 * 200_000)
    }
  }
}
