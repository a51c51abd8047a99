import MultiwayArtifact
import MultiwayCheckpoint
public import MultiwayCore
import MultiwayGGUF
public import MultiwayGraph
import MultiwayModels
import MultiwayONNX
public import MultiwayPasses
import MultiwayQuantization

/// Told how many bytes or constants of how many are written.
public typealias Progress = (_ done: Int, _ total: Int) -> Void

/// What a conversion did.
public struct ConversionReport: Sendable {
  /// The output.
  public var output: String
  /// The sizes of both files in bytes.
  public var inputBytes: Int
  /// The size of the output in bytes.
  public var outputBytes: Int
  /// The number of parameters of the input.
  public var parametersBefore: Int
  /// The number of parameters that were written.
  public var parametersAfter: Int
  /// What the passes did.
  public var passes: [PassPipeline.Report] = []
  /// What else a reader should know.
  public var notes: [String] = []
}

/// The main job as calls: every verb that writes a model is one of these.
public enum Conversions {
  /// `quantize`: runs a recipe's passes and writes an artifact.
  /// - Parameter calibration: examples that the model runs on first, where the recipe wants to know its activations; without them they are
  ///   estimated from the weights.
  public static func quantize(
    _ input: LoadedModel, recipe: Recipe, calibration: Calibration? = nil, to path: String, overwrite: Bool,
    progress: Progress? = nil
  ) throws -> ConversionReport {
    guard try OutputKind(path: path) == .gguf else {
      throw ConversionError(
        .usage, "a quantized model is an artifact, or a folder with compressed tensors",
        expected: "an output that ends in .gguf or in /", file: path)
    }
    var graph = input.graph
    var recipe = recipe
    var statistics: ActivationStatistics?
    if recipe.wantsCalibration {
      statistics = try calibration?.statistics(of: graph) ?? .estimated(for: graph)
      recipe.calibration = calibration?.description ?? "none: activations estimated from the weights"
    }
    let passes = try run(recipe.pipeline(statistics: statistics), on: &graph, of: input)
    var report = try write(graph, of: input, recipe: recipe, to: path, overwrite: overwrite, progress: progress)
    report.passes = passes
    return report
  }

  /// `convert`: writes the same model in another container or dtype.
  ///
  /// To safetensors and PyTorch files every tensor of the state dict goes, whatever it is for. To GGUF goes a runnable artifact where the
  /// architecture is known and the plain tensors where it is not. To ONNX goes the graph.
  /// - Parameters:
  ///   - layout: the key layout of a state dict: `unilm`, `timm` or `huggingface`; nil keeps the file's own keys. With a layout, or where
  ///     the options ask for another image size, the parameters of the known architecture are written.
  ///   - onnx: what is asked of an ONNX model.
  ///   - shardSize: how many bytes of tensors a file of a folder may have; nil for one file.
  public static func convert(
    _ file: ModelFile, options: InputOptions, layout: String? = nil, dtype: DType?, onnx: ONNXOptions = ONNXOptions(),
    shardSize: Int? = nil, to path: String, overwrite: Bool, progress: Progress? = nil
  ) throws -> ConversionReport {
    if shardSize != nil, try OutputKind(path: path) != .folder {
      throw ConversionError(
        .usage, "shards and their index lie in a folder", expected: "an output that ends in /", file: path)
    }
    if !onnx.isEmpty, try OutputKind(path: path) != .onnx {
      throw ConversionError(
        .usage, "opset, int8 form and calibration are matters of ONNX models", expected: "an output that ends in .onnx",
        file: path)
    }
    if try OutputKind(path: path) == .folder {
      return try convertToFolder(
        file, options: options, layout: layout, dtype: dtype, shardSize: shardSize, to: path, overwrite: overwrite,
        progress: progress)
    }
    if layout != nil || options.imageSize != nil, try OutputKind(path: path).holdsStateDict || layout != nil {
      return try convertLayout(
        file, options: options, layout: layout, dtype: dtype, to: path, overwrite: overwrite, progress: progress)
    }
    switch (file, try OutputKind(path: path)) {
    case (_, .onnx):
      return try convertToONNX(
        try LoadedModel(file, options: options), dtype: dtype, options: onnx, to: path, overwrite: overwrite,
        progress: progress)
    case (.artifact, .gguf):
      return try convertGraph(try LoadedModel(file), dtype: dtype, to: path, overwrite: overwrite, progress: progress)
    case (.checkpoint(let checkpoint), .gguf):
      let stateDict = try checkpoint.stateDict(named: options.stateDict)
      guard Architectures.recognize(stateDict.tensors) != nil else {
        return try convertTensors(
          stateDict, of: file, dtype: dtype, to: path, overwrite: overwrite, progress: progress)
      }
      let model = try LoadedModel(file, options: options)
      return try convertGraph(model, dtype: dtype, to: path, overwrite: overwrite, progress: progress)
    case (.checkpoint(let checkpoint), _):
      let stateDict = try checkpoint.stateDict(named: options.stateDict)
      return try convertTensors(
        stateDict, of: file, dtype: dtype, to: path, overwrite: overwrite, progress: progress)
    case (.artifact(let artifact), _):
      return try convertTensors(
        StateDict(name: "", tensors: artifact.storedTensors), of: file, dtype: dtype, to: path, overwrite: overwrite,
        progress: progress)
    }
  }

  /// `prune`: keeps what a modality's tokens reach, or, with no modality, what the task reaches.
  public static func prune(
    _ input: LoadedModel, keep: Modality?, to path: String, overwrite: Bool, progress: Progress? = nil
  ) throws -> ConversionReport {
    var graph = input.graph
    let pass: any Pass = keep.map { KeepModality($0) } ?? RemoveUnreached()
    let passes = try run(PassPipeline([pass]), on: &graph, of: input)
    let kept = try keep ?? reachedModality(graph, path: input.file.path)
    var report: ConversionReport
    switch try OutputKind(path: path) {
    case .gguf:
      report = try write(graph, of: input, recipe: try input.recipe, to: path, overwrite: overwrite, progress: progress)
    case .safetensors, .pth, .folder:
      report = try writeKept(kept, of: input, to: path, overwrite: overwrite, progress: progress)
    case .onnx:
      report = try writeONNX(
        graph, of: input, ONNXForm(opset: .standard, recipe: try input.recipe), to: path, overwrite: overwrite,
        progress: progress)
    }
    report.passes = passes
    return report
  }
}

extension Conversions {
  /// Runs passes; an error names the file that the graph came from.
  static func run(
    _ pipeline: PassPipeline, on graph: inout Graph, of input: LoadedModel
  ) throws(PassError) -> [PassPipeline.Report] {
    do {
      return try pipeline.run(on: &graph)
    } catch {
      var named = error
      named.diagnosis.file = error.diagnosis.file ?? input.file.path
      throw named
    }
  }

  private static func write(
    _ graph: Graph, of input: LoadedModel, recipe: Recipe, to path: String, overwrite: Bool, progress: Progress?
  ) throws -> ConversionReport {
    try ArtifactWriter.write(
      graph, metadata: input.metadata(of: graph, recipe: recipe), to: path, overwrite: overwrite,
      inputs: input.file.identities,
      progress: progress)
    return ConversionReport(
      output: path, inputBytes: input.file.byteCount, outputBytes: try MappedFile(path: path).byteCount,
      parametersBefore: input.parameterCount, parametersAfter: graph.parameterCount,
      notes: input.assumptions + input.notes)
  }

  private static func convertGraph(
    _ input: LoadedModel, dtype: DType?, to path: String, overwrite: Bool, progress: Progress?
  ) throws -> ConversionReport {
    var recipe = try input.recipe
    var graph = input.graph
    var passes: [any Pass] = [RemoveUnreached()]
    if let dtype {
      passes.append(CastStorage(dtype))
      if recipe.int8Roles.isEmpty, let plain = Recipes.all.first(where: { $0.name == dtype.shortName }) {
        recipe = plain
      }
    }
    let reports = try run(PassPipeline(passes), on: &graph, of: input)
    var report = try write(graph, of: input, recipe: recipe, to: path, overwrite: overwrite, progress: progress)
    report.passes = reports
    return report
  }

  private static func convertTensors(
    _ stateDict: StateDict, of file: ModelFile, dtype: DType?, to path: String, overwrite: Bool, progress: Progress?
  ) throws -> ConversionReport {
    let tensors = stateDict.tensors
    let output = StateDictOutput(path: path, overwrite: overwrite, progress: progress, nesting: stateDict.name)
    let byteCount = try output.write(
      tensors.cast(to: dtype), of: file,
      provenance: file.provenance(verb: "convert", ["dtype": dtype?.shortName]))
    let count = tensors.reduce(0) { $0 + $1.shape.elementCount }
    return ConversionReport(
      output: path, inputBytes: file.byteCount, outputBytes: byteCount,
      parametersBefore: count, parametersAfter: count, notes: file.notes)
  }

  private static func reachedModality(_ graph: Graph, path: String) throws(ConversionError) -> Modality {
    let modalities = Set(graph.constants.map(\.modality)).subtracting([.shared])
    guard modalities.count == 1, let modality = modalities.first else {
      throw ConversionError(
        .usage, "the task of this model reaches both vision and text",
        remedy: "say which experts to keep: --keep vision or --keep text", file: path)
    }
    return modality
  }

  /// Writes the checkpoint's own tensors without those of the other modality, names and bytes kept.
  private static func writeKept(
    _ kept: Modality, of input: LoadedModel, to path: String, overwrite: Bool, progress: Progress?
  ) throws -> ConversionReport {
    guard let model = input.model else {
      throw ConversionError(
        .usage, "an artifact no longer has the checkpoint's tensors", expected: "an output that ends in .gguf",
        file: path)
    }
    guard kept == .vision else {
      throw ConversionError(
        .usage, "a state dict of text experts alone has no layout that a loader knows",
        expected: "an output that ends in .gguf", file: path)
    }
    let parameters = model.parameters.stored.filter { $0.modality != .text }
    let provenance = input.file.provenance(verb: "prune", ["keep": kept.rawValue])
    let output = StateDictOutput(
      path: path, overwrite: overwrite, progress: progress, nesting: input.file.stateDictName(input.stateDict))
    let byteCount =
      try OutputKind(path: path) == .folder
      ? FolderOutput(path: path, overwrite: overwrite, progress: progress).write(
        parameters.map(\.tensor), of: input.file, model: input, layout: nil, provenance: provenance
      ).byteCount
      : output.write(parameters.map(\.tensor), of: input.file, provenance: provenance)
    return ConversionReport(
      output: path, inputBytes: input.file.byteCount, outputBytes: byteCount, parametersBefore: input.parameterCount,
      parametersAfter: parameters.reduce(0) { $0 + $1.tensor.shape.elementCount }, notes: input.assumptions)
  }
}

extension ModelFile {
  /// What a checkpoint's reader had to say.
  var notes: [String] {
    if case .checkpoint(let checkpoint) = self { return checkpoint.notes }
    return []
  }

  /// The plain facts of a checkpoint that go with its tensors into another file's metadata, as strings.
  var carriedMetadata: [String: String] {
    var metadata: [String: String] = [:]
    guard case .checkpoint(let checkpoint) = self else { return metadata }
    for (key, value) in checkpoint.metadata.members where !ModelFile.isOwn(key) {
      metadata[key] = value.string ?? value.text()
    }
    // The heads are the one size that no shape tells: they must survive the way to safetensors.
    for key in ["num_attention_heads", "encoder_attention_heads", "num_heads", "heads"] {
      if let heads = checkpoint.metadata["args"]?[key]?.integer { metadata["num_attention_heads"] = String(heads) }
    }
    return metadata
  }
}

extension Artifact {
  /// The constants as they are stored.
  var storedTensors: [StoredTensor] {
    graph.constants.compactMap { constant in
      guard case .stored(var tensor) = constant.data else { return nil }
      tensor.name = constant.name
      return tensor
    }
  }
}
