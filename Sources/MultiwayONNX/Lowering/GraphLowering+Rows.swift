import MultiwayCore
import MultiwayGraph

/// The ops that treat every element or every row by itself, and the products with weights.
extension GraphLowering {
  mutating func layerNorm(_ weight: ConstantID?, _ bias: ConstantID?, _ epsilon: Float) {
    let width = inputType().dimensions.last?.size ?? 0
    if opset.hasLayerNormalization {
      let factors = weight.map { constant($0) } ?? ones(width)
      emit(
        "LayerNormalization", [input(), factors] + (bias.map { [constant($0)] } ?? []), .output(0),
        .init("axis", .integer(-1)), .init("epsilon", .real(epsilon)))
      return
    }
    let mean = reduce("ReduceMean", input(), axis: -1, keepsAxis: true, .local("mean"))
    let centred = emit("Sub", [input(), mean], .local("centred"))
    let squares = emit("Mul", [centred, centred], .local("squares"))
    let variance = reduce("ReduceMean", squares, axis: -1, keepsAxis: true, .local("variance"))
    let raised = emit("Add", [variance, number(epsilon)], .local("variance_epsilon"))
    let deviation = emit("Sqrt", [raised], .local("deviation"))
    var value = emit(
      "Div", [centred, deviation], weight == nil && bias == nil ? .output(0) : .local("normalized"))
    if let weight { value = emit("Mul", [value, constant(weight)], bias == nil ? .output(0) : .local("scaled")) }
    if let bias { emit("Add", [value, constant(bias)], .output(0)) }
  }

  private mutating func ones(_ count: Int) -> String {
    shared("ones \(count)") { lowering in
      let scalar = lowering.number(1)
      return lowering.emit("Expand", [scalar, lowering.integers([count])], .named("ones/\(count)"))
    }
  }

  /// x · Wᵀ with the matrix stored as [in, out], which is what a MatMul reads.
  mutating func linear(_ weight: ConstantID, _ bias: ConstantID?) {
    let matrix = constant(weight, "_transposed") { $0.transposed }
    let product = emit("MatMul", [input(), matrix], bias == nil ? .output(0) : .local("product"))
    if let bias { emit("Add", [product, constant(bias)], .output(0)) }
  }

  /// 0.5 · x · (1 + erf(x / √2)).
  mutating func gelu() {
    if opset.hasGelu {
      emit("Gelu", [input()], .output(0), .init("approximate", .text("none")))
      return
    }
    let argument = emit("Div", [input(), number(Float(2).squareRoot())], .local("argument"))
    let error = emit("Erf", [argument], .local("erf"))
    let sum = emit("Add", [error, number(1)], .local("sum"))
    let product = emit("Mul", [input(), sum], .local("product"))
    emit("Mul", [product, number(0.5)], .output(0))
  }

  mutating func normalizeL2() {
    let norm = reduce("ReduceL2", input(), axis: -1, keepsAxis: true, .local("norm"))
    let bounded = emit("Max", [norm, number(1e-12)], .local("bounded_norm"))
    emit("Div", [input(), bounded], .output(0))
  }
}
