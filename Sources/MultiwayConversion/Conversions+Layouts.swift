import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph
import MultiwayModels

extension Conversions {
  /// Writes a model's parameters in a key layout, or in its own with positions of another image size.
  static func convertLayout(
    _ file: ModelFile, options: InputOptions, layout: String?, dtype: DType?, to path: String, overwrite: Bool,
    progress: Progress?
  ) throws -> ConversionReport {
    guard try OutputKind(path: path).holdsStateDict else {
      throw ConversionError(
        .usage, "a key layout is a matter of state dicts",
        expected: "an output that ends in .safetensors or .pth", file: path)
    }
    let input = try LoadedModel(file, options: options)
    guard let model = input.model else {
      throw ConversionError(
        .usage, "an artifact no longer has the checkpoint's tensors",
        remedy: "convert the checkpoint that it came from",
        file: file.path)
    }
    let rendered = try model.rendered(layout: layout ?? model.layout, file: file.path)
    let tensors = rendered.tensors.map { StoredTensor(name: $0.key, computedFrom: $0.data) }.cast(to: dtype)
    let provenance = file.provenance(
      verb: "convert",
      ["layout": layout, "image_size": options.imageSize.map { String($0) }, "dtype": dtype?.shortName])
    let output = StateDictOutput(
      path: path, overwrite: overwrite, progress: progress,
      nesting: StateDictOutput.nesting(of: file.stateDictName(options.stateDict), layout: layout))
    let byteCount = try output.write(tensors, of: file, metadata: input.recordedSizes, provenance: provenance)
    return ConversionReport(
      output: path, inputBytes: file.byteCount, outputBytes: byteCount,
      parametersBefore: input.parameterCount, parametersAfter: tensors.reduce(0) { $0 + $1.shape.elementCount },
      notes: input.assumptions + input.notes + rendered.notes)
  }
}

extension LoadedModel {
  /// What no shape tells, in the words of Hugging Face's configurations: it must survive the way into a file without one.
  var recordedSizes: [String: String] {
    var recorded: [String: String] = [:]
    for (name, value) in hyperparameters {
      if name == "attention.head_count" { recorded["num_attention_heads"] = value }
      if name == "attention.layer_norm_epsilon" { recorded["layer_norm_eps"] = value }
      if name == "segmentation.taps" { recorded["feature_taps"] = value }
      if name == "segmentation.pool_scales" { recorded["pool_scales"] = value }
    }
    return recorded
  }
}
