import Foundation
import MultiwayCheckpoint
import MultiwayCore
import MultiwayTestSupport
import Testing

/// True where the bytes are the same; quicker for millions of them than `==` of arrays, which is slow in debug builds.
private func same(_ bytes: TensorBytes, _ expected: ArraySlice<UInt8>) -> Bool {
  Data(bytes.array(of: UInt8.self)) == Data(expected)
}

/// Checkpoints compressed by zstd, decoded as they are asked for.
@Suite struct ZstdTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// Bytes of which every 4096 are different, so that a wrong place gives wrong bytes.
  private func pattern(_ count: Int) -> [UInt8] {
    var generator = SeededGenerator(seed: 1)
    let page = (0..<4094).map { _ in UInt8.random(in: 0...255, using: &generator) }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count + 4096)
    while bytes.count < count { bytes += ZstdBuilder.number(UInt64(bytes.count / 4096), 2) + page }
    return Array(bytes[..<count])
  }

  private func source(_ file: [UInt8]) throws -> any ByteSource {
    try CheckpointFormats.source(path: try folder.write(file))
  }

  /// One frame, many frames, and frames that start and end within a block of the cache.
  @Test(arguments: [[5_300_000], [1_048_576, 1_048_576], [1, 700_000, 2_500_000, 0, 1_048_575, 3, 900_000]])
  func anyOrderGivesTheSameBytes(frames: [Int]) throws {
    let content = pattern(frames.reduce(0, +))
    var file: [UInt8] = []
    var start = 0
    for size in frames {
      file += ZstdBuilder.frame(of: Array(content[start..<start + size]))
      start += size
    }
    let source = try source(file)
    #expect(source.byteCount == content.count)
    #expect(source.fileByteCount == file.count)
    #expect(source.packing == "zstd")
    #expect(!source.isInPlace)
    let whole = try source.bytes(in: 0..<content.count)
    #expect(same(whole, content[...]))
    var generator = SeededGenerator(seed: 7)
    for _ in 0..<60 {
      let first = Int.random(in: 0...content.count, using: &generator)
      let count = Int.random(
        in: 0...min(content.count - first, 1 << Int.random(in: 0...22, using: &generator)), using: &generator)
      let bytes = try source.bytes(in: first..<first + count)
      #expect(same(bytes, content[first..<first + count]))
    }
  }

  /// More contents than are kept: what was let go is decoded again.
  @Test func lettingGo() throws {
    let content = pattern(20 << 20)
    let source = try source(ZstdBuilder.frame(of: content))
    for start in stride(from: content.count - 1000, through: 0, by: -5_000_000) {
      let bytes = try source.bytes(in: start..<start + 1000)
      #expect(same(bytes, content[start..<start + 1000]))
    }
  }

  @Test func manyThreads() async throws {
    let content = pattern(3_000_000)
    let source = try source(ZstdBuilder.frame(of: content))
    let areRight = await withTaskGroup(of: Bool.self) { group in
      for thread in 0..<8 {
        group.addTask {
          for step in 0..<10 {
            let start = (thread * 370_001 + step * 770_003) % 2_900_000
            guard let bytes = try? source.bytes(in: start..<start + 100_000),
              same(bytes, content[start..<start + 100_000])
            else { return false }
          }
          return true
        }
      }
      return await group.reduce(true) { $0 && $1 }
    }
    #expect(areRight)
  }

  /// The same tensors, whatever is around them.
  @Test(arguments: [
    "safetensors/all_dtypes.safetensors", "pytorch/views.pth", "pytorch/train_ckpt.pth", "gguf/kv_types.gguf",
    "gguf/blocks.gguf", "numpy/array.npy", "numpy/arrays.npz", "numpy/compressed.npz", "pytorch-legacy/legacy.pth",
    "pytorch-legacy/tar.pth", "pytorch-legacy/tensors_protocol4.pkl",
  ])
  func sameTensorsAsUnpacked(path: String) throws {
    let name = String(path.split(separator: "/")[1])
    let plain = try CheckpointFormats.open(
      path: "\(repositoryRoot)/Formats/\(path.split(separator: "/")[0])/golden/\(name)")
    let packed = try CheckpointFormats.open(path: "\(repositoryRoot)/Formats/zstd/golden/\(name).zst")
    #expect(packed.format == "zstd of " + plain.format)
    #expect(packed.metadata.members.map(\.key) == plain.metadata.members.map(\.key))
    #expect(packed.notes == plain.notes)
    #expect(packed.stateDicts.map(\.name) == plain.stateDicts.map(\.name))
    for (left, right) in zip(packed.stateDicts, plain.stateDicts) {
      #expect(left.tensors.map(\.name) == right.tensors.map(\.name))
      for (one, other) in zip(left.tensors, right.tensors) where one.dtype.bitWidth % 8 == 0 {
        #expect(one.shape == other.shape && one.dtype == other.dtype)
        let (a, b) = (try one.contiguousBytes(), try other.contiguousBytes())
        #expect(a.array(of: UInt8.self) == b.array(of: UInt8.self))
      }
    }
  }

  @Test func convertedAlike() throws {
    for name in ["", ".zst"] {
      let part = name.isEmpty ? "pytorch" : "zstd"
      let checkpoint = try CheckpointFormats.open(path: "\(repositoryRoot)/Formats/\(part)/golden/views.pth\(name)")
      try SafetensorsWriter.write(checkpoint.stateDict().tensors, to: folder.file("out" + name))
    }
    #expect(try contents(of: folder.file("out")) == contents(of: folder.file("out.zst")))
  }

  /// Every truncation is an error. So is a flipped bit, unless what comes out is the same: a few bits mean nothing.
  @Test(arguments: ["plain.gguf.zst", "pzstd.pth.zst"]) func damagedFiles(name: String) throws {
    let path = "\(repositoryRoot)/Formats/zstd/golden/\(name)"
    let bytes = try contents(of: path)
    func unpacked(_ path: String) throws -> [UInt8] {
      let source = try CheckpointFormats.source(path: path)
      return try source.bytes(in: 0..<source.byteCount).array(of: UInt8.self)
    }
    let whole = try unpacked(path)
    for count in bytes.indices {
      let cut = try folder.write(Array(bytes[..<count]))
      #expect(errorCode { try readEverything(cut) } != nil, "\(count)")
    }
    for position in stride(from: 0, to: bytes.count, by: name.hasPrefix("pzstd") ? 3 : 1) {
      var damaged = bytes
      damaged[position] ^= 4
      let file = try folder.write(damaged)
      _ = errorCode {
        let source = try CheckpointFormats.source(path: file)
        if source.packing != nil, try source.bytes(in: 0..<source.byteCount).array(of: UInt8.self) != whole {
          Issue.record("\(position): other contents")
        }
        try readEverything(file)
      }
    }
  }

  /// A few bytes that unpack to many are fine as long as nobody asks for them, and claims without bytes are not.
  @Test func bombs() throws {
    let zeros = [ZstdBuilder.Block](repeating: .repeated(0, count: ZstdBuilder.blockSize), count: 1600)
    let source = try source(ZstdBuilder.frame(zeros))
    #expect(source.byteCount == 1600 * ZstdBuilder.blockSize)
    #expect(try source.bytes(in: source.byteCount - 3..<source.byteCount).array(of: UInt8.self) == [0, 0, 0])
    // A header that claims what the contents do not have is refused before anything is allocated for it.
    let header = Array(#"{"w":{"dtype":"U8","shape":[4000000000000],"data_offsets":[0,4000000000000]}}"#.utf8)
    let start = ZstdBuilder.number(UInt64(header.count), 8) + header
    let path = try folder.write(ZstdBuilder.frame([.raw(start)] + zeros))
    #expect(errorCode { try readEverything(path) } == .truncated)
    let claim = try folder.write(ZstdBuilder.frame([.raw(start)], claimedSize: 1 << 62))
    #expect(errorCode { try readEverything(claim) } == .corrupt)
  }

  /// JSON is held and parsed whole, so a small file may not unpack to much of it.
  @Test func bombsOfJSON() throws {
    let blanks = [ZstdBuilder.Block](repeating: .repeated(0x20, count: ZstdBuilder.blockSize), count: 400)
    let size = UInt64(400 * ZstdBuilder.blockSize + 2)
    let header = try folder.write(
      ZstdBuilder.frame([.raw(ZstdBuilder.number(size, 8) + Array("{}".utf8))] + blanks))
    #expect(errorCode { try readEverything(header) } == .overBudget)
    let index = try folder.write(ZstdBuilder.frame([.raw(Array(#"{"weight_map":{}}"#.utf8))] + blanks))
    #expect(errorCode { try readEverything(index) } == .overBudget)
  }

  /// A GGUF header may be longer than what is looked at first.
  @Test func longHeaders() throws {
    var file = Array("GGUF".utf8) + ZstdBuilder.number(3, 4) + ZstdBuilder.number(0, 8) + ZstdBuilder.number(2, 8)
    func add(_ key: String, _ value: [UInt8]) {
      file += ZstdBuilder.number(UInt64(key.utf8.count), 8) + Array(key.utf8) + ZstdBuilder.number(8, 4)
      file += ZstdBuilder.number(UInt64(value.count), 8) + value
    }
    add("long", [UInt8](repeating: 0x61, count: 3_000_000))
    add("last", Array("here".utf8))
    file += [UInt8](repeating: 0, count: 32 - file.count % 32)
    let checkpoint = try CheckpointFormats.open(path: try folder.write(ZstdBuilder.frame(of: file)))
    #expect(checkpoint.metadata["last"] == .string("here"))
    #expect(checkpoint.metadata["long"]?.string?.utf8.count == 3_000_000)
    for cut in [file.count - 40, 2_000_000, 1 << 20, 100] {
      let path = try folder.write(ZstdBuilder.frame(of: Array(file[..<cut])))
      #expect(errorCode { try readEverything(path) } == .truncated)
    }
  }

  @Test func identityIsThatOfTheFile() throws {
    let path = "\(repositoryRoot)/Formats/zstd/golden/views.pth.zst"
    let checkpoint = try CheckpointFormats.open(path: path)
    let file = try MappedFile(path: path)
    #expect(checkpoint.identities == [file.identity])
    #expect(checkpoint.byteCount == file.byteCount)
    #expect(checkpoint.path == path)
  }
}
