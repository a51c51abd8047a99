import MultiwayCore
import MultiwayGGUF
import Testing

/// The handcrafted files of the format's own reader test, and a few more.
@Suite struct GGUFReaderTests {
  private func code(_ change: (inout GGUFSpec) -> Void) throws -> GGUFErrorCode? {
    var spec = GGUFSpec()
    change(&spec)
    return try Folder().code(spec.build())
  }

  @Test func header() throws {
    #expect(try code { $0.magic = Array("FUGG".utf8) } == .badMagic)
    for version: UInt32 in [0, 1, 4, 0x0300_0000] { #expect(try code { $0.version = version } == .badVersion) }
    #expect(try code { $0.pairCount = .max } == .malformed)
    #expect(try code { $0.tensorCount = .max } == .malformed)
    #expect(try code { $0.pairCount = 1 << 33 } == .truncated)
    #expect(try code { $0.tensorCount = 1 << 33 } == .truncated)
    #expect(try code { $0.version = 2 } == nil)
    #expect(
      try code {
        $0.names = []; $0.dataSize = 0
      } == nil)
    #expect(try Folder().code([]) == .badMagic)
  }

  @Test func pairs() throws {
    func pair(_ body: @escaping (inout GGUFBytes) -> Void) throws -> GGUFErrorCode? {
      try code { $0.pairs = [body] }
    }
    #expect(
      try pair {
        $0.text("k", length: .max); $0.u32(4); $0.u32(1)
      } == .truncated)
    #expect(try pair { $0.pair("", value: 1) } == .badName)
    #expect(
      try pair {
        $0.text(String(repeating: "k", count: 65_536)); $0.u32(4); $0.u32(1)
      } == .badName)
    #expect(
      try pair {
        $0.u64(2); $0.bytes += [0xFF, 0xFE]; $0.u32(4); $0.u32(1)
      } == .badName)
    #expect(try pair { $0.pair("k", type: 13, value: 1) } == .malformed)
    #expect(try pair { $0.pair("k", type: .max, value: 1) } == .malformed)
    #expect(
      try pair {
        $0.text("k"); $0.u32(9); $0.u32(9); $0.u64(1); $0.u32(4); $0.u64(0)
      } == .malformed)
    #expect(
      try pair {
        $0.text("k"); $0.u32(9); $0.u32(8); $0.u64(1 << 32)
      } == .truncated)
    #expect(
      try pair {
        $0.text("k"); $0.u32(9); $0.u32(12); $0.u64(.max)
      } == .malformed)
    #expect(
      try pair {
        $0.text("k"); $0.u32(8); $0.text("v", length: .max)
      } == .truncated)
    #expect(try code { $0.pairs = [{ $0.pair("k", value: 1) }, { $0.pair("k", value: 2) }] } == .badName)
    #expect(try code { $0.pairs = [{ $0.pair("k", value: 1) }, { $0.pair("l", value: 2) }] } == nil)
  }

  @Test func alignment() throws {
    func alignment(_ value: UInt32, type: UInt32 = 4, padding: Int) throws -> GGUFErrorCode? {
      try code {
        $0.pairs = [{ $0.pair("general.alignment", type: type, value: value) }]
        $0.alignment = padding
        $0.offsets = [0, UInt64(padding)]
        $0.dataSize = padding * 2
      }
    }
    #expect(try alignment(13, padding: 32) == .badAlignment)
    #expect(try alignment(0, padding: 32) == .badAlignment)
    #expect(try alignment(64, type: 5, padding: 64) == .badAlignment)
    #expect(try alignment(64, padding: 64) == nil)
    #expect(try alignment(8, padding: 32) == .badOffset)
    #expect(try alignment(1 << 31, padding: 32) == .truncated)
  }

  @Test func tensors() throws {
    #expect(try code { $0.nameLength = .max } == .truncated)
    #expect(try code { $0.names = [String(repeating: "n", count: 64), "b"] } == .badName)
    #expect(try code { $0.names = [String(repeating: "n", count: 63), "b"] } == nil)
    #expect(try code { $0.names = ["a", "a"] } == .badName)
    #expect(try code { $0.dimensions[0] = [1, 1, 1, 1, 6] } == .badShape)
    #expect(try code { $0.rank = .max } == .badShape)
    #expect(try code { $0.dimensions[0] = [.max, 1] } == .badShape)
    #expect(try code { $0.dimensions[0] = [1 << 33, 1 << 33] } == .badShape)
    #expect(try code { $0.dimensions[0] = [1 << 62] } == .badShape)
    #expect(try code { $0.types[0] = .max } == .badType)
    for type: UInt32 in [4, 5, 31, 32, 33, 36, 37, 38, 1000] { #expect(try code { $0.types[0] = type } == .badType) }
    #expect(try code { $0.types[0] = 8 } == .badShape)
    #expect(try code { $0.offsets[0] = .max } == .badOffset)
    #expect(try code { $0.offsets[1] = 4 } == .badOffset)
    #expect(try code { $0.offsets[1] = 0 } == .badOffset)
    #expect(
      try code {
        $0.offsets[1] = 64; $0.dataSize = 96
      } == .badOffset)
    #expect(
      try code {
        $0.dimensions[0] = [0, 2]; $0.offsets[1] = 0; $0.dataSize = 32
      } == nil)
  }

  @Test func data() throws {
    #expect(try code { $0.dataSize = 63 } == .truncated)
    #expect(try code { $0.dataSize = 0 } == .truncated)
    #expect(try code { $0.dataSize = 164 } == nil)
    #expect(
      try code {
        $0.dimensions = [[UInt64(Int64.max) - 63], [UInt64(Int64.max) - 63]]
        $0.types = [24, 24]
        $0.offsets[1] = UInt64(Int64.max) - 63
      } == .truncated)
  }

  @Test func values() throws {
    var spec = GGUFSpec()
    spec.pairs = [{ $0.pair("general.name", value: 7) }]
    let container = try Folder().read(spec.build())
    #expect(container.version == 3)
    #expect(container.alignment == 32)
    #expect(container["general.name"] == .u32(7))
    #expect(container["missing"] == nil)
    let a = try #require(container.tensor(named: "a"))
    #expect(a.dimensions == [2, 3])
    #expect(a.type == .f32)
    #expect(try container.bytes(of: a).array(of: UInt8.self) == Array(0..<24))
    let b = try #require(container.tensor(named: "b"))
    #expect(try container.bytes(of: b).array(of: UInt8.self) == Array(32..<37))
    #expect(throws: GGUFError.self) {
      try container.bytes(of: GGUFTensorInfo(name: "x", dimensions: [1 << 40], type: .f32, offset: 0))
    }
    #expect(throws: GGUFError.self) {
      try container.bytes(of: GGUFTensorInfo(name: "x", dimensions: [1], type: .f32, offset: -8))
    }
  }

  /// No truncation and no flipped bit may do worse than give an error.
  @Test func damagedFiles() throws {
    var spec = GGUFSpec()
    spec.pairs = [
      { $0.pair("general.alignment", value: 32) },
      {
        $0.text("s"); $0.u32(8); $0.text("text")
      },
    ]
    let bytes = spec.build()
    let folder = try Folder()
    for count in bytes.indices { #expect(folder.code(Array(bytes[..<count])) != nil) }
    for position in bytes.indices {
      for bit in 0..<8 {
        var damaged = bytes
        damaged[position] ^= 1 << UInt8(bit)
        guard let container = try? folder.read(damaged) else { continue }
        for tensor in container.tensors { _ = try? container.bytes(of: tensor).array(of: UInt8.self) }
      }
    }
  }
}
