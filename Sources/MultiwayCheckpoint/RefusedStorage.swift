import MultiwayCore

/// Stands for the elements of a tensor that is listed, but cannot be read.
final class RefusedStorage: TensorStorage {
  let byteCount: Int
  private let error: TensorError

  /// The diagnosis names file and tensor, and says what to do.
  init(_ shape: Shape, _ dtype: DType, _ diagnosis: Diagnosis) {
    byteCount = shape.byteCount(of: dtype) ?? 0
    error = TensorError(.unsupported, diagnosis)
  }

  func load() throws(TensorError) -> TensorBytes { throw error }
  func load(in range: Range<Int>) throws(TensorError) -> TensorBytes { throw error }
  var workingByteCount: Int { 0 }
  func discard() {}
}
