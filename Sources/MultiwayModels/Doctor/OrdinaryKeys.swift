import MultiwayCore

/// Which keys a model may have. A stranger's state dict may have 65,536 of any length and in any script: what looks at them one by one, character by
/// character, looks at these only.
enum OrdinaryKeys {
  /// The longest key, or line about one, in bytes; the longest of a known layout has 104.
  private static let maximumLength = 400
  /// How many advice looks at; the largest known model has some 2,000.
  private static let maximumCount = 10_000

  /// True for a key, or a line about one, that is in ASCII, as those of every known layout are, and not too long.
  static func has(_ line: String) -> Bool {
    line.utf8.count <= maximumLength && line.utf8.allSatisfy { $0 < 0x80 }
  }

  /// The first of the tensors whose keys are ordinary.
  static func sample(_ tensors: [StoredTensor]) -> [StoredTensor] {
    Array(tensors.filter { has($0.name) }.prefix(maximumCount))
  }

  /// The first of the keys, or lines about keys, that are ordinary.
  static func sample(_ lines: [String]) -> [String] { Array(lines.filter { has($0) }.prefix(maximumCount)) }

  /// A key for people: its beginning where it is longer than any key should be.
  static func shortened(_ key: String) -> String {
    guard key.utf8.count > maximumLength else { return key }
    // By scalars: a single character may have any length.
    return "\(String(key.unicodeScalars.prefix(maximumLength / 4)))… (\(key.utf8.count) bytes)"
  }
}
