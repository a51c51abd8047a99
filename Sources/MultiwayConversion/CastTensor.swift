import MultiwayCore
import MultiwayGraph
import MultiwayQuantization

/// A stored tensor in another dtype, converted when it is read.
enum CastStorageOfTensor {
  /// The tensor with its elements cast, where it is floating-point; integers and masks stay as they are.
  static func cast(_ tensor: StoredTensor, to dtype: DType) -> StoredTensor {
    guard tensor.dtype.isFloatingPoint, tensor.dtype.isDecodable, tensor.dtype != dtype else { return tensor }
    return StoredTensor(
      name: tensor.name, dtype: dtype, shape: tensor.shape, storage: CastingStorage(tensor, dtype))
  }
}

private final class CastingStorage: TensorStorage {
  private let source: StoredTensor
  private let dtype: DType

  init(_ source: StoredTensor, _ dtype: DType) {
    self.source = source
    self.dtype = dtype
  }

  var byteCount: Int { source.shape.byteCount(of: dtype) ?? 0 }

  func load() throws(TensorError) -> TensorBytes {
    var materializer = Materializer(discardsSources: true)
    do {
      return try materializer.bytes(of: .cast(.stored(source), dtype))
    } catch let error as TensorError {
      throw error
    } catch let error as any DiagnosedError {
      throw TensorError(.unsupported, error.diagnosis)
    } catch {
      throw TensorError(.corrupt, "\(error)", tensor: source.name)
    }
  }

  func discard() { source.discard() }
}
