import ArgumentParser
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayPasses
import MultiwayRuntime

/// What can be said about an input beyond its path.
struct InputArguments: ParsableArguments {
  @Option(
    name: .customLong("state-dict"),
    help: "The dictionary of tensors to take where a file holds several: model, module, state_dict, model_ema, …")
  var stateDict: String?

  @Option(help: "The number of attention heads, where neither the file nor the width tells it.")
  var heads: Int?

  @Option(
    help: ArgumentHelp(
      "After how many blocks the four feature maps of a segmentation decoder are taken: 4,6,8,12.",
      valueName: "numbers"))
  var taps: NumberList?

  var options: InputOptions { InputOptions(stateDict: stateDict, heads: heads, featureTaps: taps?.numbers) }
}

/// Numbers with commas between them.
struct NumberList: ExpressibleByArgument {
  var numbers: [Int]

  init?(argument: String) {
    let parts = argument.split(separator: ",", omittingEmptySubsequences: false)
    numbers = parts.compactMap { Int($0) }
    if numbers.count != parts.count { return nil }
  }
}

/// A number of bytes, with a unit or without: `2GB` is 2 · 10⁹, `2GiB` is 2 · 2³⁰.
struct ByteSize: ExpressibleByArgument {
  var count: Int

  private static let units = [
    ("KIB", 1 << 10), ("MIB", 1 << 20), ("GIB", 1 << 30), ("TIB", 1 << 40), ("KB", 1000), ("MB", 1_000_000),
    ("GB", 1_000_000_000), ("TB", 1_000_000_000_000), ("B", 1),
  ]

  init?(argument: String) {
    let text = argument.uppercased()
    let unit = ByteSize.units.first { text.hasSuffix($0.0) } ?? ("", 1)
    guard let number = Int(text.dropLast(unit.0.count)), number > 0 else { return nil }
    let (product, overflow) = number.multipliedReportingOverflow(by: unit.1)
    if overflow { return nil }
    count = product
  }
}

/// What a verb that writes a model takes.
struct SourceArguments: ParsableArguments {
  @Flag(help: "Record the SHA-256 of every source file in the output; reads all of them.")
  var hashSource = false

  /// Opens the input that becomes `output`.
  func open(_ path: String, for output: String) throws -> ModelFile {
    if hashSource, try OutputKind(path: output) == .onnx {
      throw ConversionError(
        .usage, "an ONNX model records no digests", expected: "an output that ends in .gguf or .safetensors",
        remedy: "leave --hash-source out", file: output)
    }
    let file = try ModelFile.open(path)
    return hashSource ? try file.hashed() : file
  }
}

/// What every verb that writes takes.
struct OutputArguments: ParsableArguments {
  @Flag(help: "Replace the output if it exists.")
  var force = false

  @Flag(help: "Print one JSON object instead of text.")
  var json = false
}

/// How much memory a verb that writes may take.
struct MemoryArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "How much memory may be resident at most, pages of mapped files included: 256MB, 1GB, 512MiB. The output is the same.",
      valueName: "size"))
  var maxMemory: String?

  /// Calls `body` under the budget.
  func limit<R>(_ body: () throws -> R) throws -> R {
    guard let maxMemory else { return try body() }
    let budget = try MemoryBudget(maxMemory)
    MemoryBudget.returnsFreedMemory()
    return try MemoryBudget.$current.withValue(budget) { try body() }
  }
}

/// The number of threads.
struct ThreadArguments: ParsableArguments {
  @Option(help: "The number of threads; one a core unless given.")
  var threads: Int?

  func validate() throws {
    if let threads, threads < 1 || threads > 1024 { throw ValidationError("--threads takes a number from 1 to 1024.") }
  }
}

/// What a model is computed in.
struct ComputeArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      What layers that are not int8 are computed in: f32, with the same bits everywhere, or bf16, about twice as fast on CPUs that have it, \
      with bits that depend on the kind of CPU.
      """, valueName: "type"), transform: ComputeArguments.type)
  var compute = ComputeType.f32

  private static func type(_ name: String) throws -> ComputeType {
    guard let type = ComputeType(rawValue: name) else {
      throw ValidationError("--compute takes \(ComputeType.allCases.map(\.rawValue).joined(separator: " or ")).")
    }
    return type
  }
}

extension ConversionReport {
  /// What a verb that writes prints.
  func show(title: String, seconds: Double, json: Bool) {
    if json {
      Console.print(JSONValue.object(object(seconds: seconds)).text(indented: true))
      return
    }
    Console.print(
      Text.table(
        [
          [title, output],
          ["size", "\(Text.bytes(inputBytes)) → \(Text.bytes(outputBytes)) (\(ratio))"],
          ["parameters", "\(Text.count(parametersBefore)) → \(Text.count(parametersAfter))"],
        ] + passes.map { ["pass", "\($0.name): \(PassText.text($0.statistics))"] }
          + [["time", "\(fixedSeconds(seconds)), peak memory \(Text.bytes(System.peakMemory))"]]))
    for note in notes { Console.note("note: " + note) }
  }

  private var ratio: String {
    inputBytes == 0 ? "–" : "\(Int((Double(outputBytes) / Double(inputBytes) * 1000).rounded()) / 10) %"
  }

  private func object(seconds: Double) -> JSONObject {
    [
      "output": .string(output), "input_bytes": .integer(inputBytes), "output_bytes": .integer(outputBytes),
      "parameters_before": .integer(parametersBefore), "parameters_after": .integer(parametersAfter),
      "passes": .array(
        passes.map { report in
          .object([
            "name": .string(report.name), "rewrites": .integer(report.statistics.rewrites),
            "removed_nodes": .integer(report.statistics.removedNodes),
            "notes": .array(report.statistics.notes.map { .string($0) }),
          ])
        }),
      "notes": .array(notes.map { .string($0) }), "seconds": .real(seconds),
      "peak_memory_bytes": .integer(System.peakMemory),
    ]
  }
}
