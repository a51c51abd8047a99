import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayParity
import MultiwayRuntime

/// How fast a captioning model writes.
struct CaptionBenchmark {
  /// The runs, in order.
  private var runs: [TimedDecoding] = []
  private let images: Int
  private let options: BeamSearchOptions
  private let captions: Captions
  private let engine: SessionDecoding
  private let compute: ComputeType
  private let peakMemory: Int

  /// Writes captions for images [N, C, H, W], once to get ready and `runs` times to measure.
  init(
    _ generator: CaptionGenerator, _ image: TensorValue, runs count: Int, compute: ComputeType, threads: Int?
  ) throws {
    engine = try SessionDecoding(generator.decoding, threads: threads, compute: compute)
    var ready = TimedDecoding(engine)
    var captions = try generator.generate(image, with: &ready)
    for _ in 0..<count {
      var timed = TimedDecoding(engine)
      captions = try generator.generate(image, with: &timed)
      runs.append(timed)
    }
    (images, options, self.captions, self.compute) = (image.shape[0], generator.options, captions, compute)
    peakMemory = System.peakMemory
  }

  private var openings: [Double] { runs.map(\.opening).sorted() }
  private var steps: [Double] { runs.flatMap(\.steps).sorted() }
  /// Seconds of all steps of a run, in the middle of all runs.
  private var writing: Double { middle(runs.map { $0.steps.reduce(0, +) }.sorted()) }
  private var stepCount: Int { runs.first?.steps.count ?? 0 }
  private var tokensPerSecond: Double { writing > 0 ? Double(stepCount * images) / writing : 0 }

  private func middle(_ times: [Double]) -> Double { times.isEmpty ? 0 : times[times.count / 2] }

  /// Where the time of the last step goes; nothing where there was none.
  func profile() throws -> ProfileReport {
    guard let inputs = runs.last?.lastInputs else { return ProfileReport([]) }
    return ProfileReport(try engine.profile(inputs, runs: runs.count))
  }

  func text(model: String) -> String {
    let range = { (times: [Double]) in
      let milliseconds = { (seconds: Double) in fixed(seconds * 1000, 2) + " ms" }
      guard let least = times.first, let most = times.last else { return "none" }
      return "median \(milliseconds(middle(times))), min \(milliseconds(least)), max \(milliseconds(most))"
    }
    return Text.table([
      ["model", model],
      [
        "on",
        "\(engine.instructionSet)\(compute == .bf16 ? " in bf16" : ""), \(engine.threadCount) threads, \(images) images, "
          + "\(options.beams) beams, \(runs.count) runs",
      ],
      ["opening", range(openings)],
      ["step", "\(range(steps)); \(stepCount) steps"],
      ["throughput", "\(fixed(tokensPerSecond, 1)) tokens a second after the opening"],
      ["memory", "peak \(Text.bytes(peakMemory))"],
    ])
  }

  func json(model: String, profile: ProfileReport?) -> JSONValue {
    var object: JSONObject = [
      "model": .string(model), "isa": .string(engine.instructionSet), "compute": .string(compute.rawValue),
      "threads": .integer(engine.threadCount), "images": .integer(images), "beams": .integer(options.beams),
      "runs": .integer(runs.count), "opening_ms": .real(middle(openings) * 1000),
      "step_ms": .real(middle(steps) * 1000), "step_min_ms": .real((steps.first ?? 0) * 1000),
      "step_max_ms": .real((steps.last ?? 0) * 1000), "steps": .integer(stepCount),
      "steps_ms": .array((runs.last?.steps ?? []).map { .real($0 * 1000) }),
      "tokens_per_second": .real(tokensPerSecond), "peak_memory_bytes": .integer(peakMemory),
      "captions": .array(
        captions.rows(padding: options.paddingToken).map { .array($0.tokens.map { .integer($0) }) }),
    ]
    if let profile { object["profile"] = profile.json }
    return .object(object)
  }
}

/// An engine that takes the time of its calls: a step begins where the call before ends, so that it has its part of the search.
private struct TimedDecoding: DecodingEngine {
  private let engine: SessionDecoding
  private var start = System.now
  private(set) var opening = 0.0
  private(set) var steps: [Double] = []
  private(set) var lastInputs: [String: TensorValue]?

  init(_ engine: SessionDecoding) { self.engine = engine }

  private mutating func elapsed() -> Double {
    let now = System.now
    defer { start = now }
    return now - start
  }

  mutating func open(_ inputs: [String: TensorValue]) throws -> [(name: String, value: TensorValue)] {
    let outputs = try engine.open(inputs)
    opening = elapsed()
    return outputs
  }

  mutating func step(_ inputs: [String: TensorValue]) throws -> [(name: String, value: TensorValue)] {
    let outputs = try engine.step(inputs)
    steps.append(elapsed())
    lastInputs = inputs
    return outputs
  }
}
