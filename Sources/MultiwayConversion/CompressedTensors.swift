import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayQuantization

/// A state dict whose linear layers are int8 in the form of the library compressed-tensors: `weight` [out, in] in int8, `weight_scale`
/// [out, groups] in fp32, and a configuration that says which layers are so. A weight is its int8 value times the scale of its row and group.
///
/// Source: compressed-tensors 0.20, `compressors/naive_quantized`, `quantization/quant_config.py`.
struct CompressedTensors {
  /// The tensors, int8 layers in two.
  private(set) var tensors: [StoredTensor] = []
  /// How many layers became int8.
  private(set) var layerCount = 0
  /// The lengths of groups and the modules that have them: 0 for whole rows.
  private var modules: [(groupSize: Int, name: String)] = []
  /// Linear modules that stay as they are.
  private var others: [String] = []

  /// Takes the tensors of a layout; those whose every parameter has one of the roles become int8.
  init(_ rendered: [RenderedTensor], roles: Set<Role>) {
    for tensor in rendered {
      let module = tensor.key.hasSuffix(".weight") ? String(tensor.key.dropLast(".weight".count)) : nil
      if let module, tensor.data.shape.rank == 2, !tensor.roles.isEmpty, tensor.roles.allSatisfy(roles.contains) {
        add(tensor, module: module)
      } else {
        tensors.append(StoredTensor(name: tensor.key, computedFrom: tensor.data))
        if let module, tensor.data.shape.rank == 2 { others.append(module) }
      }
    }
  }

  private mutating func add(_ tensor: RenderedTensor, module: String) {
    let (outputs, inputs) = (tensor.data.shape[0], tensor.data.shape[1])
    let groups = QuantizedMatrix.groupCount(inputs: inputs)
    let matrix = QuantizedMatrix(tensor.data, groups: groups)
    tensors.append(
      StoredTensor(
        name: tensor.key, dtype: .i8, shape: [outputs, inputs], storage: Int8Rows(matrix, name: tensor.key)))
    tensors.append(
      StoredTensor(
        name: module + ".weight_scale", computedFrom: .permuted(.quantized(matrix, .scales), axes: [1, 0])))
    modules.append((groups == 1 ? 0 : inputs / groups, module))
    layerCount += 1
  }

  /// The value of `quantization_config` in `config.json`.
  var configuration: JSONObject {
    var groups = JSONObject()
    for (place, size) in Set(modules.map(\.groupSize)).sorted().enumerated() {
      var weights: JSONObject = [
        "num_bits": .integer(8), "type": .string("int"), "symmetric": .bool(true), "dynamic": .bool(false),
        "strategy": .string(size == 0 ? "channel" : "group"),
      ]
      if size > 0 { weights["group_size"] = .integer(size) }
      let activations: JSONObject = [
        "num_bits": .integer(8), "type": .string("int"), "symmetric": .bool(true), "dynamic": .bool(true),
        "strategy": .string("token"),
      ]
      groups["group_\(place)"] = .object([
        "targets": .array(targets(groupSize: size).map { .string($0) }), "weights": .object(weights),
        "input_activations": .object(activations), "output_activations": .null, "format": .string(Self.format),
      ])
    }
    return [
      "quant_method": .string("compressed-tensors"), "format": .string(Self.format),
      "quantization_status": .string("compressed"), "config_groups": .object(groups),
      "ignore": .array(others.map { .string($0) }), "kv_cache_scheme": .null, "global_compression_ratio": .null,
    ]
  }

  private static let format = "int-quantized"

  /// The modules of one length of groups: by their class those of the most common length, by patterns of their names, in which the layer's
  /// number is open, all others.
  private func targets(groupSize: Int) -> [String] {
    guard groupSize != commonGroupSize else { return ["Linear"] }
    var patterns: [String] = []
    for module in modules where module.groupSize == groupSize {
      for name in [module.name, KeyMap.transformersModule(inMemory: module.name)].compactMap(\.self) {
        let parts = name.split(separator: ".").map { Int($0) == nil ? String($0) : "\\d+" }
        let pattern = "re:" + parts.joined(separator: "\\.") + "$"
        if !patterns.contains(pattern) { patterns.append(pattern) }
      }
    }
    return patterns
  }

  private var commonGroupSize: Int {
    let sizes = Set(modules.map(\.groupSize)).sorted()
    return sizes.max { left, right in
      modules.count { $0.groupSize == left } < modules.count { $0.groupSize == right }
    } ?? 0
  }
}

/// The int8 values of a matrix in C order, [out, in]: computed when they are read, as every other constant.
private final class Int8Rows: TensorStorage {
  private let matrix: QuantizedMatrix
  private let name: String

  init(_ matrix: QuantizedMatrix, name: String) {
    self.matrix = matrix
    self.name = name
  }

  var byteCount: Int { matrix.weight.shape.elementCount }

  func load() throws(TensorError) -> TensorBytes {
    let panels = try StoredTensor(name: name, computedFrom: .quantized(matrix, .panels)).contiguousBytes()
    let (outputs, inputs) = (matrix.weight.shape[0], matrix.weight.shape[1])
    return TensorBytes(copying: Int8Panels.unpacked(panels.array(of: Int8.self), outputs: outputs, inputs: inputs))
  }

  var origins: [StoredTensor]? { matrix.weight.sources.flatMap(\.sources) }

  func discard() {
    for source in matrix.weight.sources { source.discard() }
  }
}

extension Conversions {
  /// `quantize` to a folder: int8 weights in the form of compressed-tensors, and the JSON files by which loaders find them.
  ///
  /// The layers are those of the recipe, rounded as its artifacts' are; nothing folds into them, because the layout's code would not know.
  public static func quantizeToFolder(
    _ input: LoadedModel, recipe: Recipe, layout: String?, to path: String, overwrite: Bool, progress: Progress? = nil
  ) throws -> ConversionReport {
    guard let model = input.model else {
      throw ConversionError(
        .usage, "an artifact no longer has the checkpoint's tensors",
        remedy: "quantize the checkpoint that it came from",
        file: input.file.path)
    }
    guard !recipe.int8Roles.isEmpty else {
      throw ConversionError(
        .usage, "the recipe \(recipe.name) makes no layer int8", remedy: "use `multiway convert --dtype`", file: path)
    }
    let rendered = try model.rendered(layout: layout ?? model.layout, file: input.file.path)
    let compressed = CompressedTensors(rendered.tensors, roles: recipe.int8Roles)
    var provenance = input.file.provenance(verb: "quantize", ["layout": layout])
    for (key, value) in recipe.json.members { provenance.recipe[key] = value }
    let output = FolderOutput(path: path, overwrite: overwrite, progress: progress)
    let (byteCount, notes) = try output.write(
      compressed.tensors, of: input.file, model: input, layout: layout, provenance: provenance
    ) { $0["quantization_config"] = .object(compressed.configuration) }
    return ConversionReport(
      output: path, inputBytes: input.file.byteCount, outputBytes: byteCount, parametersBefore: input.parameterCount,
      parametersAfter: rendered.tensors.reduce(0) { $0 + $1.data.shape.elementCount },
      notes: input.assumptions + input.notes + rendered.notes + notes
        + ["\(compressed.layerCount) layers are int8; all other tensors are as they were"])
  }
}
