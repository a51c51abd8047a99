import MultiwayCore
import MultiwayGraph

/// What convolutions ask for: axes in another order, and batch normalizations as factors and sums.
extension Materializer {
  /// The elements of an expression that has to be computed, seen with their axes in another order.
  mutating func permuted(_ source: TensorExpression, _ axes: [Int]) throws -> StoredTensor {
    let elements = MemoryStorage(try bytes(of: source))
    return StoredTensor(name: "permuted", dtype: source.dtype, shape: source.shape, storage: elements).permuted(axes)
  }

  mutating func scale(of norm: BatchNorm) throws -> [Double] {
    let variances = try floats(of: norm.variance)
    return zip(try floats(of: norm.weight), variances).map { weight, variance in
      Double(weight) / (Double(variance) + Double(norm.epsilon)).squareRoot()
    }
  }

  mutating func shift(of norm: BatchNorm, _ bias: TensorExpression?) throws -> [Float] {
    let factors = try scale(of: norm)
    let (offsets, means) = (try floats(of: norm.bias), try floats(of: norm.mean))
    let start = try bias.map { try floats(of: $0) } ?? [Float](repeating: 0, count: factors.count)
    return factors.indices.map { channel in
      Float(Double(offsets[channel]) + (Double(start[channel]) - Double(means[channel])) * factors[channel])
    }
  }
}

extension StoredTensor {
  /// The same elements with the axes in another order.
  func permuted(_ axes: [Int]) -> StoredTensor {
    var tensor = self
    tensor.shape = Shape(axes.map { shape[$0] })
    tensor.strides = axes.map { strides[$0] }
    return tensor
  }
}
