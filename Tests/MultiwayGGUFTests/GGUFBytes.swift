import Foundation
import MultiwayCore
import MultiwayGGUF

/// Builds GGUF files byte by byte, also those that no writer would make.
struct GGUFBytes {
  var bytes: [UInt8] = []

  mutating func u8(_ value: UInt8) { bytes.append(value) }
  mutating func u32(_ value: UInt32) {
    for shift in [0, 8, 16, 24] { bytes.append(UInt8(truncatingIfNeeded: value >> UInt32(shift))) }
  }
  mutating func u64(_ value: UInt64) {
    for shift in stride(from: 0, to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(shift))) }
  }
  mutating func text(_ value: String, length: UInt64? = nil) {
    u64(length ?? UInt64(value.utf8.count))
    bytes += value.utf8
  }
  mutating func pad(_ alignment: Int = 32) { while bytes.count % alignment != 0 { bytes.append(0) } }
  mutating func pair(_ key: String, type: UInt32 = 4, value: UInt32) {
    text(key)
    u32(type)
    u32(value)
  }
}

/// The parts of a small file with two tensors, each of which a test may spoil.
struct GGUFSpec {
  var magic = Array("GGUF".utf8)
  var version: UInt32 = 3
  var tensorCount: UInt64?
  var pairCount: UInt64?
  /// Appends the pairs.
  var pairs: [(inout GGUFBytes) -> Void] = []
  var names = ["a", "b"]
  var nameLength: UInt64?
  var rank: UInt32?
  var dimensions: [[UInt64]] = [[3, 2], [5]]
  var types: [UInt32] = [0, 24]
  var offsets: [UInt64] = [0, 32]
  var alignment = 32
  var dataSize = 64

  func build() -> [UInt8] {
    var file = GGUFBytes()
    file.bytes = magic
    file.u32(version)
    file.u64(tensorCount ?? UInt64(names.count))
    file.u64(pairCount ?? UInt64(pairs.count))
    for pair in pairs { pair(&file) }
    for (index, name) in names.enumerated() {
      file.text(name, length: index == 0 ? nameLength : nil)
      file.u32(rank ?? UInt32(dimensions[index].count))
      for dimension in dimensions[index] { file.u64(dimension) }
      file.u32(types[index])
      file.u64(offsets[index])
    }
    file.pad(alignment)
    file.bytes += (0..<dataSize).map { UInt8(truncatingIfNeeded: $0) }
    return file.bytes
  }
}

/// A folder of its own that is removed with the value.
final class Folder {
  let path = NSTemporaryDirectory() + "/multiway-gguf-" + UUID().uuidString
  init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String = "file.gguf") -> String { path + "/" + name }
  var names: [String] { (try? FileManager.default.contentsOfDirectory(atPath: path).sorted()) ?? [] }

  func read(_ bytes: [UInt8]) throws -> GGUFContainer {
    try Data(bytes).write(to: URL(fileURLWithPath: file("in")))
    return try GGUFContainer.read(try MappedFile(path: file("in")))
  }

  /// The code of the error that reading `bytes` gives.
  func code(_ bytes: [UInt8]) -> GGUFErrorCode? {
    do {
      _ = try read(bytes)
      return nil
    } catch {
      return (error as? GGUFError)?.code
    }
  }
}
