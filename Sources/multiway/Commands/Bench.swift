import ArgumentParser
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayKernels
import MultiwayParity
import MultiwayRuntime

/// `multiway bench MODEL`.
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures how fast a model runs.",
    discussion: """
      Inputs are made from a seed. The share of the peak is that of what this machine's multiply-add instructions reach on registers \
      alone, measured in the same process just after. With --captions a captioning model writes captions for made-up images: the opening \
      takes the image and the first word, a step a word, with its part of the search.
      """)

  @Argument(help: "A checkpoint (runs in fp32) or an artifact.") var model: String
  @Option(help: "The number of examples in a run.") var batch = 1
  @Option(help: "Run at least this many times.") var runs = 20
  @Flag(help: "Show where the time goes, kernel by kernel.") var profile = false
  @Flag(help: "Write captions, and take the time of the opening and of each step.") var captions = false
  @Option(help: "Captions: a safetensors file with the images, instead of made-up ones.") var inputs: String?
  @Flag(help: "Print one JSON object instead of text.") var json = false
  @OptionGroup var search: CaptionArguments
  @OptionGroup var compute: ComputeArguments
  @OptionGroup var threads: ThreadArguments
  @OptionGroup var input: InputArguments

  func validate() throws {
    if batch < 1 || batch > 65536 { throw ValidationError("--batch takes a number from 1 to 65536.") }
    if !captions, search.isGiven || inputs != nil {
      throw ValidationError("--inputs, --beams and what else is about captions goes with --captions.")
    }
    if runs < 1 || runs > 1_000_000 { throw ValidationError("--runs takes a number from 1 on.") }
  }

  func run() throws {
    let loaded = try LoadedModel(path: model, options: input.options)
    if captions { return try benchCaptions(loaded) }
    let session = try Session(loaded.graph, threads: threads.threads, compute: compute.compute)
    // First the memory of the run: a batch that is too large is refused before its inputs are made.
    var workspace = try Workspace(session, symbols: SyntheticInputs.sizes(for: loaded.graph, examples: batch))
    let inputs = try loaded.graph.bind(try SyntheticInputs.make(for: loaded.graph, examples: batch))
    _ = try session.run(inputs, in: &workspace)
    let firstResult = System.sinceStart
    var times: [Double] = []
    for _ in 0..<runs {
      let start = System.now
      _ = try session.run(inputs, in: &workspace)
      times.append(System.now - start)
    }
    let measurement = try Measurement(
      times: times, batch: batch, work: Work(loaded.graph, inputs.symbols), session: session,
      workspaceBytes: workspace.byteCount, firstResult: firstResult, profilesKernels: profile)
    let rows = profile ? try session.profile(inputs, runs: runs) : []
    let report = ProfileReport(rows)
    if json {
      Console.print(measurement.json(model: model, profile: profile ? report : nil).text(indented: true))
    } else {
      Console.print(measurement.text(model: model))
      if profile { Console.print("\n" + report.text) }
    }
  }
}

extension Bench {
  private func benchCaptions(_ loaded: LoadedModel) throws {
    let generator = try CaptionGenerator(loaded.graph, options: search.options)
    let opening = generator.decoding.opening
    let read = try inputs.map { try TensorFiles.readInputs($0, for: loaded.graph).tensors }
    guard let image = try read?["image"] ?? SyntheticInputs.make(for: opening, examples: batch)["image"] else {
      throw ValidationError("the captions' inputs have no image.")
    }
    let benchmark = try CaptionBenchmark(
      generator, image, runs: runs, compute: compute.compute, threads: threads.threads)
    let report = profile ? try benchmark.profile() : nil
    if json {
      Console.print(benchmark.json(model: model, profile: report).text(indented: true))
    } else {
      Console.print(benchmark.text(model: model))
      if let report { Console.print("\nThe last step:\n\n" + report.text) }
    }
  }
}

/// What a benchmark found.
private struct Measurement {
  let times: [Double]
  let batch: Int
  let work: Work
  let isa: String
  let threads: Int
  let compute: ComputeType
  let workspaceBytes: Int
  let firstResult: Double?
  let peakMemory: Int
  /// Bytes of fp32 weights a second that become int8 on all threads, as `quantize` does; 0 where nobody asked.
  let weightQuantizationSpeed: Double
  /// Operations a second that the multiply-add of the model's main type reaches on all threads.
  let peak: Double
  /// For one token, where weights are in blocks: their bytes, and the bytes a second that layers read and that memory gives.
  private(set) var reading: (bytes: Int, rate: Double, bandwidth: Double)?

  init(
    times: [Double], batch: Int, work: Work, session: Session, workspaceBytes: Int, firstResult: Double?,
    profilesKernels: Bool
  ) throws {
    self.times = times.sorted()
    self.batch = batch
    self.work = work
    self.workspaceBytes = workspaceBytes
    self.firstResult = firstResult
    isa = session.instructionSet
    threads = session.threadCount
    compute = session.compute
    peakMemory = System.peakMemory
    weightQuantizationSpeed = profilesKernels ? session.weightQuantizationSpeed() : 0
    peak = session.peakOperations(int8: work.int8 > work.float)
    reading = try session.weightReading()
  }

  private var median: Double { times[times.count / 2] }
  private var rate: Double { work.total / median }

  func text(model: String) -> String {
    let milliseconds = { (seconds: Double) in fixed(seconds * 1000, 2) + " ms" }
    var rows = [
      ["model", model],
      [
        "on",
        "\(isa)\(compute == .bf16 ? " in bf16" : ""), \(threads) threads, batch \(batch), \(times.count) runs",
      ],
      [
        "latency",
        "median \(milliseconds(median)), min \(milliseconds(times[0])), max \(milliseconds(times[times.count - 1]))",
      ],
      ["throughput", "\(fixed(Double(batch) / median, 1)) examples a second"],
      ["work", "\(fixed(work.total / 1e9, 2)) GOP, \(fixed(rate / 1e9, 1)) GOP/s"],
    ]
    if peak > 0 {
      rows.append([
        "peak",
        "\(fixed(peak / 1e9, 1)) GOP/s measured; the model reaches \(Percent(rate / peak)) of it over all its work",
      ])
    }
    if let reading {
      rows.append([
        "one token",
        "\(Text.bytes(reading.bytes)) of weights in blocks at \(fixed(reading.rate / 1e9, 1)) GB/s; memory gives "
          + "\(fixed(reading.bandwidth / 1e9, 1)) GB/s, \(Percent(reading.rate / reading.bandwidth)) of it",
      ])
    }
    rows.append(["memory", "peak \(Text.bytes(peakMemory)), of which \(Text.bytes(workspaceBytes)) for activations"])
    if let firstResult {
      rows.append(["first result", "\(fixed(firstResult * 1000, 0)) ms after the process started"])
    }
    return Text.table(rows)
  }

  func json(model: String, profile: ProfileReport?) -> JSONValue {
    var object: JSONObject = [
      "model": .string(model), "isa": .string(isa), "compute": .string(compute.rawValue),
      "threads": .integer(threads), "batch": .integer(batch),
      "runs": .integer(times.count), "median_ms": .real(median * 1000), "min_ms": .real(times[0] * 1000),
      "max_ms": .real(times[times.count - 1] * 1000), "examples_per_second": .real(Double(batch) / median),
      "operations": .real(work.total), "gop_per_second": .real(rate / 1e9),
      "peak_memory_bytes": .integer(peakMemory), "activation_bytes": .integer(workspaceBytes),
    ]
    if peak > 0 {
      object["peak_gop_per_second"] = .real(peak / 1e9)
      object["fraction_of_peak"] = .real(rate / peak)
    }
    if let reading {
      object["token_weight_bytes"] = .integer(reading.bytes)
      object["token_bytes_per_second"] = .real(reading.rate)
      object["memory_bytes_per_second"] = .real(reading.bandwidth)
    }
    if let firstResult { object["first_result_ms"] = .real(firstResult * 1000) }
    if let profile {
      object["profile"] = profile.json
      object["weight_quantization_bytes_per_second"] = .real(weightQuantizationSpeed)
    }
    return .object(object)
  }
}
