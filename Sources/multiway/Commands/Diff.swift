import ArgumentParser
import MultiwayConversion
import MultiwayCore
import MultiwayParity

/// `multiway diff A B`.
struct Diff: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says what differs between two files, tensor by tensor.",
    discussion: """
      Names, dtypes, shapes, the largest difference and the signal-to-noise ratio. Models of one architecture are compared by their \
      parameters, whatever container and key layout they come in; all other files by the names of their tensors. The exit code is 1 where \
      anything differs.
      """)

  @Argument(help: "A checkpoint or an artifact.") var first: String
  @Argument(help: "Another one.") var second: String
  @Flag(help: "List every tensor, and not only those that differ.") var tensors = false
  @Flag(help: "Print one JSON object instead of text.") var json = false
  @OptionGroup var inputs: InputArguments

  /// How many differing tensors are listed without being asked.
  private static let listedCount = 20

  func run() throws {
    let bar = ProgressBar("comparing")
    let difference = try Difference(
      try ModelFile.open(first), try ModelFile.open(second), options: inputs.options
    ) { bar.update($0, $1) }
    if json {
      Console.print(JSONValue.object(object(difference)).text(indented: true))
    } else {
      show(difference)
    }
    if !difference.isEmpty { throw ExitCode(1) }
  }

  private func show(_ difference: Difference) {
    let differing = difference.pairs.filter { !$0.isEqual }
    let worst = differing.sorted { ($0.comparison?.sqnr ?? -.infinity) < ($1.comparison?.sqnr ?? -.infinity) }
    let listed = tensors ? difference.pairs : Array(worst.prefix(Self.listedCount))
    if !listed.isEmpty {
      Console.print(
        Text.table(
          [["tensor", "dtype", "shape", "largest difference", "SQNR"]] + listed.map(row), rightAligned: [3, 4]) + "\n")
    }
    if listed.count < differing.count { Console.note("note: --tensors lists all \(differing.count) that differ") }
    for (title, names) in [
      ("only in \(first)", difference.onlyInFirst), ("only in \(second)", difference.onlyInSecond),
    ]
    where !names.isEmpty {
      let more = tensors ? [] : names.dropFirst(Self.listedCount)
      Console.print(
        "\(title):\n" + (tensors ? names[...] : names.prefix(Self.listedCount)).map { "  " + $0 + "\n" }.joined()
          + (more.isEmpty ? "" : "  and \(more.count) more\n"))
    }
    Console.print(
      Text.table([
        ["compared", difference.usesCanonicalNames ? "parameters of one architecture" : "tensors by name"],
        ["equal", Text.count(difference.pairs.count - differing.count)], ["different", Text.count(differing.count)],
        ["only in one", Text.count(difference.onlyInFirst.count + difference.onlyInSecond.count)],
      ]))
  }

  private func row(_ pair: Difference.Pair) -> [String] {
    func both(_ one: String, _ other: String) -> String { one == other ? one : "\(one) → \(other)" }
    let numbers: [String]
    if let comparison = pair.comparison {
      numbers = [scientific(comparison.maximumDifference), Decibels(comparison.sqnr).description]
    } else {
      numbers = [pair.isEqual ? "0" : "–", pair.isEqual ? "equal" : "–"]
    }
    return [
      pair.name, both(pair.dtypes.0.shortName, pair.dtypes.1.shortName),
      both(pair.shapes.0.description, pair.shapes.1.description),
    ] + numbers
  }

  private func object(_ difference: Difference) -> JSONObject {
    [
      "equal": .bool(difference.isEmpty), "canonical_names": .bool(difference.usesCanonicalNames),
      "tensors": .array(difference.pairs.filter { tensors || !$0.isEqual }.map { .object(object($0)) }),
      "equal_count": .integer(difference.pairs.count { $0.isEqual }),
      "only_in_first": .array(difference.onlyInFirst.map { .string($0) }),
      "only_in_second": .array(difference.onlyInSecond.map { .string($0) }),
    ]
  }

  private func object(_ pair: Difference.Pair) -> JSONObject {
    var object: JSONObject = [
      "name": .string(pair.name), "equal": .bool(pair.isEqual),
      "dtypes": .array([pair.dtypes.0, pair.dtypes.1].map { .string($0.shortName) }),
      "shapes": .array([pair.shapes.0, pair.shapes.1].map { .array($0.dimensions.map { .integer($0) }) }),
    ]
    if let comparison = pair.comparison {
      object["maximum_difference"] = .real(comparison.maximumDifference)
      // JSON has no infinity: null stands for equal elements.
      object["sqnr_db"] = comparison.sqnr.isFinite ? .real(comparison.sqnr) : .null
    }
    return object
  }
}
