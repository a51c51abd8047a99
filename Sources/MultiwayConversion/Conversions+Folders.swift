import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph
import MultiwayModels

extension Conversions {
  /// Writes a model's folder: safetensors, whole or in shards, with the JSON files by which loaders find the model.
  ///
  /// Without a layout the file's own keys stay; what has no known architecture, or does not fit it, gets no JSON files.
  static func convertToFolder(
    _ file: ModelFile, options: InputOptions, layout: String?, dtype: DType?, shardSize: Int?, to path: String,
    overwrite: Bool, progress: Progress?
  ) throws -> ConversionReport {
    guard case .checkpoint(let checkpoint) = file else {
      throw ConversionError(
        .usage, "an artifact no longer has the checkpoint's tensors",
        remedy: "convert the checkpoint that it came from",
        file: file.path)
    }
    let stateDict = try checkpoint.stateDict(named: options.stateDict)
    let isModelAsked = layout != nil || options.imageSize != nil
    let (model, problem) = try model(of: file, options: options, isRequired: isModelAsked)
    var notes = model.map { $0.assumptions + $0.notes } ?? file.notes
    if let problem { notes.append("no config.json: " + problem) }
    var tensors = stateDict.tensors
    if isModelAsked, let loaded = model, let bound = loaded.model {
      let rendered = try bound.rendered(layout: layout ?? bound.layout, file: file.path)
      tensors = rendered.tensors.map { StoredTensor(name: $0.key, computedFrom: $0.data) }
      notes += rendered.notes
    }
    tensors = tensors.cast(to: dtype)
    let output = FolderOutput(path: path, overwrite: overwrite, shardSize: shardSize, progress: progress)
    let (byteCount, configurationNotes) = try output.write(
      tensors, of: file, model: model, layout: layout,
      provenance: file.provenance(
        verb: "convert",
        ["layout": layout, "image_size": options.imageSize.map { String($0) }, "dtype": dtype?.shortName]))
    return ConversionReport(
      output: path, inputBytes: file.byteCount, outputBytes: byteCount,
      parametersBefore: model?.parameterCount ?? stateDict.tensors.elementCount, parametersAfter: tensors.elementCount,
      notes: notes + configurationNotes)
  }

  /// The model of a file; or, where it is not asked for, why there is none.
  private static func model(
    of file: ModelFile, options: InputOptions, isRequired: Bool
  ) throws -> (LoadedModel?, problem: String?) {
    do {
      return (try LoadedModel(file, options: options), nil)
    } catch let error as ModelError where !isRequired {
      return (nil, error.diagnosis.found.split(separator: "\n").first.map(String.init) ?? "")
    }
  }
}

/// The folder of a model that is to be written.
struct FolderOutput {
  /// The folder's path.
  var path: String
  /// Whether files in it may be replaced.
  var overwrite: Bool
  /// How many bytes of tensors a file may have; nil for one file.
  var shardSize: Int?
  /// Is told how many bytes of how many are written.
  var progress: Progress?

  /// Writes tensors that are in a layout, nil for the source's own, and gives the size in bytes and what the JSON files cannot say.
  func write(
    _ tensors: [StoredTensor], of file: ModelFile, model: LoadedModel?, layout: String?, provenance: Provenance,
    changing change: (inout JSONObject) -> Void = { _ in }
  ) throws -> (byteCount: Int, notes: [String]) {
    var companions: [(name: String, contents: JSONObject)] = []
    var notes: [String] = []
    if let bound = model?.model {
      var configuration = bound.configuration(
        layout: layout ?? bound.layout, dtype: tensors.commonDType, original: file.checkpointMetadata)
      change(&configuration.model)
      companions.append(("config.json", configuration.model))
      if let preprocessor = configuration.preprocessor { companions.append(("preprocessor_config.json", preprocessor)) }
      notes = configuration.notes
    }
    // The JSON files say what the header of a file alone has to.
    let carried = file.carriedMetadata.filter { !["config", "preprocessor_config"].contains($0.key) }
    let metadata = carried.merging(model?.recordedSizes ?? [:]) { $1 }.merging(["format": "pt"]) { $1 }
    let byteCount = try ModelFolderWriter.write(
      tensors, shardSize: shardSize, companions: companions, metadata: metadata, provenance: provenance, to: path,
      overwrite: overwrite, inputs: file.identities, progress: progress)
    return (byteCount, notes)
  }
}

extension ModelFile {
  /// What a checkpoint says beside its tensors; nothing for an artifact.
  var checkpointMetadata: JSONObject {
    if case .checkpoint(let checkpoint) = self { return checkpoint.metadata }
    return JSONObject()
  }
}

extension [StoredTensor] {
  /// The number of elements of all.
  var elementCount: Int { reduce(0) { $0 + $1.shape.elementCount } }

  /// The floating-point dtype that has the most elements; nil where there is none.
  var commonDType: DType? {
    DType.allCases.filter(\.isFloatingPoint).map { dtype in
      (dtype: dtype, count: filter { $0.dtype == dtype }.elementCount)
    }.filter { $0.count > 0 }.max { $0.count < $1.count }?.dtype
  }
}
