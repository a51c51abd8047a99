public import MultiwayCore

/// The readers that are fuzzed: one name for each way by which bytes of strangers come in.
///
/// Tools/fuzz gives `read` what libFuzzer invents, the tests give it the corpora. Anything but a result or an error of the project
/// (a trap, a report of the address sanitizer, a foreign error, a broken promise) ends the process.
public enum FuzzedReader: String, CaseIterable, Sendable {
  /// Any JSON text.
  case json
  /// A safetensors file.
  case safetensors
  /// A zip archive of PyTorch.
  case pytorch
  /// The pickle in such an archive, behind right sizes: the bytes are `data.pkl`.
  case pytorchPickle = "pytorch-pickle"
  /// A file of `torch.save` before 1.6.
  case pytorchLegacy = "pytorch-legacy"
  /// A tar archive of PyTorch 0.1.
  case pytorchTar = "pytorch-tar"
  /// A pickle that stands alone.
  case pickle
  /// An index of shards, beside shards that are right.
  case shardIndex = "shard-index"
  /// The `config.json` of a model whose weights are right.
  case configuration
  /// The header of a safetensors file, from whose names and shapes a model is found.
  case model
  /// A GGUF file, as a container and as a checkpoint.
  case gguf
  /// A GGUF file that holds its graph.
  case artifact
  /// The graph's text in such a file, beside tensors that are right.
  case graph
  /// An array of NumPy.
  case npy
  /// An archive of arrays.
  case npz
  /// A zstd file with a checkpoint in it.
  case zstd
  /// Any file: the format is found from its bytes.
  case anyFile = "any-file"
  /// The weights of an ONNX model, some of which may lie in a file beside it.
  case onnx
  /// The whole of an ONNX model.
  case onnxModel = "onnx-model"
  /// A zstd file that is unpacked into another.
  case unpack
  /// A change of a file that is right.
  case delta
  /// A recipe.
  case recipe

  /// Reads `bytes` as a file of the format, every tensor included, as a conversion would.
  /// Where that fails, archives are read once more with checksums that fit.
  /// - Returns: nil where all of it could be read, else the error of the first attempt.
  public func read(_ bytes: TensorBytes) -> (any DiagnosedError)? {
    guard let error = attempt(bytes) else { return nil }
    let repair: ([UInt8]) -> [UInt8]
    switch self {
    case .pytorch, .npz: repair = Repair.zip
    case .pytorchTar: repair = Repair.tar
    default: return error
    }
    let original = bytes.array(of: UInt8.self)
    let repaired = repair(original)
    if repaired != original { _ = attempt(TensorBytes(copying: repaired)) }
    return error
  }

  private func attempt(_ bytes: TensorBytes) -> (any DiagnosedError)? {
    do {
      try readAll(bytes)
      return nil
    } catch let error as any DiagnosedError {
      // Making the text is a part of it: it quotes what was found.
      precondition(!"\(error)".isEmpty)
      return error
    } catch let error as JSONError {
      precondition(error.byteOffset >= 0 && error.byteOffset <= bytes.byteCount)
      return TensorError(.unsupported, error.message)
    } catch {
      fatalError("\(rawValue): an error of a foreign type: \(error)")
    }
  }
}
