import MultiwayCore
import MultiwayGraph
import MultiwayKernels

/// A bias into which that of a norm is folded, `W·β + b`, needs the weights of its layer, which int8 panels are made of as well: where both
/// are written, both come out of one reading.
extension Materializer {
  /// The bias of a layer whose weights nothing else is made of.
  mutating func foldedBias(
    _ start: TensorExpression?, _ weight: TensorExpression, _ shift: TensorExpression
  ) throws -> [Float] {
    let (rows, factor) = Materializer.factored(weight)
    var sums = try sums(start, shift, factor: factor, outputs: weight.shape[0])
    try forEachRows(of: rows) { sums.add($0, $1) }
    return sums.result
  }

  /// True where `streamPanels` can make a bias from the rows that it quantizes.
  static func sharesRows(_ bias: TensorExpression, with panels: TensorExpression) -> Bool {
    guard case .quantized(let matrix, .panels) = panels, case .shiftedBias(_, let weight, _) = bias,
      let (stored, factor, _) = product(matrix.weight), case (let other, let otherFactor, nil)? = product(weight)
    else { return false }
    return stored.dtype == .f32 && stored.workingByteCount == 0 && stored.hasElements(of: other)
      && factor == otherFactor
  }

  /// Hands on the panels of a matrix piece by piece, and gives the bias, which is what `foldedBias` makes of it.
  mutating func streamPanels(
    _ matrix: QuantizedMatrix, with bias: TensorExpression, pieceSize: Int, _ emit: (TensorBytes) throws -> Void
  ) throws -> [Float] {
    guard case .shiftedBias(let start, let weight, let shift) = bias else {
      preconditionFailure("a bias that is not made of the matrix")
    }
    let factor = Materializer.factored(weight).factor
    var sums = try sums(start, shift, factor: factor, outputs: weight.shape[0])
    let tensors = try quantize(matrix, pieceSize: pieceSize, inspect: { sums.add($0, $1) }, emit)
    quantized = (matrix, tensors)
    return sums.result
  }

  /// The sums of the rows that have come.
  private struct Sums {
    let kernels: KernelContext
    let vector: [Float]
    let start: [Float]
    var result: [Float] = []

    mutating func add(_ rows: Range<Int>, _ weights: TensorBytes) {
      result += kernels.shiftedBias(weights, vector: vector, start: start.isEmpty ? [] : start[rows])
    }
  }

  private mutating func sums(
    _ start: TensorExpression?, _ shift: TensorExpression, factor: Float, outputs: Int
  ) throws -> Sums {
    let vector = try floats(of: shift)
    var sums = Sums(
      kernels: try context(), vector: factor == 1 ? vector : vector.map { $0 * factor },
      start: try start.map { try floats(of: $0) } ?? [])
    sums.result.reserveCapacity(outputs)
    return sums
  }

  /// A matrix as another one times a power of two: as exact on the vector that it is multiplied by, where there is less to multiply.
  private static func factored(_ weight: TensorExpression) -> (rows: TensorExpression, factor: Float) {
    guard case .scaled(let source, let factor) = weight, case (_, factor, nil)? = product(weight) else {
      return (weight, 1)
    }
    return (source, factor)
  }
}

extension TensorExpression {
  /// The memory that `streamPanels` takes for a bias, beyond what the panels take: starts, sums and the vector.
  func foldingByteCount() -> Int {
    guard case .shiftedBias(_, let weight, _) = self else { return 0 }
    return (2 * weight.shape[0] + 2 * weight.shape[1]) * 4
  }
}

extension StoredTensor {
  /// True where both are the same view of the same storage.
  fileprivate func hasElements(of other: StoredTensor) -> Bool {
    storage === other.storage && elementOffset == other.elementOffset && dtype == other.dtype && shape == other.shape
      && strides == other.strides
  }
}
