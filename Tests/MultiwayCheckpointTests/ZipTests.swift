import MultiwayCheckpoint
import MultiwayCore
import MultiwayTestSupport
import Testing

/// The archive around a PyTorch checkpoint.
@Suite struct ZipTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func archive(_ change: (inout ZipBuilder) -> Void = { _ in }) -> [UInt8] {
    torchArchive(change: change) { $0.dict([("w", { $0.tensor("0", count: 6) })]) }
  }

  private func code(_ change: (inout ZipBuilder) -> Void) throws -> CheckpointErrorCode? {
    try code(archive(change))
  }

  private func code(_ bytes: [UInt8]) throws -> CheckpointErrorCode? {
    let path = try folder.write(bytes)
    return errorCode { try readEverything(path) }
  }

  @Test func whatIsAccepted() throws {
    #expect(try code { _ in } == nil)
    #expect(try code { $0.hasZip64End = false } == nil)
    #expect(try code { $0.alignment = 1 } == nil)
    #expect(try code { $0.comment = Array("PK\u{5}\u{6} comment".utf8) } == nil)
    #expect(try code { for index in $0.records.indices { $0.records[index].isStreamed = false } } == nil)
    #expect(try code { for index in $0.records.indices { $0.records[index].isDeflated = true } } == nil)
    #expect(try code { for index in $0.records.indices { $0.records[index].usesZip64 = true } } == nil)
    #expect(
      try code {
        $0.add("/etc/passwd", [1]); $0.add("archive/../../x", [1])
      } == nil)
    #expect(try code { $0.records.removeAll { $0.name.hasSuffix("byteorder") || $0.name.hasSuffix("version") } } == nil)
    #expect(
      try code { for index in $0.records.indices { $0.records[index].name.replace("archive", with: "é .x") } } == nil)
  }

  @Test func oneViewOnly() throws {
    #expect(try code { $0.records[2].localName = "archive/data/9" } == .malformed)
    #expect(try code { $0.records.append($0.records[0]) } == .duplicateName)
    #expect(try code { $0.add("other/data.pkl", [0x80, 2, 0x4E, 0x2E]) } == .malformed)
    #expect(
      try code {
        $0.records[2].name = "archive/data/0\0"; $0.records[2].localName = $0.records[2].name
      } == .malformed)
    #expect(try code { $0.prefix = [1, 2, 3] } == .unrecognized)
    #expect(try code { $0.suffix = [1, 2, 3] } == .trailingData)
    #expect(try code { $0.countOffset = 1 } == .malformed)
    #expect(try code { $0.countOffset = -1 } == .malformed)
    #expect(try code { $0.records[0].flags = 0x0809 } == .unsupported)
    #expect(try code { $0.records[0].flags = 0x0848 } == .unsupported)
  }

  @Test func checksums() throws {
    #expect(try code { $0.records[2].crc = 1 } == .corrupt)
    #expect(try code { $0.records[0].crc = 1 } == .corrupt)
    let unchecked = archive { for index in $0.records.indices { $0.records[index].crc = 0 } }
    #expect(try code(unchecked) == nil)
    let checkpoint = try CheckpointFormats.open(path: folder.file())
    #expect(checkpoint.notes.contains { $0.hasPrefix("checksums absent: 4 records") })
    // Listing does not read the weights, so it does not see what is wrong with them.
    let damaged = try folder.write(archive { $0.records[2].crc = 1 })
    #expect(throws: Never.self) { try CheckpointFormats.open(path: damaged) }
  }

  /// A view asks for a part of its record, whose checksum is compared all the same.
  @Test func checksumsOfParts() throws {
    func view(_ crc: UInt32?) -> [UInt8] {
      torchArchive(change: { if let crc { $0.records[2].crc = crc } }) {
        $0.dict([
          ("first", { $0.tensor("0", count: 6, size: [2]) }),
          ("last", { $0.tensor("0", count: 6, offset: 4, size: [2]) }),
        ])
      }
    }
    for packed in [false, true] {
      func file(_ bytes: [UInt8]) throws -> String { try folder.write(packed ? ZstdBuilder.frame(of: bytes) : bytes) }
      let tensors = try readEverything(try file(view(nil)))
      #expect(tensors.map(\.bytes) == [Array(floats(6)[..<8]), Array(floats(6)[16...])])
      #expect(errorCode { try readEverything(try file(view(1))) } == .corrupt)
      #expect(errorCode { try readEverything(try file(view(0))) } == nil)
    }
  }

  @Test func sizes() throws {
    #expect(try code { $0.records[2].claimedSize = 1 << 31 } != nil)
    #expect(
      try code {
        $0.records[2].isDeflated = true; $0.records[2].claimedSize = 20_000_000
      } == .sizeMismatch)
    #expect(
      try code {
        $0.records[2].isDeflated = true; $0.records[2].claimedSize = 25
      } == .sizeMismatch)
    #expect(
      try code {
        $0.records[0].isDeflated = true; $0.records[0].claimedSize = 100
      } == .corrupt)
    #expect(try code { $0.records[2].data.removeLast() } == .sizeMismatch)
  }

  @Test func otherArchives() throws {
    #expect(try code { $0.records.remove(at: 0) } == .missingRecord)
    #expect(
      try code {
        $0.records = []; $0.add("a.npy", [1])
      } == .malformed)
    #expect(try code { $0.records[3].data = Array("11\n".utf8) } == .unsupported)
    #expect(try code { $0.records[3].data = Array("three\n".utf8) } == .unsupported)
    #expect(
      try code {
        $0.records = []; $0.hasZip64End = false
      } == .noTensors)
  }

  /// Every truncation is an error; no flipped bit does worse than give one.
  @Test func damagedFiles() throws {
    let bytes = archive()
    for count in bytes.indices { #expect(try code(Array(bytes[..<count])) != nil) }
    var survivors = 0
    for position in bytes.indices {
      for bit in 0..<8 {
        var damaged = bytes
        damaged[position] ^= 1 << UInt8(bit)
        if try code(damaged) == nil { survivors += 1 }
      }
    }
    // Only what nothing refers to may change unseen: padding, times, descriptors, reserved fields.
    #expect(survivors < bytes.count * 8 / 2)
  }
}
