import MultiwayCore

/// A zip archive of PyTorch around any pickle. Its checksums are 0, which means that its writer computed none.
enum TorchArchive {
  /// The storages '0' and '1', of 64 and 16 bytes.
  private static let storages = [("data/0", 64), ("data/1", 16)].map { name, size in
    (name: "archive/" + name, bytes: (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 37) })
  }

  static func source(pickle: TensorBytes) -> MemorySource {
    let records = [(name: "archive/data.pkl", bytes: pickle.array(of: UInt8.self))] + storages
    var archive: [UInt8] = []
    var directory: [UInt8] = []
    for (name, bytes) in records {
      // Method, time, date, checksum, both sizes, the name's length.
      let common =
        [0, 0, 0, 0, 0, 0].flatMap { little($0, 2) } + little(bytes.count, 4) + little(bytes.count, 4)
        + little(name.utf8.count, 2)
      directory += [0x50, 0x4B, 1, 2] + little(0, 2) + little(0, 2) + common
      directory += [0, 0, 0, 0].flatMap { little($0, 2) } + little(0, 4) + little(archive.count, 4) + Array(name.utf8)
      archive += [0x50, 0x4B, 3, 4] + little(0, 2) + common + little(0, 2) + Array(name.utf8) + bytes
    }
    let end =
      [0x50, 0x4B, 5, 6] + little(0, 4) + little(records.count, 2) + little(records.count, 2)
      + little(directory.count, 4) + little(archive.count, 4) + little(0, 2)
    return MemorySource(TensorBytes(copying: archive + directory + end), path: "fuzzed")
  }

  private static func little(_ value: Int, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
  }
}

/// A safetensors file of which the header is given; whatever data it describes are zeros that take no memory.
final class PaddedHeader: ByteSource {
  let path = "fuzzed"
  let byteCount: Int
  let identity: FileIdentity
  private let header: MemorySource

  /// The most that is described: the data of a file of 1 TB.
  private static let mostBytes = 1 << 40

  static func source(_ header: [UInt8]) -> PaddedHeader { PaddedHeader(header) }

  private init(_ text: [UInt8]) {
    let count = (0..<8).map { UInt8(truncatingIfNeeded: text.count >> ($0 * 8)) }
    header = MemorySource(TensorBytes(copying: count + text), path: "fuzzed")
    identity = header.identity
    byteCount = header.byteCount + PaddedHeader.dataSize(text)
  }

  /// The end of the last tensor, as the header gives it.
  private static func dataSize(_ text: [UInt8]) -> Int {
    guard let members = try? JSONParser.parse(text).object?.members else { return 0 }
    let ends = members.compactMap { $0.value["data_offsets"]?.array?.last?.integer }
    return min(max(0, ends.max() ?? 0), mostBytes)
  }

  var fileByteCount: Int { byteCount }
  var packing: String? { nil }

  func bytes(in range: Range<Int>) -> TensorBytes {
    if range.upperBound <= header.byteCount { return header.bytes(in: range) }
    let result = AlignedBuffer(byteCount: range.count)
    let part = range.lowerBound..<max(range.lowerBound, min(range.upperBound, header.byteCount))
    if !part.isEmpty {
      let bytes = header.bytes(in: part)
      result.copy(bytes.span, at: 0)
    }
    return result.bytes
  }

  func discard(_ range: Range<Int>) {}
}
