public import MultiwayCore
import MultiwayGGUF

/// Reads the tensors of a GGUF file as a checkpoint.
public enum GGUFCheckpointReader: CheckpointReader {
  /// `GGUF`.
  public static let formatName = "GGUF"
  /// What is read.
  public static let summary =
    "F32, F16, BF16, F64, I8 to I64; Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K as fp32"

  /// True for the magic of GGUF.
  public static func recognizes(_ header: RawSpan) -> Bool { GGUFContainer.recognizes(header) }

  /// Reads the header. Block-quantized tensors are F32 tensors that are decoded when they are loaded; those of types that
  /// are not decoded are listed, and refused when they are loaded.
  public static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    do throws(GGUFError) {
      let container = try GGUFContainer.read(file)
      var tensors: [StoredTensor] = []
      var decoded: [String] = []
      var refused: [String] = []
      for info in container.tensors {
        guard let shape = Shape(checking: info.dimensions) else {
          throw GGUFError(.badShape, "dimensions \(info.dimensions)", file: file.path, tensor: info.name)
        }
        if let dtype = info.type.dtype {
          let range = info.byteCount == 0 ? 0..<0 : try container.range(of: info)
          tensors.append(
            StoredTensor(name: info.name, dtype: dtype, shape: shape, storage: FileRange(file: file, range: range)))
        } else if let blocks = info.type.blockType, shape.byteCount(of: .f32) != nil {
          decoded.append("\(info.name) (\(info.type.name))")
          let range = info.byteCount == 0 ? 0..<0 : try container.range(of: info)
          tensors.append(
            StoredTensor(
              name: info.name, dtype: .f32, shape: shape,
              storage: BlockStorage(
                blocks, elementCount: shape.elementCount, blocks: FileRange(file: file, range: range))))
        } else {
          refused.append("\(info.name) (\(info.type.name))")
          tensors.append(
            StoredTensor(
              name: info.name, dtype: .f32, shape: shape,
              storage: RefusedStorage(shape, .f32, refusal(info, path: file.path))))
        }
      }
      return Checkpoint(
        format: formatName, file: file, stateDicts: [StateDict(name: "", tensors: tensors)],
        metadata: metadata(container),
        notes: notes(decoded, "are given as the F32 numbers that they stand for")
          + notes(refused, "are listed as F32 but cannot be read"))
    } catch {
      throw CheckpointError(error)
    }
  }

  private static func refusal(_ info: GGUFTensorInfo, path: String) -> Diagnosis {
    Diagnosis(
      "\(info.type.name) blocks are not supported",
      expected: "one of "
        + GGUFType.allCases.filter { $0.dtype != nil || $0.blockType != nil }.map(\.name)
        .joined(separator: ", "),
      remedy: "convert the file to F16 with the tool that made it", file: path, tensor: info.name)
  }

  private static func notes(_ names: [String], _ what: String) -> [String] {
    if names.isEmpty { return [] }
    let list = names.prefix(5).joined(separator: ", ") + (names.count > 5 ? ", …" : "")
    return ["\(names.count) block-quantized tensors \(what): \(list)"]
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
