import MultiwayParity

/// Sizes and tables for people.
enum Text {
  /// `887.2 MB`; a megabyte is 10⁶ bytes, as disks count.
  static func bytes(_ count: Int) -> String {
    let value = Double(count)
    if count < 1000 { return "\(count) B" }
    if count < 1_000_000 { return fixed(value / 1e3, 1) + " kB" }
    if count < 1_000_000_000 { return fixed(value / 1e6, 1) + " MB" }
    return fixed(value / 1e9, 2) + " GB"
  }

  /// `221,754,856`.
  static func count(_ number: Int) -> String {
    var digits = String(number)
    var groups: [String] = []
    while digits.count > 3 {
      groups.insert(String(digits.suffix(3)), at: 0)
      digits.removeLast(3)
    }
    return ([digits] + groups).joined(separator: ",")
  }

  /// Rows in columns; the first column is left-aligned, numbers are right-aligned by `rightAligned`.
  static func table(_ rows: [[String]], rightAligned: Set<Int> = []) -> String {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
    return rows.map { row in
      var line = ""
      for (column, cell) in row.enumerated() {
        let padding = String(repeating: " ", count: widths[column] - cell.count)
        line += rightAligned.contains(column) ? padding + cell : cell + padding
        if column + 1 < row.count { line += "  " }
      }
      while line.hasSuffix(" ") { line.removeLast() }
      return line
    }.joined(separator: "\n")
  }
}
