import MultiwayCore
import MultiwayGraph

extension Materializer {
  /// Rows of several tensors after one another, in their common dtype.
  mutating func joinedRows(_ parts: [TensorExpression]) throws -> TensorBytes {
    let dtype = parts.first?.dtype ?? .f32
    guard parts.allSatisfy({ $0.dtype == dtype }) else {
      var elements: [Float] = []
      for part in parts { elements += try floats(of: part) }
      return TensorBytes(copying: elements)
    }
    let total = parts.reduce(0) { $0 + ($1.shape.byteCount(of: dtype) ?? 0) }
    let buffer = AlignedBuffer(byteCount: total)
    var offset = 0
    for part in parts {
      let source = try bytes(of: part)
      buffer.copy(source.span, at: offset)
      offset += source.byteCount
    }
    return buffer.bytes
  }

  /// A table of another size, in fp32.
  mutating func resampled(_ source: TensorExpression, _ resampling: Resampling) throws -> [Float] {
    let table = try floats(of: source)
    let channels = source.shape.elementCount / max(1, source.shape[0])
    let start = resampling.leadingRows * channels
    let end = table.count - resampling.trailingRows * channels
    let weights = ResamplingWeights(resampling.method, from: resampling.from, to: resampling.to)
    let grid = weights.apply(table[start..<end], from: resampling.from, channels: channels)
    return Array(table[..<start]) + grid + Array(table[end...])
  }

  /// The sum of two tensors of one shape, in fp32.
  mutating func sum(_ left: TensorExpression, _ right: TensorExpression) throws -> [Float] {
    zip(try floats(of: left), try floats(of: right)).map { $0 + $1 }
  }
}
