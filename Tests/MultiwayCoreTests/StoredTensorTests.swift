import MultiwayCore
import Testing

@Suite struct StoredTensorTests {
  /// The same sizes are a shape in every order or in none: readers permute and cut them.
  @Test func shapesInEveryOrder() {
    let large = 1 << 40
    for sizes in [[large, large, 0], [large, 0, large], [0, large, large], [0, 1 << 62, 2]] {
      #expect(Shape(checking: sizes) == nil)
    }
    #expect(Shape(checking: [0, large, 1 << 20])?.elementCount == 0)
    #expect(Shape(checking: [1 << 62, 0, 1])?.elementCount == 0)
    #expect(Shape(checking: [2, -1, 0]) == nil)
  }

  private let storage = MemoryStorage(TensorBytes(copying: (0..<24).map { Float($0) }))

  private func view(_ shape: [Int], _ strides: [Int], offset: Int = 0) -> StoredTensor {
    StoredTensor(name: "v", dtype: .f32, shape: Shape(shape), strides: strides, elementOffset: offset, storage: storage)
  }

  @Test func views() throws {
    #expect(try view([2, 3], [3, 1], offset: 6).floats() == [6, 7, 8, 9, 10, 11])
    #expect(try view([6, 4], [1, 6]).floats() == (0..<6).flatMap { r in (0..<4).map { Float($0 * 6 + r) } })
    #expect(try view([2, 2], [0, 5]).floats() == [0, 5, 0, 5])
    #expect(try view([], [], offset: 23).floats() == [23])
    #expect(try view([0, 3], [9, 9]).floats() == [])
    #expect(try view([2, 1, 2], [3, 1, 2]).floats() == [0, 2, 3, 5])
  }

  @Test func contiguousBytesStayInPlace() throws {
    let whole = view([24], [1])
    #expect(whole.isContiguous)
    #expect(!view([6, 4], [1, 6]).isContiguous)
    #expect(view([1, 24], [7, 1]).isContiguous)
  }

  /// A dimension of size 1 is never walked, so its stride may be anything, also what would overflow.
  @Test func anyStrideForSizeOne() throws {
    #expect(try view([2, 1], [2, .max], offset: 3).floats() == [3, 5])
    #expect(try view([1, 2, 1], [.max, 2, .max]).floats() == [0, 2])
  }

  @Test func leavingTheStorageIsAnError() {
    for bad in [
      view([25], [1]), view([24], [1], offset: 1), view([2, 2], [23, 1]), view([2], [.max]),
      view([3, 2], [.max / 2, 1]),
      view([1], [1], offset: -1), view([2], [-1], offset: 5), view([2, 2], [1, 12], offset: .max),
    ] {
      #expect(throws: TensorError.self) { try bad.contiguousBytes() }
    }
  }

  @Test func bigEndian() throws {
    let bytes: [UInt8] = [0x3F, 0x80, 0, 0, 0x40, 0, 0, 0]
    let storage = MemoryStorage(TensorBytes(copying: bytes))
    let floats = StoredTensor(name: "f", dtype: .f32, shape: [2], storage: storage, isBigEndian: true)
    #expect(try floats.floats() == [1, 2])
    let complex = StoredTensor(name: "c", dtype: .c64, shape: [1], storage: storage, isBigEndian: true)
    #expect(try complex.contiguousBytes().array(of: UInt8.self) == [0, 0, 0x80, 0x3F, 0, 0, 0, 0x40])
    let shorts = StoredTensor(name: "s", dtype: .i16, shape: [4], storage: storage, isBigEndian: true)
    #expect(try shorts.integers() == [0x3F80, 0, 0x4000, 0])
    let bytesOnly = StoredTensor(name: "b", dtype: .u8, shape: [8], storage: storage, isBigEndian: true)
    #expect(try bytesOnly.contiguousBytes().array(of: UInt8.self) == bytes)
  }

  @Test func decodesNumbers() throws {
    func tensor<T: BitwiseCopyable>(_ dtype: DType, _ values: [T]) -> StoredTensor {
      StoredTensor(name: "t", dtype: dtype, shape: Shape([values.count]), elements: values)
    }
    #expect(try tensor(.f16, [UInt16(0x3C00), 0xC000]).floats() == [1, -2])
    #expect(try tensor(.bf16, [UInt16(0x3F80), 0xC000]).floats() == [1, -2])
    #expect(try tensor(.f64, [1.5, -2]).floats() == [1.5, -2])
    #expect(try tensor(.i8, [Int8(-1), 2]).floats() == [-1, 2])
    #expect(try tensor(.u8, [UInt8(255)]).floats() == [255])
    #expect(try tensor(.i64, [Int64(-5)]).integers() == [-5])
    #expect(try tensor(.bool, [UInt8(0), 1, 2]).floats() == [0, 1, 1])
    #expect(throws: TensorError.self) { try tensor(.c64, [Float(1), 2]).floats() }
    #expect(throws: TensorError.self) { try tensor(.f32, [Float(1)]).integers() }
  }

  @Test func shapes() {
    #expect(Shape(checking: [2, -1]) == nil)
    #expect(Shape(checking: [1 << 62, 4, 0]) == nil)
    #expect(Shape(checking: [0, 1 << 61, 3])?.elementCount == 0)
    #expect(Shape([2, 3]).contiguousStrides == [3, 1])
    #expect(Shape([]).elementCount == 1)
    #expect(Shape([1 << 61]).byteCount(of: .f32) == nil)
    #expect(Shape([3]).byteCount(of: .f4) == nil)
    #expect(Shape([4]).byteCount(of: .f4) == 2)
  }

  @Test func byteReaderStopsAtTheEnd() {
    let bytes = TensorBytes(copying: [1, 2, 3] as [UInt8])
    var reader = ByteReader(bytes.span)
    let results: [Int?] = [
      reader.read(UInt16.self).map(Int.init), reader.read(UInt16.self).map(Int.init), reader.offset,
      reader.readBytes(2)?.count, reader.readBytes(-1)?.count, reader.skip(2) ? 1 : 0, reader.skip(1) ? 1 : 0,
      reader.remaining,
    ]
    #expect(results == [0x0201, nil, 2, nil, nil, 0, 1, 0])
  }
}
