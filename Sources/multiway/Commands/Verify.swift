import ArgumentParser
import MultiwayArtifact
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayParity
import MultiwayRuntime

/// `multiway verify REFERENCE CANDIDATE`.
struct Verify: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Proves that a model still computes what its original computes.",
    discussion: """
      The reference runs in an fp32 interpreter that shares no code with the runtime; the candidate runs in the runtime. Both get the \
      same inputs, and the outputs are held to the gates of the candidate's recipe. An inputs file may hold `labels` [N] for the accuracy of \
      both. Without --inputs seeded ones are made, and the result says so. Exit code 1 where a gate is missed.
      """)

  @Argument(help: "The original: a checkpoint or an artifact.") var reference: String
  @Argument(help: "The model to prove.") var candidate: String
  @Option(help: "The inputs: a safetensors file.") var inputs: String?
  @Flag(help: "Compare every linear layer, on the reference's own activations and on the candidate's.") var layers =
    false
  @Flag(help: "Name the first layer that adds more error than the recipe allows, and why.") var bisect = false
  @Option(help: "Write the report as a page.") var report: String?
  @Option(name: .customLong("json"), help: "Write the report as JSON; - prints it instead of the table.")
  var jsonPath: String?
  @Flag(help: "Keep the result in the candidate, which must be an artifact.") var certify = false
  @Option(help: "How many examples to make where no inputs are given.") var examples = 8
  @Option(help: "The seed of inputs that are made.") var seed: UInt64 = 0
  @Flag(help: "Replace files that exist.") var force = false
  @OptionGroup var compute: ComputeArguments
  @OptionGroup var threads: ThreadArguments
  @OptionGroup var input: InputArguments

  func validate() throws {
    if examples < 1 || examples > 4096 { throw ValidationError("--examples takes a number from 1 to 4096.") }
    if compute.compute != .f32, layers || bisect || certify {
      throw ValidationError(
        "--compute \(compute.compute.rawValue) goes with none of --layers, --bisect and --certify: layers are compared in fp32, and a certificate says what holds on every machine."
      )
    }
  }

  func run() throws {
    for path in [report, jsonPath == "-" ? nil : jsonPath].compactMap({ $0 }) {
      try OutputFile.checkDestination(path, overwrite: force)
    }
    let left = try LoadedModel(path: reference, options: input.options)
    let right = try LoadedModel(path: candidate, options: input.options)
    for assumption in Set(left.assumptions + right.assumptions).sorted() { Console.note("note: " + assumption) }
    let recipe = try right.recipe
    let (tensors, labels, isSynthetic) = try readInputs(right.graph)
    let verification = Verification(
      reference: try Verification.specialised(left.graph, like: right.graph), candidate: right.graph,
      gates: recipe.gates(computedIn: compute.compute), threads: threads.threads, comparesLayers: layers || bisect,
      compute: compute.compute)
    let bar = ProgressBar("verifying")
    let result = try TensorFiles.naming(inputs) {
      try verification.run(tensors, labels: labels, isSynthetic: isSynthetic) { bar.update($0, $1) }
    }
    let page = VerificationPage(
      report: result, reference: reference, candidate: candidate, recipe: recipe.name, showsLayers: layers,
      showsSuspect: bisect)
    try deliver(page, right)
    if !result.hasPassed { throw ExitCode(FailureCategory.parity.rawValue) }
  }

  private func readInputs(_ graph: Graph) throws -> ([String: TensorValue], [Int]?, Bool) {
    guard let inputs else { return (try SyntheticInputs.make(for: graph, examples: examples, seed: seed), nil, true) }
    let read = try TensorFiles.readInputs(inputs, for: graph)
    return (read.tensors, read.labels, false)
  }

  private func deliver(_ page: VerificationPage, _ right: LoadedModel) throws {
    if jsonPath == "-" {
      Console.print(page.json.text(indented: true))
    } else {
      Console.print(page.text)
    }
    if let jsonPath, jsonPath != "-" { try write(page.json.text(indented: true) + "\n", to: jsonPath) }
    if let report { try write(page.html, to: report) }
    guard certify else { return }
    guard case .artifact(let artifact) = right.file, artifact.holdsCertificates else {
      throw ConversionError(
        .usage, "only an artifact holds a certificate", expected: "a candidate that is an artifact", file: candidate)
    }
    guard artifact.packing == nil else {
      throw ConversionError(
        .usage, "a certificate cannot be written into a compressed file", expected: "a candidate that is not packed",
        remedy: "unpack it with `zstd -d`, certify it, and compress it again", file: candidate)
    }
    try ArtifactWriter.certify(
      try MappedFile(path: candidate), with: page.json, to: candidate, overwrite: true)
    Console.note("the certificate is in \(candidate)")
  }

  private func write(_ text: String, to path: String) throws {
    var file = try OutputFile(path: path, overwrite: force)
    try file.write(Array(text.utf8))
    try file.commit()
  }
}
