import Glibc
import MultiwayCore
import MultiwayGraph
import MultiwayKernels
import MultiwayReference
import MultiwayRuntime
import MultiwayTestSupport
import Testing

/// The reference interpreter as a decoding engine.
private struct ReferenceDecoding: DecodingEngine {
  let decoding: CaptionDecoding
  func open(_ inputs: [String: TensorValue]) throws -> [(name: String, value: TensorValue)] {
    try Reference(decoding.opening, threads: 1).run(inputs)
  }
  func step(_ inputs: [String: TensorValue]) throws -> [(name: String, value: TensorValue)] {
    try Reference(decoding.step, threads: 1).run(inputs)
  }
}

/// An engine that keeps the inputs and logits of each step.
private struct Recording: DecodingEngine {
  let engine: SessionDecoding
  var runs: [(inputs: [String: TensorValue], logits: TensorValue)] = []

  mutating func open(_ inputs: [String: TensorValue]) throws -> [(name: String, value: TensorValue)] {
    try record(inputs, try engine.open(inputs))
  }
  mutating func step(_ inputs: [String: TensorValue]) throws -> [(name: String, value: TensorValue)] {
    try record(inputs, try engine.step(inputs))
  }
  private mutating func record(
    _ inputs: [String: TensorValue], _ outputs: [(name: String, value: TensorValue)]
  ) throws -> [(name: String, value: TensorValue)] {
    runs.append((inputs, try #require(outputs.first { $0.name == "logits" }).value))
    return outputs
  }
}

/// Captions against those that PyTorch finds with torchscale's incremental state (Tools/reference/captioning.py).
@Suite struct DecodingTests {
  private static let model = "tiny/heads/captioning"

  /// The searches of the fixture: those of `CAPTIONS` in Tools/reference/make_fixtures.py.
  private static let searches: [(name: String, options: BeamSearchOptions)] = [
    ("default", options(length: 11)), ("greedy", options(beams: 1, length: 11)),
    ("short", options(beams: 4, length: 5, mask: 18)),
    ("other_end", options(beams: 2, length: 11, penalty: 1.5, end: 7)),
  ]

  private static func options(
    beams: Int = 3, length: Int, penalty: Double = 0.6, mask: Int = 19, end: Int = 2
  ) -> BeamSearchOptions {
    var options = BeamSearchOptions()
    (options.beams, options.maximumLength, options.lengthPenalty) = (beams, length, penalty)
    (options.maskToken, options.endToken) = (mask, end)
    return options
  }

  private func generate(
    _ graph: Graph, _ image: TensorValue, _ options: BeamSearchOptions, _ engine: Engine = .runtime
  ) throws -> Captions {
    let generator = try CaptionGenerator(graph, options: options)
    switch engine {
    case .runtime:
      var session = try SessionDecoding(generator.decoding, threads: 2)
      return try generator.generate(image, with: &session)
    case .reference:
      var reference = ReferenceDecoding(decoding: generator.decoding)
      return try generator.generate(image, with: &reference)
    }
  }

  @Test(arguments: searches.indices, Engine.allCases)
  func captionsAreThoseOfPyTorch(index: Int, engine: Engine) throws {
    let (name, options) = Self.searches[index]
    let golden = try Fixtures.values(Self.model + "_search.safetensors")
    let graph = try Fixtures.graph(Self.model)
    let image = try #require(golden["image"])
    let captions = try generate(graph, image, options, engine)
    #expect(captions.tokens == golden[name + ".tokens"])
    let scores = try #require(golden[name + ".scores"]).floats
    #expect(zip(captions.scores.floats, scores).allSatisfy { abs($0 - $1) < 1e-4 })
    for row in 0..<image.shape[0] {
      let alone = try generate(graph, image.rows(row..<row + 1), options, engine)
      #expect(alone.tokens == golden[name + ".tokens_alone"]?.rows(row..<row + 1))
      #expect(engine.isTheSame(alone.scores, inAnotherBatch: captions.scores.rows(row..<row + 1)))
    }
  }

  /// What a step computes from what is remembered is what the whole text gives, to the last bit.
  @Test func incrementalIsFull() throws {
    let graph = try Fixtures.graph(Self.model)
    let image = try #require(try Fixtures.values(Self.model + "_search.safetensors")["image"]).rows(1..<2)
    let generator = try CaptionGenerator(graph, options: Self.options(beams: 1, length: 11))
    var recording = Recording(engine: try SessionDecoding(generator.decoding, threads: 1))
    _ = try generator.generate(image, with: &recording)
    #expect(recording.runs.count == 9)
    var text = [0]
    for (count, run) in recording.runs.enumerated() {
      if count > 0 { text.append(try #require(run.inputs["text"]?.integers)[0]) }
      let whole = TensorValue([1, text.count + 1], integers: text + [19])
      let logits = try #require(try Engine.runtime.run(graph, ["image": image, "text": whole])["logits"])
      #expect(logits.floats.suffix(20).elementsEqual(run.logits.floats), "\(text)")
      let reference = try #require(try Engine.reference.run(graph, ["image": image, "text": whole])["logits"])
      #expect(
        decibels(TensorValue([20], Array(reference.floats.suffix(20))), TensorValue([20], run.logits.floats)) > 100)
    }
  }

  @Test func theSameBitsEverywhere() throws {
    let graph = try Fixtures.graph(Self.model)
    let image = try #require(try Fixtures.values(Self.model + "_search.safetensors")["image"])
    let generator = try CaptionGenerator(graph, options: Self.options(length: 11))
    var found: Set<[UInt32]> = []
    for isa in ISA.supported {
      for threads in [1, 3] {
        var session = try SessionDecoding(generator.decoding, isa: isa, threads: threads)
        let captions = try generator.generate(image, with: &session)
        found.insert(captions.scores.floats.map(\.bitPattern) + captions.tokens.floats.map(\.bitPattern))
      }
    }
    #expect(found.count == 1)
  }

  /// One engine for one batch after another, each with images of its own: nothing of the batch before is left.
  @Test func anEngineServesManyBatches() throws {
    let golden = try Fixtures.values(Self.model + "_search.safetensors")
    let image = try #require(golden["image"])
    let generator = try CaptionGenerator(try Fixtures.graph(Self.model), options: Self.options(length: 11))
    var session = try SessionDecoding(generator.decoding, threads: 2)
    for batch in [1, 2, 5] {
      var done: [Int] = []
      let captions = try generator.generate(image, atMost: batch, with: &session) { done.append($0 * 100 + $1) }
      #expect(captions.tokens == golden["default.tokens"])
      #expect(done.last == 505 && done.count == (5 + batch - 1) / batch)
    }
  }

  /// The image's experts work in the opening alone, and the step reads what the opening gives.
  @Test func theGraphsFitTogether() throws {
    let graph = try Fixtures.graph(Self.model)
    let decoding = try CaptionDecoding(graph)
    try decoding.opening.verify()
    try decoding.step.verify()
    #expect(decoding.layers == 1 && decoding.vocabulary == 20 && decoding.capacity == 10)
    #expect(CaptionDecoding.capacity(of: graph) == 10)
    #expect(decoding.opening.inputs.map { decoding.opening[$0].name } == ["image", "text"])
    #expect(!decoding.step.constants.contains { $0.modality == .vision })
    #expect(decoding.step.nodes.contains { $0.op.name == "attention" })
    #expect(
      decoding.opening.outputs.map(\.name)
        == ["logits", "image_key.0", "image_value.0", "text_key.0", "text_value.0"])
    #expect(decoding.step.outputs.map(\.name) == ["logits", "text_key.0", "text_value.0"])
    #expect(decoding.step.description.contains("mask=caption, memories=2"))
  }

  @Test(arguments: ["tiny/classification", "tiny/features", "tiny/heads/vqa", "tiny/heads/pretraining"])
  func otherModelsAreRefused(model: String) throws {
    let graph = try Fixtures.graph(model)
    #expect(CaptionDecoding.capacity(of: graph) == nil)
    let error = #expect(throws: GraphError.self) { _ = try CaptionGenerator(graph) }
    #expect(error?.code == .unsupported)
  }

  @Test func optionsThatDoNotFitAreListedTogether() throws {
    var options = Self.options(beams: 0, length: 12, penalty: -1, mask: 20)
    options.beginToken = -1
    let graph = try Fixtures.graph(Self.model)
    let error = #expect(throws: RuntimeError.self) { _ = try CaptionGenerator(graph, options: options) }
    let found = try #require(error?.diagnosis.found)
    for part in ["0 beams", "a length of 12, expected 3 to 11", "penalty of -1.0", "mask token 20", "begin token -1"] {
      #expect(found.contains(part), "\(found)")
    }
    #expect(error?.code == .configuration)
    #expect(throws: RuntimeError.self) { _ = try CaptionGenerator(graph) }
  }
}

/// An engine with made-up logits, for what models do not show.
private struct Scripted: DecodingEngine {
  /// The logits of every step and beam.
  var row: [Float]
  var beams: Int
  private(set) var steps = 0

  init(_ row: [Float], beams: Int) { (self.row, self.beams) = (row, beams) }

  private func outputs(_ rows: Int, _ names: [CaptionDecoding.State]) -> [(name: String, value: TensorValue)] {
    [("logits", TensorValue([rows, row.count], (0..<rows).flatMap { _ in row }))]
      + names.map { ($0.name(0), TensorValue([rows, 2, 8], [Float](repeating: 0, count: rows * 16))) }
  }
  mutating func open(_ inputs: [String: TensorValue]) -> [(name: String, value: TensorValue)] {
    outputs(inputs["image"]?.shape[0] ?? 0, CaptionDecoding.State.allCases)
  }
  mutating func step(_ inputs: [String: TensorValue]) -> [(name: String, value: TensorValue)] {
    steps += 1
    return outputs(inputs["text"]?.shape[0] ?? 0, [.textKey, .textValue])
  }
}

@Suite struct BeamSearchTests {
  private func search(_ row: [Float], beams: Int = 3, length: Int = 6, penalty: Double = 0.6) throws -> (
    Captions, steps: Int
  ) {
    var options = BeamSearchOptions()
    (options.beams, options.maximumLength, options.lengthPenalty, options.maskToken) = (beams, length, penalty, 19)
    let generator = try CaptionGenerator(try Fixtures.graph("tiny/heads/captioning"), options: options)
    var engine = Scripted(row, beams: beams)
    let image = TensorValue([2, 3, 8, 8], [Float](repeating: 0, count: 2 * 3 * 64))
    return (try generator.generate(image, with: &engine), engine.steps)
  }

  /// Equal continuations stand in the order of their beams and tokens.
  @Test func tiesGoToTheFirstBeamAndTheSmallestToken() throws {
    let (captions, _) = try search([Float](repeating: 0, count: 20), penalty: 0)
    // Every word costs the same, so the shortest caption is best, and no later one beats it.
    #expect(captions.tokens.integers == [0, 2, 1, 1, 1, 1, 0, 2, 1, 1, 1, 1])
    var row = [Float](repeating: 0, count: 20)
    row[2] = -50
    let (long, _) = try search(row, length: 5)
    #expect(long.tokens.integers == [0, 0, 0, 2, 1, 0, 0, 0, 2, 1])
  }

  /// A caption that no beam can beat ends the search.
  @Test func theSearchEndsEarly() throws {
    var row = [Float](repeating: -20, count: 20)
    row[2] = 20
    let (captions, steps) = try search(row)
    #expect(steps == 1 && captions.tokens.integers?.prefix(3) == [0, 2, 1])
    #expect(captions.scores.floats.allSatisfy { abs($0) < 1e-6 })
  }

  /// ln of 20 equal chances over 2 tokens to the power of the penalty; the search's own logarithm is the library's.
  @Test func scoresAreLogProbabilitiesOverLengths() throws {
    var row = (0..<20).map { Float($0) / 7 }
    row[2] = 9
    let (captions, _) = try search(row, length: 3, penalty: 0.6)
    let sum = row.reduce(0.0) { $0 + exp(Double($1)) }
    #expect(abs(Double(captions.scores.floats[0]) - (9 - log(sum)) / pow(2, 0.6)) < 1e-6)
  }

  /// Whatever a broken model gives, the search ends.
  @Test(arguments: [Float.nan, .infinity, -.infinity, 3e38, -3e38])
  func brokenLogitsEndToo(value: Float) throws {
    for place in [0, 2, 19] {
      var row = [Float](repeating: 0, count: 20)
      row[place] = value
      #expect(try search(row).0.tokens.shape == [2, 6])
    }
    #expect(try search([Float](repeating: value, count: 20)).0.tokens.shape == [2, 6])
  }
}
