import ArgumentParser
import MultiwayCore
import MultiwayDelivery
import MultiwayKernels

/// How hard zstd tries.
struct LevelArguments: ParsableArguments {
  @Option(help: "How hard zstd tries, from 1 to 22.")
  var level = Delivery.defaultLevel

  func validate() throws {
    if !(1...22).contains(level) { throw ValidationError("--level takes a number from 1 to 22.") }
  }
}

/// `multiway pack FILE OUT.zst`.
struct Pack: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compresses a file for the way to the box.",
    discussion: "One zstd frame with a checksum, the same bytes for any number of threads; `zstd -d` opens it.")

  @Argument(help: "A file.") var file: String
  @Argument(help: "The output.") var output: String
  @OptionGroup var level: LevelArguments
  @OptionGroup var threads: ThreadArguments
  @OptionGroup var outputs: OutputArguments

  func run() throws {
    let start = System.now
    let bar = ProgressBar("packing")
    let report = try Delivery.pack(
      file, to: output, level: level.level, threads: threads.threads ?? KernelContext.coreCount,
      overwrite: outputs.force
    ) { bar.update($0, $1) }
    report.show("packed", seconds: System.now - start, json: outputs.json)
  }
}

/// `multiway unpack FILE.zst OUT`.
struct Unpack: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Decompresses what `pack` or zstd wrote.",
    discussion: "Checksums are compared; the output appears only when all of them are right.")

  @Argument(help: "A zstd file.") var file: String
  @Argument(help: "The output.") var output: String
  @OptionGroup var outputs: OutputArguments

  func run() throws {
    let start = System.now
    let bar = ProgressBar("unpacking")
    let report = try Delivery.unpack(file, to: output, overwrite: outputs.force) { bar.update($0, $1) }
    report.show("unpacked", seconds: System.now - start, json: outputs.json)
  }
}

/// `multiway delta OLD NEW OUT`.
struct Delta: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Describes a new file as a change of an old one.",
    discussion: "What `zstd --patch-from` writes: small where most of the two files' bytes are the same.")

  @Argument(help: "The file that the box has.") var old: String
  @Argument(help: "The file that it shall have.") var new: String
  @Argument(help: "The output.") var output: String
  @OptionGroup var level: LevelArguments
  @OptionGroup var outputs: OutputArguments

  func run() throws {
    let start = System.now
    let bar = ProgressBar("comparing")
    let report = try Delivery.delta(
      from: old, to: new, output: output, level: level.level, overwrite: outputs.force
    ) { bar.update($0, $1) }
    report.show("delta", seconds: System.now - start, json: outputs.json)
  }
}

/// `multiway apply OLD DELTA OUT`.
struct Apply: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes the new file from the old one and a delta.",
    discussion: "The output appears only if its checksum is that of the file which the delta was made for.")

  @Argument(help: "The file that the delta was made from.") var old: String
  @Argument(help: "The delta.") var delta: String
  @Argument(help: "The output.") var output: String
  @OptionGroup var outputs: OutputArguments

  func run() throws {
    let start = System.now
    let bar = ProgressBar("applying")
    let report = try Delivery.apply(delta, to: old, output: output, overwrite: outputs.force) { bar.update($0, $1) }
    report.show("applied", seconds: System.now - start, json: outputs.json)
  }
}

extension DeliveryReport {
  /// What the verb prints.
  fileprivate func show(_ title: String, seconds: Double, json: Bool) {
    if json {
      let object: JSONObject = [
        "output": .string(output), "input_bytes": .integer(inputBytes), "output_bytes": .integer(outputBytes),
        "seconds": .real(seconds), "peak_memory_bytes": .integer(System.peakMemory),
      ]
      Console.print(JSONValue.object(object).text(indented: true))
      return
    }
    let share = inputBytes == 0 ? 0 : Double(outputBytes) / Double(inputBytes)
    // What unpacks has no share that would tell anything.
    let ratio = share > 0 && share <= 1 ? " (\(Double(Int((share * 1000).rounded())) / 10) %)" : ""
    Console.print(
      Text.table([
        [title, output], ["size", "\(Text.bytes(inputBytes)) → \(Text.bytes(outputBytes))\(ratio)"],
        ["time", "\(fixedSeconds(seconds)), peak memory \(Text.bytes(System.peakMemory))"],
      ]))
  }
}
