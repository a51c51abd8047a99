import MultiwayCore
import MultiwayParity
import MultiwayRuntime

/// A profile as a table or JSON.
struct ProfileReport {
  private let rows: [ProfileRow]

  init(_ rows: [ProfileRow]) { self.rows = rows }

  private var seconds: Double { rows.reduce(0) { $0 + $1.seconds } }

  var text: String {
    let body = rows.map { row in
      [
        row.operation, row.detail, "\(row.steps)", fixed(row.seconds * 1000, 2),
        Percent(row.seconds / seconds).description,
        row.operations > 0 ? fixed(row.operations / row.seconds / 1e9, 1) : "",
      ]
    }
    return Text.table(
      [["kernel", "sizes", "steps", "ms", "share", "GOP/s"]] + body
        + [["all", "", "\(rows.reduce(0) { $0 + $1.steps })", fixed(seconds * 1000, 2), "", ""]],
      rightAligned: [2, 3, 4, 5])
  }

  var json: JSONValue {
    .array(
      rows.map { row in
        .object([
          "kernel": .string(row.operation), "sizes": .string(row.detail), "steps": .integer(row.steps),
          "ms": .real(row.seconds * 1000), "operations": .real(row.operations),
        ])
      })
  }
}
