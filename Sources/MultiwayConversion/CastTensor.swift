import MultiwayCore
import MultiwayGraph
import MultiwayQuantization

extension StoredTensor {
  /// A tensor whose elements are computed from an expression when they are read.
  init(name: String, computedFrom expression: TensorExpression) {
    self.init(
      name: name, dtype: expression.dtype, shape: expression.shape, storage: ComputedStorage(expression, name: name))
  }

  /// The tensor with its elements cast, where it is floating-point; integers and masks stay as they are.
  func cast(to dtype: DType) -> StoredTensor {
    guard self.dtype.isFloatingPoint, self.dtype.isDecodable, self.dtype != dtype else { return self }
    return StoredTensor(name: name, computedFrom: .cast(.stored(self), dtype))
  }
}

private final class ComputedStorage: TensorStorage {
  private let expression: TensorExpression
  private let name: String

  init(_ expression: TensorExpression, name: String) {
    self.expression = expression
    self.name = name
  }

  var byteCount: Int { expression.shape.byteCount(of: expression.dtype) ?? 0 }

  func load() throws(TensorError) -> TensorBytes {
    var materializer = Materializer(discardsSources: true)
    do {
      return try materializer.bytes(of: expression)
    } catch let error as TensorError {
      throw error
    } catch let error as any DiagnosedError {
      throw TensorError(.unsupported, error.diagnosis)
    } catch {
      throw TensorError(.corrupt, "\(error)", tensor: name)
    }
  }

  var origins: [StoredTensor]? { expression.sources.flatMap(\.sources) }

  func discard() {
    for source in expression.sources { source.discard() }
  }
}
