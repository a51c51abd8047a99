/// Makes checksums fit again, so that what a fuzzer changed is read and not refused at the door.
enum Repair {
  /// Checksums of a zip archive's records become 0, which means that the writer computed none.
  static func zip(_ bytes: [UInt8]) -> [UInt8] {
    var bytes = bytes
    for start in bytes.indices.dropLast(20) where bytes[start] == 0x50 && bytes[start + 1] == 0x4B {
      switch (bytes[start + 2], bytes[start + 3]) {
      case (1, 2): clear(&bytes, start + 16)
      case (3, 4): clear(&bytes, start + 14)
      default: break
      }
    }
    return bytes
  }

  private static func clear(_ bytes: inout [UInt8], _ start: Int) {
    for index in start..<start + 4 { bytes[index] = 0 }
  }

  /// The sums of a tar archive's headers become right, one after the other for as long as the sizes make sense.
  static func tar(_ bytes: [UInt8]) -> [UInt8] {
    var bytes = bytes
    var start = 0
    while start + 512 <= bytes.count, bytes[start..<start + 512].contains(where: { $0 != 0 }) {
      for index in 148..<156 { bytes[start + index] = 0x20 }
      let sum = bytes[start..<start + 512].reduce(0) { $0 + Int($1) }
      let digits = Array(String(sum, radix: 8).utf8)
      for index in 0..<6 {
        bytes[start + 148 + index] = index < 6 - digits.count ? 0x30 : digits[index + digits.count - 6]
      }
      bytes[start + 154] = 0
      let size = Int(String(decoding: bytes[start + 124..<start + 135], as: UTF8.self), radix: 8) ?? 0
      start += 512 + min(max(0, size), bytes.count) / 512 * 512 + (size % 512 == 0 ? 0 : 512)
    }
    return bytes
  }
}
