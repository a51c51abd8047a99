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

  var isPacked: Bool { expression.sources.contains { $0.storage.isPacked } }

  /// Parts are computed without the rest where the expression allows it; the pieces come in order.
  var workingByteCount: Int {
    Materializer.workingByteCount(of: expression, pieceSize: StoredTensor.pieceSize)
  }

  func stream(
    in range: Range<Int>, pieceSize: Int, noting claim: SourceClaim?, _ body: (TensorBytes) throws -> Void
  ) throws {
    precondition(range == 0..<byteCount, "a computed tensor is streamed as a whole")
    var materializer = Materializer(peekingFor: claim)
    try materializer.stream(expression, pieceSize: pieceSize) { piece, stored in
      try body(piece)
      stored?.discard()
    }
  }

  func verify() throws(TensorError) { for source in expression.sources { try source.storage.verify() } }

  var origins: [StoredTensor]? { expression.sources.flatMap(\.sources) }

  func discard() {
    for source in expression.sources { source.discard() }
  }
}
