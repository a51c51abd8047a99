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

  /// For each group of inputs: the activations in 8 bits, one scale and zero point for the whole tensor, times int8 weights.
  mutating func quantizedLinear(_ linear: QuantizedLinear) {
    let length = linear.inputs / linear.groups
    var sum: String?
    for group in 0..<linear.groups {
      let isLast = group == linear.groups - 1 && linear.bias == nil
      let range = group * length..<(group + 1) * length
      let first = linear.groups == 1
      let product = integerProduct(
        linear, group: group, range, isLast && sum == nil ? .output(0) : .local(first ? "product" : "product_\(group)"))
      sum = sum.map { emit("Add", [$0, product], isLast ? .output(0) : .local("sum_\(group)")) } ?? product
    }
    if let bias = linear.bias, let sum { emit("Add", [sum, constant(bias)], .output(0)) }
  }

  private mutating func integerProduct(
    _ linear: QuantizedLinear, group: Int, _ inputs: Range<Int>, _ result: Result
  ) -> String {
    let activations = dynamicallyQuantized(input(), inputs, of: linear.inputs)
    let panels = graph[linear.panels]
    let weights = shared("panels \(linear.panels.index) \(group) of \(linear.groups)") { lowering in
      lowering.weight(
        lowering.groupName(panels.name, group, linear), .int8, [inputs.count, linear.outputs],
        .panels(panels.data, inputs: inputs, of: linear))
    }
    let scales = constant(linear.scales, linear.groups == 1 ? "" : "/group_\(group)") {
      .reshaped(.rows($0, group..<group + 1), [linear.outputs])
    }
    let product = emit("MatMulInteger", [activations.values, weights, activations.zero], .local("integers_\(group)"))
    let numbers = cast(product, to: .float, .local("numbers_\(group)"))
    let factors = emit("Mul", [activations.scale, scales], .local("factors_\(group)"))
    return emit("Mul", [numbers, factors], result)
  }

  private func groupName(_ name: String, _ group: Int, _ linear: QuantizedLinear) -> String {
    linear.groups == 1 ? name + ".int8" : "\(name).int8/group_\(group)"
  }

  /// A value in 8 bits with its scale and zero point, made once for all layers that read it.
  private mutating func dynamicallyQuantized(
    _ value: String, _ inputs: Range<Int>, of width: Int
  ) -> (values: String, scale: String, zero: String) {
    let suffix = inputs.count == width ? "" : "_\(inputs.lowerBound)"
    let names = sharedList("quantized\(suffix) \(value)") { lowering in
      var part = value
      if inputs.count < width {
        part = lowering.slice(
          value, from: lowering.integers([inputs.lowerBound]), to: lowering.integers([inputs.upperBound]), axis: -1,
          .named("\(value)/part\(suffix)"))
      }
      let outputs = ["", "_scale", "_zero_point"].map { lowering.unique("\(value)/quantized\(suffix)\($0)") }
      lowering.nodes.append(
        ONNXNode("DynamicQuantizeLinear", name: outputs[0], inputs: [part], outputs: outputs))
      return outputs
    }
    return (names[0], names[1], names[2])
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
