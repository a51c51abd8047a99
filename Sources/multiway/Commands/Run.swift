import ArgumentParser
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayParity
import MultiwayRuntime

/// `multiway run MODEL`.
struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs a model on inputs from a file.",
    discussion: """
      Inputs and outputs are safetensors files. Inputs: image [N,3,H,W] f32, already normalised; text [N,T] token ids; padding_mask [N,T], \
      1 where padded, may be left out. Outputs: logits, features, image_embedding, text_embedding. Without --outputs the answers are printed.

      A captioning model that gets images without a text writes captions by beam search. Outputs: tokens [N,max-length] i64, filled up \
      with 1; scores [N].
      """)

  @Argument(help: "A checkpoint (runs in fp32) or an artifact.") var model: String
  @Option(help: "The inputs: a safetensors file.") var inputs: String
  @Option(help: "Where the outputs go: a safetensors file.") var outputs: String?
  @Option(help: "Run no more than this many examples at once.") var batch = 8
  @OptionGroup var captions: CaptionArguments
  @OptionGroup var compute: ComputeArguments
  @OptionGroup var threads: ThreadArguments
  @OptionGroup var input: InputArguments
  @OptionGroup var output: OutputArguments

  func validate() throws {
    if batch < 1 { throw ValidationError("--batch takes a number from 1 on.") }
  }

  func run() throws {
    if let outputs { try OutputFile.checkDestination(outputs, overwrite: output.force) }
    let loaded = try LoadedModel(path: model, options: input.options)
    for assumption in loaded.assumptions { Console.note("note: " + assumption) }
    let read = try TensorFiles.readInputs(inputs, for: loaded.graph)
    if let (generator, image) = try captions.generator(for: loaded.graph, inputs: read.tensors) {
      return try write(generator, image, identities: read.identities + loaded.file.identities)
    }
    let session = try Session(loaded.graph, threads: threads.threads, compute: compute.compute)
    let start = System.now
    let bar = ProgressBar("running")
    let results = try TensorFiles.naming(inputs) {
      try session.run(read.tensors, atMost: batch) { bar.update($0, $1) }
    }
    let seconds = System.now - start
    if let outputs {
      try TensorFiles.write(
        results, to: outputs, overwrite: output.force, inputs: read.identities + loaded.file.identities)
    }
    if output.json {
      Console.print(JSONValue.object(json(results, seconds: seconds, session: session)).text(indented: true))
    } else {
      show(results, labels: read.labels, seconds: seconds, session: session)
    }
  }

  /// Writes captions.
  private func write(_ generator: CaptionGenerator, _ image: TensorValue, identities: [FileIdentity]) throws {
    var engine = try SessionDecoding(generator.decoding, threads: threads.threads, compute: compute.compute)
    let start = System.now
    let bar = ProgressBar("captioning")
    let captions = try TensorFiles.naming(inputs) {
      try generator.generate(image, atMost: batch, with: &engine) { bar.update($0, $1) }
    }
    let seconds = System.now - start
    if let outputs {
      try TensorFiles.write(captions.outputs, to: outputs, overwrite: output.force, inputs: identities)
    }
    let rows = captions.rows(padding: generator.options.paddingToken)
    if output.json {
      let object: JSONObject = [
        "outputs": shapes(captions.outputs),
        "captions": .array(
          rows.enumerated().map { example, row in
            .object([
              "example": .integer(example), "tokens": .array(row.tokens.map { .integer($0) }),
              "score": .real(Double(row.score)),
            ])
          }),
        "seconds": .real(seconds), "isa": .string(engine.instructionSet), "threads": .integer(engine.threadCount),
      ]
      Console.print(JSONValue.object(object).text(indented: true))
      return
    }
    for (name, value) in captions.outputs {
      Console.print("\(name) \(value.shape)" + (outputs.map { " → \($0)" } ?? ""))
    }
    for (example, row) in rows.prefix(outputs == nil ? 10 : 0).enumerated() {
      Console.print("  example \(example): \(row.tokens.map(String.init).joined(separator: " "))   score \(row.score)")
    }
    Console.note("\(fixedSeconds(seconds)) on \(engine.instructionSet), \(engine.threadCount) threads")
  }

  private func shapes(_ results: [(name: String, value: TensorValue)]) -> JSONValue {
    .array(
      results.map { name, value in
        .object(["name": .string(name), "shape": .array(value.shape.dimensions.map { .integer($0) })])
      })
  }

  private func show(
    _ results: [(name: String, value: TensorValue)], labels: [Int]?, seconds: Double, session: Session
  ) {
    for (name, value) in results {
      Console.print("\(name) \(value.shape)" + (outputs.map { " → \($0)" } ?? ""))
    }
    if let logits = results.first(where: { $0.name == "logits" })?.value, outputs == nil {
      showAnswers(logits, labels: labels)
    }
    Console.note("\(fixedSeconds(seconds)) on \(session.instructionSet), \(session.threadCount) threads")
  }

  private func showAnswers(_ logits: TensorValue, labels: [Int]?) {
    let answers = Answers(logits)
    for row in answers.rows.prefix(10) {
      let classes = row.top.map { "\($0.index) (\(Percent($0.share)))" }.joined(separator: ", ")
      let label = labels.flatMap { row.example < $0.count ? "   label \($0[row.example])" : nil } ?? ""
      Console.print("  example \(row.example): class \(classes)\(label)")
    }
    if answers.rows.count > 10 { Console.print("  … \(answers.rows.count - 10) more; --outputs FILE keeps them all") }
    if let labels, labels.count == answers.rows.count {
      let right = answers.rows.filter { $0.top.first?.index == labels[$0.example] }.count
      Console.print("  accuracy \(Percent(Double(right) / Double(labels.count))) of \(labels.count) examples")
    }
  }

  private func json(
    _ results: [(name: String, value: TensorValue)], seconds: Double, session: Session
  ) -> JSONObject {
    var object: JSONObject = [
      "outputs": shapes(results), "seconds": .real(seconds), "isa": .string(session.instructionSet),
      "threads": .integer(session.threadCount),
    ]
    if let logits = results.first(where: { $0.name == "logits" })?.value {
      let answers = Answers(logits)
      object["answers"] = .array(
        answers.rows.map { row in
          .object([
            "example": .integer(row.example),
            "top": .array(
              row.top.map { .object(["class": .integer($0.index), answers.meaning: .real($0.share)]) }),
          ])
        })
    }
    return object
  }
}

/// The best classes of each example.
struct Answers {
  struct Row {
    var example: Int
    var top: [(index: Int, share: Double)]
  }

  let rows: [Row]
  /// What the share of a class is: its probability, or for logits of every position the share of positions whose answer it is.
  let meaning: String

  init(_ logits: TensorValue, count: Int = 3) {
    meaning = logits.shape.rank == 4 ? "share_of_positions" : "probability"
    rows = logits.shape.rank == 4 ? Answers.ofMaps(logits, count) : Answers.ofRows(logits, count)
  }

  private static func ofMaps(_ logits: TensorValue, _ count: Int) -> [Row] {
    (0..<logits.shape[0]).map { example in
      var counts = [Int](repeating: 0, count: logits.shape[1])
      let answers = TopOne.answers(logits.rows(example..<example + 1))
      for answer in answers { counts[answer] += 1 }
      let order = counts.indices.filter { counts[$0] > 0 }.sorted { (counts[$1], $0) < (counts[$0], $1) }
      return Row(
        example: example, top: order.prefix(count).map { ($0, Double(counts[$0]) / Double(answers.count)) })
    }
  }

  private static func ofRows(_ logits: TensorValue, _ count: Int) -> [Row] {
    let width = logits.shape.last
    let values = logits.floats
    return (0..<(width == 0 ? 0 : values.count / width)).map { example in
      let row = values[example * width..<(example + 1) * width].map(Double.init)
      let order = row.indices.sorted { (row[$1], $0) < (row[$0], $1) }.prefix(count)
      let largest = row.max() ?? 0
      let total = row.reduce(0) { $0 + Exponential.of($1 - largest) }
      return Row(example: example, top: order.map { ($0, Exponential.of(row[$0] - largest) / total) })
    }
  }
}
