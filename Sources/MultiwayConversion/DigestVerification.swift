import MultiwayCheckpoint
import MultiwayCore
import MultiwayGGUF

/// Reads every tensor of a file of ours and compares its digest with the one that the file records.
public enum DigestVerification {
  /// What was compared.
  public struct Report: Sendable {
    /// The number of tensors.
    public var tensorCount: Int
    /// The number of their bytes.
    public var byteCount: Int
    /// The algorithm's name.
    public var algorithm: String
  }

  /// Verifies a safetensors or PyTorch file, an ONNX model, an artifact or another GGUF file that multiway wrote.
  ///
  /// The error names the first tensor whose bytes are not those that were written, in the file's order.
  public static func verify(_ path: String, progress: Progress? = nil) throws -> Report {
    if Folder.exists(path) {
      throw ConversionError(.unsupportedInput, "this is a folder", expected: "a single file", file: path)
    }
    let source = try CheckpointFormats.source(path: path)
    let start = try source.bytes(in: 0..<min(4, source.byteCount))
    let pieces =
      GGUFContainer.recognizes(start.span)
      ? try pieces(try GGUFContainer.read(source)) : try pieces(try CheckpointFormats.read(source))
    let total = pieces.reduce(0) { $0 &+ $1.tensor.byteCount }
    var done = 0
    for (tensor, digest) in pieces {
      let found = try TensorDigest.of(tensor)
      guard found == digest else {
        throw ConversionError(
          .damaged, "the tensor's bytes have the digest \(found)", expected: "\(digest), as the file records",
          remedy: "the file is damaged: make or fetch it again", file: path, tensor: tensor.name)
      }
      done += tensor.byteCount
      progress?(done, total)
    }
    return Report(tensorCount: pieces.count, byteCount: total, algorithm: TensorDigest.algorithm)
  }

  private typealias Piece = (tensor: StoredTensor, digest: String)

  private static func pieces(_ container: GGUFContainer) throws -> [Piece] {
    guard let digests = try GGUFDigests.tensorDigests(of: container) else { throw nothing(container.file.path) }
    return try zip(container.tensors, digests).map { info, digest in
      // The digest is that of the bytes, whatever they mean.
      let range = info.byteCount == 0 ? 0..<0 : try container.range(of: info)
      let tensor = StoredTensor(
        name: info.name, dtype: .u8, shape: [range.count], storage: FileRange(file: container.file, range: range))
      return (tensor, digest)
    }
  }

  private static func pieces(_ checkpoint: Checkpoint) throws -> [Piece] {
    guard let digests = try checkpoint.recordedDigests() else { throw nothing(checkpoint.path) }
    let tensors = try checkpoint.filedTensors ?? checkpoint.stateDict().tensors
    let names = Set(tensors.map(\.name))
    let unnamed = tensors.map(\.name).filter { digests[$0] == nil }
    let absent = digests.keys.filter { !names.contains($0) }.sorted()
    guard unnamed.isEmpty, absent.isEmpty else {
      let problems =
        unnamed.prefix(20).map { "no digest of '\($0)'" }
        + absent.prefix(20).map { "a digest of '\($0)', which is absent" }
      throw ConversionError(
        .damaged, "the digests are not those of the file's tensors: " + problems.joined(separator: "; "),
        remedy: "another program has changed the file: make or fetch it again", file: checkpoint.path)
    }
    return tensors.map { ($0, digests[$0.name] ?? "") }
  }

  private static func nothing(_ path: String) -> ConversionError {
    ConversionError(
      .unsupportedInput, "the file records no digests of its tensors",
      expected: "a safetensors, PyTorch, GGUF or ONNX file that multiway wrote by convert, quantize or prune",
      file: path)
  }
}
