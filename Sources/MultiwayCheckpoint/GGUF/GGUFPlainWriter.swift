public import MultiwayCore
public import MultiwayGGUF

/// Writes tensors of an unknown architecture to a GGUF file: names, shapes and bytes as they are.
public enum GGUFPlainWriter {
  /// The value of `general.architecture` in files that describe no architecture.
  public static let architecture = "unknown"
  private static let versionKey = "multiway.version"
  private static let recipeKey = "multiway.recipe"

  /// Writes `tensors` in their order, one at a time. The file appears under its name whole or not at all.
  ///
  /// GGUF is narrower than a checkpoint: names of at most 63 bytes, at most 4 dimensions, and F32, F16, BF16, F64 and signed
  /// integers only. Every tensor that does not fit is named in one error; nothing is renamed, reshaped or converted.
  /// - Parameters:
  ///   - provenance: where the tensors come from; it is written with the digests of the tensors. Nil for neither.
  ///   - metadata: pairs after `general.architecture`, which is added unless it is among them.
  ///   - inputs: files that are being read; the output may not be one of them.
  ///   - progress: is told how many bytes of how many are written.
  public static func write(
    _ tensors: [StoredTensor], metadata: [(key: String, value: GGUFValue)] = [], provenance: Provenance? = nil,
    to path: String, overwrite: Bool = false, inputs: [FileIdentity] = [], progress: ((Int, Int) -> Void)? = nil
  ) throws {
    let declared = try declare(tensors, path: path)
    var pairs = metadata
    if !pairs.contains(where: { $0.key == "general.architecture" }) {
      pairs.insert(("general.architecture", .string(architecture)), at: 0)
    }
    let sources = SourceLedger(of: provenance == nil ? [] : tensors.flatMap(\.sources))
    if let provenance {
      let placeholders = tensors.map { _ in TensorDigest.placeholder }
      pairs.append((versionKey, .string(provenance.tool)))
      pairs.append((recipeKey, .string(JSONValue.object(provenance.recipe).text())))
      pairs += GGUFDigests.pairs(provenance.files, metadata: provenance.metadata)
      pairs += GGUFDigests.pairs(sources.current, tensors: placeholders)
    }
    let stream = try SourceStream(tensors.map(SourceStream.Item.init), ledger: sources)
    var writer = try GGUFWriter(
      path: path, overwrite: overwrite, inputs: inputs, metadata: pairs, tensors: declared)
    let total = StateDict(name: "", tensors: tensors).byteCount
    var done = 0
    try stream.run(tensors) { piece in
      try writer.writeTensor(piece.span)
      done += piece.byteCount
      progress?(done, total)
    } finish: { index, unchanged in
      if let unchanged { sources.note(writer.tensorDigests[index], of: unchanged) }
    }
    let digests = writer.tensorDigests
    try writer.finish(filling: provenance == nil ? [] : GGUFDigests.pairs(sources.current, tensors: digests))
  }

  private static func declare(
    _ tensors: [StoredTensor], path: String
  ) throws(CheckpointError) -> [(name: String, dimensions: [Int], type: GGUFType)] {
    var problems: [String] = []
    var declared: [(name: String, dimensions: [Int], type: GGUFType)] = []
    for tensor in tensors {
      if tensor.name.utf8.count > GGUFWriter.maximumNameSize {
        problems.append("'\(tensor.name)': a name of \(tensor.name.utf8.count) bytes, at most 63 fit")
      }
      if tensor.shape.rank > GGUFWriter.maximumRank {
        problems.append("'\(tensor.name)': \(tensor.shape.rank) dimensions, at most 4 fit")
      }
      if let type = GGUFType(tensor.dtype) {
        declared.append((tensor.name, tensor.shape.dimensions, type))
      } else {
        problems.append("'\(tensor.name)': GGUF has no \(tensor.dtype.rawValue) elements")
      }
    }
    guard problems.isEmpty else {
      let more = problems.count > 20 ? "; and \(problems.count - 20) more" : ""
      throw CheckpointError(
        .unrepresentable,
        "GGUF cannot hold \(problems.count == 1 ? "a tensor" : "some tensors"): "
          + problems.prefix(20).joined(separator: "; ") + more,
        remedy: "write a .safetensors file instead", file: path)
    }
    return declared
  }
}
