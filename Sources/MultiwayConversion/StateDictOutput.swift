import MultiwayCheckpoint
import MultiwayCore

/// A file of tensors without a graph that is to be written, in the container of its extension.
struct StateDictOutput {
  /// The output's path.
  var path: String
  /// Whether it may replace what is there.
  var overwrite: Bool
  /// Is told how many bytes of how many are written.
  var progress: Progress?
  /// The key under which a `.pth` file holds the state dict; empty for none. Other containers have none.
  var nesting = ""

  /// Writes the tensors, what the source says beside them, and where they come from; gives the size of the output in bytes.
  func write(
    _ tensors: [StoredTensor], of file: ModelFile, metadata: [String: String] = [:], provenance: Provenance
  ) throws -> Int {
    let kind = try OutputKind(path: path)
    let carried = file.carriedMetadata.merging(metadata) { $1 }
    switch kind {
    case .safetensors:
      try SafetensorsWriter.write(
        tensors, metadata: carried.merging(["format": "pt"]) { $1 }, provenance: provenance, to: path,
        overwrite: overwrite, inputs: file.identities, progress: progress)
    case .pth:
      try PyTorchWriter.write(
        tensors, nesting: nesting, metadata: carried, provenance: provenance, to: path, overwrite: overwrite,
        inputs: file.identities, progress: progress)
    case .gguf:
      try GGUFPlainWriter.write(
        tensors, provenance: provenance, to: path, overwrite: overwrite, inputs: file.identities, progress: progress)
    case .onnx, .folder:
      throw ConversionError(
        .usage, "this kind of output is no file of tensors", expected: ".safetensors, .pth or .gguf", file: path)
    }
    return try MappedFile(path: path).byteCount
  }

  /// Under which key the code base of a layout looks for the state dict.
  ///
  /// The source's own key stays. unilm's training reads `model`, or the file itself; timm and transformers save bare state dicts.
  static func nesting(of source: String, layout: String?) -> String {
    switch layout {
    case nil: source
    case "unilm": source.isEmpty ? "model" : source
    default: ""
    }
  }
}

extension [StoredTensor] {
  /// The tensors with floating-point elements cast. Names of one and the same view of a storage share what is computed, too.
  func cast(to dtype: DType?) -> [StoredTensor] {
    guard let dtype else { return self }
    var known: [(source: StoredTensor, cast: StoredTensor)] = []
    var places: [ObjectIdentifier: [Int]] = [:]
    return map { tensor in
      let storage = ObjectIdentifier(tensor.storage)
      for place in places[storage] ?? [] where known[place].source.isSameView(as: tensor) {
        var cast = known[place].cast
        cast.name = tensor.name
        return cast
      }
      places[storage, default: []].append(known.count)
      known.append((tensor, tensor.cast(to: dtype)))
      return known[known.count - 1].cast
    }
  }
}

extension StoredTensor {
  /// True where both show the same elements of one storage in the same way.
  fileprivate func isSameView(as other: StoredTensor) -> Bool {
    storage === other.storage && dtype == other.dtype && shape == other.shape && strides == other.strides
      && elementOffset == other.elementOffset && isBigEndian == other.isBigEndian
  }
}
