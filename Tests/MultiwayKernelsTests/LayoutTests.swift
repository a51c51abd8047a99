import MultiwayCore
import MultiwayKernels
import Testing

@Suite struct LayoutTests {
  static let contexts: [(ISA, Int)] = ISA.supported.flatMap { [($0, 1), ($0, 3)] }

  /// An arena with an input in its first region and room for `count` floats in its second.
  struct Fixture: ~Copyable {
    var arena: Arena
    let x: Region, y: Region

    init(_ input: [Float], _ count: Int) throws {
      var layout = RegionLayout()
      (x, y) = (layout.floats(input.count), layout.floats(count))
      arena = try Arena(byteCount: layout.byteCount)
      arena.write(input, at: x)
    }
  }

  @Test(arguments: contexts) func patchify(isa: ISA, threads: Int) throws {
    let context = try KernelContext(isa: isa, threads: threads)
    let (images, channels, height, width, patch) = (2, 3, 6, 9, 3)
    let image = (0..<(images * channels * height * width)).map(Float.init)
    var memory = try Fixture(image, image.count)
    context.patchify(
      &memory.arena, images: images, channels: channels, height: height, width: width, patch: patch, x: memory.x,
      into: memory.y)
    var expected: [Float] = []
    for n in 0..<images {
      for row in 0..<(height / patch) {
        for column in 0..<(width / patch) {
          for c in 0..<channels {
            for i in 0..<patch {
              for j in 0..<patch {
                expected.append(
                  image[((n * channels + c) * height + row * patch + i) * width + column * patch + j])
              }
            }
          }
        }
      }
    }
    #expect(memory.arena.read(memory.y) == expected)
  }

  @Test(arguments: contexts) func meanRows(isa: ISA, threads: Int) throws {
    let context = try KernelContext(isa: isa, threads: threads)
    var numbers = Numbers(seed: 4)
    let values = numbers.floats(3 * 7 * 20)
    var memory = try Fixture(values, 3 * 20)
    context.meanRows(&memory.arena, batch: 3, tokens: 7, width: 20, range: 1..<6, x: memory.x, into: memory.y)
    var expected: [Float] = []
    for example in 0..<3 {
      for c in 0..<20 {
        var sum: Float = 0
        for token in 1..<6 { sum += values[(example * 7 + token) * 20 + c] }
        expected.append(sum / 5)
      }
    }
    #expect(memory.arena.read(memory.y) == expected)
  }

  @Test(arguments: contexts) func gatherRows(isa: ISA, threads: Int) throws {
    let context = try KernelContext(isa: isa, threads: threads)
    var numbers = Numbers(seed: 5)
    let table = numbers.floats(9 * 21)
    var memory = try Fixture([], 4 * 21)
    for type in WeightType.allCases {
      let bytes =
        switch type {
        case .f32: TensorBytes(copying: table)
        case .f16: TensorBytes(copying: context.f16(table.span).bytes)
        case .bf16: TensorBytes(copying: context.bf16(table.span).bytes)
        }
      let decoded = context.floats(bytes, type: type)
      context.gatherRows(
        &memory.arena, table: bytes, type: type, tableRows: 9, width: 21, ids: [8, 0, 3, 3], into: memory.y)
      var expected: [Float] = []
      for id in [8, 0, 3, 3] { expected += decoded[(id * 21)..<((id + 1) * 21)] }
      #expect(memory.arena.read(memory.y) == expected)
    }
  }

  @Test(arguments: contexts) func tables(isa: ISA, threads: Int) throws {
    let context = try KernelContext(isa: isa, threads: threads)
    var numbers = Numbers(seed: 6)
    let (values, table) = (numbers.floats(6 * 20), numbers.floats(3 * 20))
    var memory = try Fixture(values, 6 * 20)
    let constant = TensorBytes(copying: table)
    context.add(&memory.arena, rows: 6, width: 20, x: memory.x, table: constant, tableRows: 3, into: memory.y)
    #expect(memory.arena.read(memory.y) == values.indices.map { values[$0] + table[$0 % 60] })
    context.multiply(&memory.arena, rows: 6, width: 20, x: memory.x, table: constant, into: memory.x)
    #expect(memory.arena.read(memory.x) == values.indices.map { values[$0] * table[$0 % 20] })
  }

  @Test func copyRows() throws {
    let context = try KernelContext()
    var memory = try Fixture((0..<12).map(Float.init), 8)
    context.copyRows(&memory.arena, rows: 3, width: 2, x: memory.x, xStride: 4, into: memory.y, yStride: 3)
    #expect(memory.arena.read(memory.y) == [0, 1, 0, 4, 5, 0, 8, 9])
  }
}
