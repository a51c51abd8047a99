public import MultiwayCore
import MultiwayGraph

/// What a matrix [out, in] is quantized into.
public struct QuantizedTensors: Sendable {
  /// Int8 values in panels (`Int8Panels`).
  public var panels: TensorBytes
  /// One scale an output channel.
  public var scales: [Float]
  /// The sum of each output channel's values.
  public var sums: [Int32]
}

extension Materializer {
  /// Quantizes a matrix per output channel, symmetric in −127…127: scale = max|w| / 127, q = round-half-even(w · 127 / max|w|).
  /// A channel below 2⁻¹⁰⁰ counts as zero: 127 / max|w| would overflow.
  mutating func quantize(_ matrix: QuantizedMatrix) throws -> QuantizedTensors {
    if let quantized, quantized.matrix === matrix { return quantized.tensors }
    let shape = matrix.weight.shape
    let weights = try floats(of: matrix.weight)
    let (outputs, inputs) = (shape[0], shape[1])
    var panels = [Int8](
      repeating: 0, count: QuantizedMatrix.panelShape(outputs: outputs, inputs: inputs).elementCount)
    var scales: [Float] = []
    var sums: [Int32] = []
    for output in 0..<outputs {
      let row = weights[output * inputs..<(output + 1) * inputs]
      var largest: Float = 0
      for weight in row {
        guard weight.isFinite else {
          throw QuantizationError(
            .nonFinite, "a weight of output channel \(output) is \(weight)",
            remedy: "the checkpoint is damaged or its training diverged: check the source",
            tensor: matrix.weight.sources.first?.name)
        }
        largest = max(largest, abs(weight))
      }
      let isUsable = largest >= 0x1p-100
      let inverse = isUsable ? 127 / largest : 0
      var sum: Int32 = 0
      for input in 0..<inputs {
        let value = Int8((row[row.startIndex + input] * inverse).rounded(.toNearestOrEven).clamped(to: -127...127))
        panels[Int8Panels.offset(output: output, input: input, inputs: inputs)] = value
        sum += Int32(value)
      }
      scales.append(isUsable ? largest / 127 : 1)
      sums.append(sum)
    }
    let tensors = QuantizedTensors(panels: TensorBytes(copying: panels), scales: scales, sums: sums)
    quantized = (matrix, tensors)
    return tensors
  }
}

extension Float {
  fileprivate func clamped(to range: ClosedRange<Float>) -> Float { max(range.lowerBound, min(range.upperBound, self)) }
}
