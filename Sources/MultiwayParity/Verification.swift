public import MultiwayCore
public import MultiwayGraph
import MultiwayPasses
import MultiwayReference
public import MultiwayRuntime

/// What can go wrong in a comparison.
public enum ParityErrorCode: FailureCode {
  /// The two models do not compute the same things.
  case incomparable
  /// The inputs that would have to be made are too large.
  case tooLarge

  /// The exit code class.
  public var category: FailureCategory { .data }
}

/// An error about a comparison.
public typealias ParityError = Failure<ParityErrorCode>

/// Compares a candidate, run by the runtime, with a reference, run by the fp32 interpreter, which is another implementation on
/// another library.
public struct Verification: Sendable {
  /// The reference.
  public var reference: Graph
  /// The candidate.
  public var candidate: Graph
  /// What the candidate's recipe promises.
  public var gates: Gates
  /// The threads of both; nil for one a core.
  public var threads: Int?
  /// Compare every linear layer too: in the interpreter, which computes in fp32.
  public var comparesLayers: Bool
  /// What the candidate is computed in.
  public var compute: ComputeType

  /// How many examples go through at once.
  private static let chunk = 8
  /// Layers are compared on no more examples than these: their statistics need few.
  private static let layerExamples = 8

  /// Makes a comparison.
  public init(
    reference: Graph, candidate: Graph, gates: Gates, threads: Int? = nil, comparesLayers: Bool = false,
    compute: ComputeType = .f32
  ) {
    self.reference = reference
    self.candidate = candidate
    self.gates = gates
    self.threads = threads
    self.comparesLayers = comparesLayers
    self.compute = compute
  }

  /// Runs both and compares.
  /// - Parameters:
  ///   - inputs: the inputs of both; those that a model does not have are not given to it.
  ///   - labels: the right class of every example, for the accuracy of both.
  ///   - progress: called with the examples done and to do.
  public func run(
    _ inputs: [String: TensorValue], labels: [Int]? = nil, isSynthetic: Bool,
    progress: ((Int, Int) -> Void)? = nil
  ) throws -> ParityReport {
    let names = try sharedOutputs()
    let session = try Session(candidate, threads: threads, compute: compute)
    let interpreter = Reference(reference, threads: threads)
    let examples = ExampleBatches(inputs, for: candidate)
    var accumulators = [String: ComparisonAccumulator]()
    var accuracy = labels.map { AccuracyCounter(labels: $0) }
    for range in examples.ranges(of: Verification.chunk) {
      let part = examples.part(range)
      let expected = try interpreter.run(given(part, to: reference))
      let found = try session.run(given(part, to: candidate))
      for name in names {
        guard let left = expected.first(where: { $0.name == name })?.value,
          let right = found.first(where: { $0.name == name })?.value
        else { continue }
        guard left.shape == right.shape else {
          throw ParityError(
            .incomparable, "output '\(name)' is \(left.shape) in the reference and \(right.shape) in the candidate",
            expected: "two models of the same task")
        }
        let isClassification = name == "logits"
        accumulators[name, default: ComparisonAccumulator()].add(
          reference: left, candidate: right, isClassification: isClassification)
        if isClassification { accuracy?.add(reference: left, candidate: right) }
      }
      progress?(range.upperBound, examples.count)
    }
    var report = ParityReport(
      outputs: names.compactMap { name in accumulators[name]?.result(name: name) }, gates: gates,
      exampleCount: examples.count, isSynthetic: isSynthetic, accuracy: accuracy?.result, isa: session.instructionSet,
      compute: compute)
    if comparesLayers {
      let part = examples.part(0..<min(examples.count, Verification.layerExamples))
      report.layers = try LayerVerification(reference: reference, candidate: candidate, threads: threads).run(
        reference: given(part, to: reference), candidate: given(part, to: candidate))
    }
    return report
  }

  private func sharedOutputs() throws(ParityError) -> [String] {
    let names = candidate.outputs.map(\.name).filter { name in reference.outputs.contains { $0.name == name } }
    guard !names.isEmpty else {
      throw ParityError(
        .incomparable,
        "the reference gives \(reference.outputs.map(\.name)) and the candidate \(candidate.outputs.map(\.name))",
        expected: "two models of the same task")
    }
    return names
  }

  /// The reference for a candidate that lost a modality: what the reference computes for inputs of the other one alone, which is exact, as
  /// tokens of the two meet only in attention.
  public static func specialised(_ reference: Graph, like candidate: Graph) throws -> Graph {
    let names = Set(candidate.inputs.map { candidate[$0].name })
    let missing = reference.inputs.map { reference[$0].name }.filter { !names.contains($0) }
    guard !missing.isEmpty, !names.isEmpty else { return reference }
    var graph = reference
    _ = try PassPipeline([KeepModality(names.contains("image") ? .vision : .text)]).run(on: &graph)
    return graph
  }

  private func given(_ inputs: [String: TensorValue], to graph: Graph) -> [String: TensorValue] {
    let names = graph.inputs.map { graph[$0].name }
    return inputs.filter { names.contains($0.key) }
  }
}

/// Counts right answers of both models.
private struct AccuracyCounter {
  let labels: [Int]
  private var seen = 0
  private var reference = 0
  private var candidate = 0

  init(labels: [Int]) { self.labels = labels }

  mutating func add(reference left: TensorValue, candidate right: TensorValue) {
    for (expected, found) in zip(TopOne.answers(left), TopOne.answers(right)) where seen < labels.count {
      if expected == labels[seen] { reference += 1 }
      if found == labels[seen] { candidate += 1 }
      seen += 1
    }
  }

  var result: Accuracy? {
    guard seen > 0 else { return nil }
    return Accuracy(
      reference: Double(reference) / Double(seen), candidate: Double(candidate) / Double(seen), examples: seen)
  }
}
