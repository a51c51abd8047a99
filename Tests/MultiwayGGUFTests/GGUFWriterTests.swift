import Foundation
import MultiwayCore
import MultiwayGGUF
import Testing

@Suite struct GGUFWriterTests {
  private let metadata: [(key: String, value: GGUFValue)] = [
    ("general.architecture", .string("beit3")), ("a", .u8(255)), ("b", .i8(-1)), ("c", .u16(65535)), ("d", .i16(-2)),
    ("e", .u32(.max)), ("f", .i32(.min)), ("g", .u64(.max)), ("h", .i64(.min)), ("i", .f32(0.1)), ("j", .f64(0.1)),
    ("k", .bool(true)), ("l", .string("é😀")), ("m", .array(.string(["x", "", "z"]))), ("n", .array(.f32([1, -0.5]))),
    ("o", .array(.u8([]))), ("p", .array(.u8([1, 2, 3]))), ("q", .array(.bool([true, false]))),
    ("r", .array(.i8([-1]))), ("s", .array(.u16([1]))), ("t", .array(.i16([-1]))), ("u", .array(.u32([1]))),
    ("v", .array(.i32([-1]))), ("w", .array(.u64([1]))), ("x", .array(.i64([-1]))), ("y", .array(.f64([0.5]))),
  ]

  private func bytes(_ count: Int) -> TensorBytes {
    TensorBytes(copying: (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7) })
  }

  @Test(arguments: [32, 64, 4096]) func roundTrip(alignment: Int) throws {
    let folder = try Folder()
    var writer = try GGUFWriter(
      path: folder.file(), metadata: metadata,
      tensors: [
        ("empty", [0, 3], .f32), ("w", [2, 3], .f32), ("e2", [0], .i8), ("q", [2, 32], .q8_0), ("s", [], .f16),
        ("e3", [0], .i8),
      ], alignment: alignment)
    try writer.writeTensor(bytes(10).span)
    try writer.writeTensor(bytes(24).extracting(10..<24).span)
    try writer.writeTensor(bytes(68).span)
    try writer.writeTensor(bytes(2).span)
    try writer.finish()
    #expect(folder.names == ["file.gguf"])

    let container = try GGUFContainer.read(try MappedFile(path: folder.file()))
    #expect(container.alignment == alignment)
    #expect(container.metadata.map(\.key).filter { $0 != "general.alignment" } == metadata.map(\.key))
    for (key, value) in metadata { #expect(container[key] == value) }
    #expect(container.tensors.map(\.name) == ["empty", "w", "e2", "q", "s", "e3"])
    let w = try #require(container.tensor(named: "w"))
    #expect(w.dimensions == [2, 3])
    let joined = bytes(10).array(of: UInt8.self) + bytes(24).array(of: UInt8.self)[10...]
    #expect(try container.bytes(of: w).array(of: UInt8.self) == joined)
    let q = try #require(container.tensor(named: "q"))
    #expect(try container.bytes(of: q).array(of: UInt8.self) == bytes(68).array(of: UInt8.self))
    #expect(try container.bytes(of: q).isAligned(to: alignment))
  }

  @Test func nothingAtAll() throws {
    let folder = try Folder()
    let writer = try GGUFWriter(path: folder.file(), metadata: [], tensors: [])
    try writer.finish()
    let container = try GGUFContainer.read(try MappedFile(path: folder.file()))
    #expect(container.tensors.isEmpty)
    #expect(container["general.alignment"] == .u32(64))
  }

  @Test func wrongSizes() throws {
    let folder = try Folder()
    func start() throws -> GGUFWriter { try GGUFWriter(path: folder.file(), metadata: [], tensors: [("w", [2], .f32)]) }
    #expect(throws: GGUFError.self) {
      var writer = try start()
      try writer.writeTensor(bytes(9).span)
    }
    #expect(throws: GGUFError.self) {
      var writer = try start()
      try writer.writeTensor(bytes(7).span)
      try writer.finish()
    }
    #expect(throws: GGUFError.self) {
      var writer = try start()
      try writer.writeTensor(bytes(8).span)
      try writer.writeTensor(bytes(1).span)
    }
    #expect(folder.names == [])
  }

  @Test func refusesWhatCannotBeRead() throws {
    let folder = try Folder()
    func code(
      _ metadata: [(key: String, value: GGUFValue)] = [],
      _ tensors: [(name: String, dimensions: [Int], type: GGUFType)] = []
    ) -> GGUFErrorCode? {
      do {
        let writer = try GGUFWriter(path: folder.file(), metadata: metadata, tensors: tensors)
        try writer.finish()
        return nil
      } catch {
        return (error as? GGUFError)?.code
      }
    }
    #expect(code([("", .u8(1))]) == .badName)
    #expect(code([("k", .u8(1)), ("k", .u8(1))]) == .badName)
    #expect(code([("general.alignment", .u32(32))]) == .badAlignment)
    #expect(code([], [(String(repeating: "n", count: 64), [0], .f32)]) == .badName)
    #expect(code([], [("é" + String(repeating: "n", count: 62), [0], .f32)]) == .badName)
    #expect(code([], [("n", [0], .f32), ("n", [0], .f32)]) == .badName)
    #expect(code([], [("n", [1, 1, 1, 1, 1], .f32)]) == .badShape)
    #expect(code([], [("n", [31], .q8_0)]) == .badShape)
    #expect(code([], [("n", [-1], .f32)]) == .badShape)
    #expect(code([], [("n", [1 << 40, 1 << 40], .f32)]) == .badShape)
    #expect(code([], [("n", [1 << 62], .i8), ("m", [1 << 62], .i8)]) == .badShape)
    #expect(folder.names == [])
  }

  @Test func refusesToOverwrite() throws {
    let folder = try Folder()
    for overwrite in [false, true] {
      let writer = try GGUFWriter(path: folder.file(), overwrite: overwrite, metadata: [], tensors: [])
      try writer.finish()
    }
    #expect(throws: FileError.self) {
      let writer = try GGUFWriter(path: folder.file(), metadata: [], tensors: [])
      try writer.finish()
    }
  }

  @Test func accessors() {
    #expect(GGUFValue.u64(.max).integer == nil)
    #expect(GGUFValue.i8(-3).integer == -3)
    #expect(GGUFValue.f32(0.5).number == 0.5)
    #expect(GGUFValue.u64(8).number == 8)
    #expect(GGUFValue.array(.i32([1, 2])).integers == [1, 2])
    #expect(GGUFValue.array(.f32([1, 2])).integers == nil)
    #expect(GGUFValue.array(.f32([1, 2])).numbers == [1, 2])
    #expect(GGUFValue.array(.u8([])).strings == [])
    #expect(GGUFValue.array(.u8([1])).bytes == [1])
    #expect(GGUFValue.array(.u8([1])).strings == nil)
    for type in GGUFType.allCases {
      #expect(type.byteCount(of: [2, type.blockSize]) == 2 * type.typeSize)
      #expect(type.isPlain || type.byteCount(of: [type.blockSize - 1]) == nil)
    }
  }
}
