public import MultiwayCore
import MultiwayGGUF

/// Reads the tensors of a GGUF file as a checkpoint.
public enum GGUFCheckpointReader: CheckpointReader {
  /// `GGUF`.
  public static let formatName = "GGUF"

  /// True for the magic of GGUF.
  public static func recognizes(_ header: RawSpan) -> Bool { GGUFContainer.recognizes(header) }

  /// Reads the header; block-quantized tensors are listed, but their bytes cannot be asked for yet.
  public static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    do {
      let container = try GGUFContainer.read(file)
      var tensors: [StoredTensor] = []
      var quantized: [String] = []
      for info in container.tensors {
        let shape = Shape(checking: info.dimensions) ?? Shape([])
        if let dtype = info.type.dtype {
          let range = info.byteCount == 0 ? 0..<0 : try container.range(of: info)
          tensors.append(
            StoredTensor(name: info.name, dtype: dtype, shape: shape, storage: FileRange(file: file, range: range)))
        } else {
          quantized.append("\(info.name) (\(info.type.name))")
          tensors.append(
            StoredTensor(name: info.name, dtype: .f32, shape: shape, storage: QuantizedStorage(info, path: file.path)))
        }
      }
      return Checkpoint(
        format: formatName, file: file, stateDicts: [StateDict(name: "", tensors: tensors)],
        metadata: metadata(container), notes: notes(quantized))
    } catch {
      throw CheckpointError(error)
    }
  }

  private static func notes(_ quantized: [String]) -> [String] {
    if quantized.isEmpty { return [] }
    let list = quantized.prefix(5).joined(separator: ", ") + (quantized.count > 5 ? ", …" : "")
    return ["\(quantized.count) block-quantized tensors are listed as F32 but cannot be read yet: \(list)"]
  }

  private static func metadata(_ container: GGUFContainer) -> JSONObject {
    var object = JSONObject()
    for (key, value) in container.metadata {
      if let text = value.string {
        object[key] = .string(text)
      } else if let truth = value.bool {
        object[key] = .bool(truth)
      } else if let integer = value.integer {
        object[key] = .integer(integer)
      } else if let number = value.number {
        object[key] = .real(number)
      }
    }
    return object
  }
}

/// Stands for block-quantized bytes, whose decoding this reader does not know.
private final class QuantizedStorage: TensorStorage {
  let byteCount: Int
  private let error: TensorError

  init(_ info: GGUFTensorInfo, path: String) {
    byteCount = info.byteCount
    error = TensorError(
      .unsupported, "\(info.type.name) blocks are not supported yet",
      expected: "a plain element type such as F32 or F16",
      remedy: "convert the file to F16 with the tool that made it", file: path, tensor: info.name)
  }

  func load() throws(TensorError) -> TensorBytes { throw error }
  func discard() {}
}

extension CheckpointError {
  /// The same diagnosis under a code of this target.
  init(_ error: GGUFError) {
    let code: CheckpointErrorCode =
      switch error.code {
      case .badMagic: .unrecognized
      case .badVersion: .unsupported
      case .truncated: .truncated
      case .malformed, .badAlignment, .badShape, .badType, .badOffset: .malformed
      case .badName: .duplicateName
      case .corrupt: .corrupt
      case .wrongSize: .sizeMismatch
      }
    self.init(code, error.diagnosis)
  }
}

extension GGUFType {
  /// The dtype of a plain element type.
  var dtype: DType? {
    switch self {
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    case .f64: .f64
    case .i8: .i8
    case .i16: .i16
    case .i32: .i32
    case .i64: .i64
    default: nil
    }
  }

  /// The type that holds elements of `dtype` unchanged.
  init?(_ dtype: DType) {
    guard let type = GGUFType.allCases.first(where: { $0.dtype == dtype }) else { return nil }
    self = type
  }
}
