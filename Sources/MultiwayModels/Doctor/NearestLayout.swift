import MultiwayCore

/// The architecture and layout whose keys are most like those of a state dict.
struct NearestLayout {
  private var likeness: Double
  private var title: String
  private var matched: Int
  private var total: Int
  private var strangers: [String]
  private var missing: [String]

  /// The kinds of keys of a layout.
  private struct Layout {
    var title: String
    var kinds: [String]
    var known: Set<String>
  }

  /// Every known layout, in the order of the architectures.
  private static let layouts: [Layout] = Architectures.all.flatMap { architecture in
    architecture.keyTemplates.map { layout, keys in
      let kinds = unique(keys.map(normalized))
      return Layout(title: "\(architecture.name) in the \(layout) layout", kinds: kinds, known: Set(kinds))
    }
  }

  /// Compares the keys, layer numbers left out, with those of every known layout; nil where not even a tenth of them is
  /// known.
  static func find(_ tensors: [StoredTensor]) -> NearestLayout? {
    let keys = unique(tensors.map { normalized($0.name) })
    var best: NearestLayout?
    for layout in layouts {
      let matched = keys.filter { layout.known.contains($0) }
      // Keys that both have, of those that either has: an architecture with more keys is no nearer for that.
      let likeness = Double(matched.count) / Double(keys.count + layout.kinds.count - matched.count)
      guard matched.count * 10 > keys.count, likeness > best?.likeness ?? 0 else { continue }
      let present = Set(matched)
      best = NearestLayout(
        likeness: likeness, title: layout.title, matched: matched.count, total: keys.count,
        strangers: keys.filter { !layout.known.contains($0) }, missing: layout.kinds.filter { !present.contains($0) })
    }
    return best
  }

  /// The finding, for people.
  var description: String {
    var lines = ["  nearest: \(title), which \(matched) of \(total) kinds of keys fit"]
    for (name, keys) in [("missing", missing), ("not its own", strangers)] where !keys.isEmpty {
      let more = keys.count > 6 ? ", and \(keys.count - 6) more" : ""
      lines.append("    \(name): " + keys.prefix(6).joined(separator: ", ") + more)
    }
    return lines.joined(separator: "\n")
  }

  /// A key with every number replaced: `blocks.N.attn.qkv.weight`.
  private static func normalized(_ key: String) -> String {
    key.split(separator: ".", omittingEmptySubsequences: false)
      .map { part in !part.isEmpty && part.allSatisfy(\.isNumber) ? "N" : String(part) }.joined(separator: ".")
  }

  private static func unique(_ keys: [String]) -> [String] {
    var seen: Set<String> = []
    return keys.filter { seen.insert($0).inserted }
  }
}
