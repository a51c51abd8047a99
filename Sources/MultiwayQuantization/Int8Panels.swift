internal import MultiwayCore
public import MultiwayGraph

/// The layout of int8 weights: panels of 64 outputs in which four consecutive inputs of one output lie together,
/// [⌈out/64⌉, ⌈in/4⌉, 64, 4], padded with zeros (Docs/Numerics.md).
public enum Int8Panels {
  /// The place of weight [output, input] in the panels.
  @inlinable
  public static func offset(output: Int, input: Int, inputs: Int) -> Int {
    let blocks = (inputs + QuantizedMatrix.panelInputs - 1) / QuantizedMatrix.panelInputs
    let panel = output / QuantizedMatrix.panelOutputs * blocks + input / QuantizedMatrix.panelInputs
    return (panel * QuantizedMatrix.panelOutputs + output % QuantizedMatrix.panelOutputs) * QuantizedMatrix.panelInputs
      + input % QuantizedMatrix.panelInputs
  }

  /// Brings panels into C order [outputs, inputs].
  public static func unpacked(_ panels: [Int8], outputs: Int, inputs: Int) -> [Int8] {
    precondition(
      panels.count == QuantizedMatrix.panelShape(outputs: outputs, inputs: inputs).elementCount,
      "\(panels.count) bytes are not the panels of \(outputs)×\(inputs) weights")
    var matrix = [Int8](repeating: 0, count: outputs * inputs)
    for output in 0..<outputs {
      for input in 0..<inputs {
        matrix[output * inputs + input] = panels[offset(output: output, input: input, inputs: inputs)]
      }
    }
    return matrix
  }
}
