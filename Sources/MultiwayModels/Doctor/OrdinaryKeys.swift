import MultiwayCore

/// What advice looks at: a state dict from a stranger may have 65,536 keys of any length, and no advice comes from most of them.
enum OrdinaryKeys {
  /// The longest key, or line about one, that is looked at, in bytes; the longest of a known layout has 104.
  private static let maximumLength = 400
  /// How many are looked at; the largest known model has some 2,000.
  private static let maximumCount = 10_000

  /// The first of the tensors whose keys have an ordinary length.
  static func sample(_ tensors: [StoredTensor]) -> [StoredTensor] { sample(tensors, by: \.name) }

  /// The first of the keys, or lines about keys, that have an ordinary length.
  static func sample(_ lines: [String]) -> [String] { sample(lines, by: \.self) }

  private static func sample<Item>(_ items: [Item], by text: (Item) -> String) -> [Item] {
    Array(items.filter { text($0).utf8.count <= maximumLength }.prefix(maximumCount))
  }

  /// A key, or a line about one, for people: its beginning where it is longer than any key should be.
  static func shortened(_ line: String) -> String {
    guard line.utf8.count > maximumLength else { return line }
    // By scalars: a single character may have any length.
    return "\(String(line.unicodeScalars.prefix(maximumLength / 4)))… (\(line.utf8.count) bytes)"
  }
}
