import MultiwayCore

/// A zip archive of PyTorch around any pickle. Its checksums are 0, which means that its writer computed none.
enum TorchArchive {
  private static let pickleName = Array("archive/data.pkl".utf8)

  /// The storages '0' and '1', of 64 and 16 bytes: what stands of them among the records and, their places counted from the first of
  /// them, in the directory.
  private static let storages: [(record: [UInt8], entry: (before: [UInt8], after: [UInt8]))] = [
    ("archive/data/0", 64), ("archive/data/1", 16),
  ].map { name, size in
    let content = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 37) }
    let name = Array(name.utf8)
    return (localHeader(name, size) + content, entry(name, size))
  }

  static func source(pickle: TensorBytes) -> MemorySource {
    let content = pickle.array(of: UInt8.self)
    var archive = localHeader(pickleName, content.count)
    archive.reserveCapacity(archive.count + content.count + 512)
    archive += content
    let pickleEntry = entry(pickleName, content.count)
    var directory = pickleEntry.before + little(0, 4) + pickleEntry.after
    for storage in storages {
      directory += storage.entry.before
      directory += little(archive.count, 4)
      directory += storage.entry.after
      archive += storage.record
    }
    let start = archive.count
    archive += directory
    archive += [0x50, 0x4B, 5, 6, 0, 0, 0, 0]
    archive += little(storages.count + 1, 2) + little(storages.count + 1, 2)
    archive += little(directory.count, 4) + little(start, 4) + little(0, 2)
    return MemorySource(TensorBytes(copying: archive), path: "fuzzed")
  }

  /// Method, time, date, checksum, both sizes, the name's length.
  private static func common(_ name: [UInt8], _ size: Int) -> [UInt8] {
    [UInt8](repeating: 0, count: 12) + little(size, 4) + little(size, 4) + little(name.count, 2)
  }

  private static func localHeader(_ name: [UInt8], _ size: Int) -> [UInt8] {
    [0x50, 0x4B, 3, 4, 0, 0] + common(name, size) + little(0, 2) + name
  }

  /// An entry of the directory, before and after the place of its record.
  private static func entry(_ name: [UInt8], _ size: Int) -> (before: [UInt8], after: [UInt8]) {
    ([0x50, 0x4B, 1, 2, 0, 0, 0, 0] + common(name, size) + [UInt8](repeating: 0, count: 12), name)
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

  private static let key = Array("\"data_offsets\":[".utf8)

  /// The end of the last tensor, as the header gives it where nobody put white space into it. Anything else is for the reader to refuse.
  private static func dataSize(_ text: [UInt8]) -> Int {
    var largest = 0
    var place = 0
    while place + key.count <= text.count {
      guard text[place] == key[0], text[place..<place + key.count].elementsEqual(key) else {
        place += 1
        continue
      }
      place += key.count
      var end = 0
      while place < text.count, text[place] != UInt8(ascii: "]") {
        let digit = Int(text[place]) - 0x30
        end = (0...9).contains(digit) ? min(end * 10 + digit, mostBytes) : 0
        place += 1
      }
      largest = max(largest, end)
    }
    return largest
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
