import MultiwayArtifact
import MultiwayCore
import MultiwayGGUF
import MultiwayGraph
import MultiwayONNX
import MultiwayParity
import MultiwayPasses
import MultiwayQuantization

/// How the int8 layers of an ONNX model are written.
public enum Int8Form: String, CaseIterable, Sendable {
  /// Activations get their range when the model runs: DynamicQuantizeLinear and MatMulInteger.
  case dynamic
  /// Activations have ranges that a calibration found: QuantizeLinear and DequantizeLinear around a MatMul.
  case qdq
}

/// What a user can say about an ONNX model beyond its path.
public struct ONNXOptions: Sendable {
  /// The version of the operators; nil for `ONNXOpset.standard`.
  public var opset: Int?
  /// How int8 layers are written; a floating-point model is quantized first, as the recipe `int8` does. Nil keeps what the model is.
  public var int8: Int8Form?
  /// The examples from which `qdq` takes the ranges of activations, synthetic ones without them; and on which a floating-point model is
  /// balanced before it is quantized.
  public var calibration: Calibration?

  /// Makes options.
  public init(opset: Int? = nil, int8: Int8Form? = nil, calibration: Calibration? = nil) {
    self.opset = opset
    self.int8 = int8
    self.calibration = calibration
  }

  /// True where nothing is asked for that concerns ONNX alone.
  var isEmpty: Bool { opset == nil && int8 == nil && calibration == nil }
}

extension Conversions {
  /// Writes what a model's task reaches as ONNX.
  static func convertToONNX(
    _ input: LoadedModel, dtype: DType?, options: ONNXOptions, to path: String, overwrite: Bool, progress: Progress?
  ) throws -> ConversionReport {
    let opset = try options.opset.map { version throws(ONNXError) in try ONNXOpset(version) } ?? .standard
    guard options.calibration == nil || options.int8 == .qdq || options.int8 == .dynamic && !input.graph.hasInt8Layers
    else {
      throw ConversionError(
        .usage, "a calibration that nothing asks for", expected: "--int8 qdq, or --int8 and a floating-point model",
        file: path)
    }
    // A destination that cannot be written to is told before the model runs.
    try OutputFile.checkDestination(path, overwrite: overwrite, inputs: input.file.identities)
    var graph = input.graph
    var recipe = try input.recipe
    let reports = try prepare(&graph, of: input, &recipe, dtype: dtype, options)
    var form = ONNXForm(opset: opset, recipe: recipe)
    if options.int8 == .qdq {
      let calibration = try options.calibration ?? .synthetic(for: graph)
      form.quantization = .static(try calibration.steps(of: graph))
      form.notes.append("the ranges of activations come from \(calibration.description)")
    }
    form.recorded = [
      "opset": String(form.opset.version), "int8": options.int8?.rawValue, "dtype": dtype?.shortName,
    ]
    var report = try writeONNX(graph, of: input, form, to: path, overwrite: overwrite, progress: progress)
    report.passes = reports
    return report
  }

  /// Runs the passes that make of a model's graph what is written, and sets the recipe that it then follows.
  private static func prepare(
    _ graph: inout Graph, of input: LoadedModel, _ recipe: inout Recipe, dtype: DType?, _ options: ONNXOptions
  ) throws -> [PassPipeline.Report] {
    if options.int8 != nil, !graph.hasInt8Layers {
      recipe = Recipes.int8
      recipe.matrixStorage = dtype
      recipe.calibration = options.calibration?.description ?? "none: activations estimated from the weights"
      let statistics = try options.calibration?.statistics(of: graph) ?? .estimated(for: graph)
      return try run(recipe.pipeline(statistics: statistics), on: &graph, of: input)
    }
    var passes: [any Pass] = [RemoveUnreached()]
    if let dtype {
      passes.append(CastStorage(dtype))
      if recipe.int8Roles.isEmpty, let plain = Recipes.all.first(where: { $0.name == dtype.shortName }) {
        recipe = plain
      }
    }
    return try run(PassPipeline(passes), on: &graph, of: input)
  }

  /// Writes a graph of a model as ONNX.
  static func writeONNX(
    _ graph: Graph, of input: LoadedModel, _ form: ONNXForm, to path: String, overwrite: Bool, progress: Progress?
  ) throws -> ConversionReport {
    // Each group of inputs would be a product of its own: time for a precision that one scale for all activations hides.
    let graph = graph.withoutGroups()
    var notes = input.assumptions + input.notes + form.notes
    if graph.hasInt8Layers, case .dynamic = form.quantization {
      notes.append(
        "int8 layers became DynamicQuantizeLinear and MatMulInteger, which quantize activations per tensor, not per token: outputs differ"
      )
    }
    let output = try ONNXWriter.write(
      graph, metadata: try input.onnxMetadata(of: graph, form), opset: form.opset, quantization: form.quantization,
      to: path, overwrite: overwrite, inputs: input.file.identities, progress: progress)
    let left = try ONNXForm.unusedData(of: path, besides: output.dataPath)
    if !left.isEmpty {
      notes.append("weights of models that were replaced are still there: \(left.joined(separator: ", "))")
    }
    return ConversionReport(
      output: path, inputBytes: input.file.byteCount, outputBytes: output.byteCount,
      parametersBefore: input.parameterCount, parametersAfter: graph.parameterCount, notes: notes)
  }
}

/// An ONNX model as it shall be.
struct ONNXForm {
  var opset: ONNXOpset
  var quantization = ONNXQuantization.dynamic
  /// The recipe that its weights follow.
  var recipe: Recipe
  /// What the verb was told.
  var recorded: KeyValuePairs<String, String?> = [:]
  var notes: [String] = []

  init(opset: ONNXOpset, recipe: Recipe) {
    self.opset = opset
    self.recipe = recipe
  }

  /// The names of files of weights that were written for a model of the path and are not those of the last one.
  static func unusedData(of path: String, besides used: String?) throws -> [String] {
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    let folder = parts.count < 2 ? "." : parts.dropLast().joined(separator: "/") + "/"
    let name = (parts.last.map(String.init) ?? path) + "."
    let used = used?.split(separator: "/").last.map(String.init)
    return try Folder(path: folder).names.filter { other in
      guard other != used, other.hasPrefix(name), other.hasSuffix(ONNXWriter.dataSuffix) else { return false }
      let digest = other.dropFirst(name.count).dropLast(ONNXWriter.dataSuffix.count)
      return digest.utf8.count == 16 && digest.allSatisfy(\.isHexDigit)
    }
  }
}

extension Graph {
  /// True where a layer is int8.
  var hasInt8Layers: Bool {
    nodes.contains { node in
      if case .quantizedLinear = node.op { return true }
      return false
    }
  }
}

extension Calibration {
  /// Inputs from a fixed seed, for when nobody gives real ones.
  static func synthetic(for graph: Graph) throws -> Calibration {
    Calibration(
      inputs: try SyntheticInputs.make(for: graph, examples: 8),
      description: "synthetic inputs: give examples of your own by --calibration")
  }

  /// Runs a model, its int8 layers in floating point, and gives 8-bit steps for the values that those layers read.
  func steps(of graph: Graph) throws -> [String: ActivationRanges.Step] {
    var names: Set<String> = []
    for node in graph.nodes { if case .quantizedLinear = node.op { names.insert(graph[node.inputs[0]].name) } }
    let ranges = try ranges(of: graph.dequantized(), names)
    var steps: [String: ActivationRanges.Step] = [:]
    for name in names { steps[name] = ranges.step(of: name, isSymmetric: true) }
    return steps
  }
}
