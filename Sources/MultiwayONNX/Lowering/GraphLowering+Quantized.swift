import MultiwayCore
import MultiwayGraph
import MultiwayQuantization

/// Linear layers in int8, in one of the two forms that ONNX has for them.
extension GraphLowering {
  mutating func quantizedLinear(_ linear: QuantizedLinear) throws(ONNXError) {
    switch quantization {
    case .dynamic: dynamicLinear(linear)
    case .static(let steps): try staticLinear(linear, steps)
    }
  }
}

// MARK: - Static

extension GraphLowering {
  /// Activations and weights through QuantizeLinear and DequantizeLinear around a MatMul, by which consumers know that they may compute it in
  /// integers. Nothing else is quantized: norms, softmax, GELU and residual sums stay in floating point.
  private mutating func staticLinear(
    _ linear: QuantizedLinear, _ steps: [String: ActivationRanges.Step]
  ) throws(ONNXError) {
    guard linear.groups == 1 else {
      throw fail(
        "\(linear.groups) groups of inputs with scales of their own", expected: "one scale for each output, as QDQ has")
    }
    let name = graph[node.inputs[0]].name
    guard let step = steps[name] else {
      throw fail("no range of the activations '\(name)'", expected: "a calibration on examples that reach them")
    }
    let activations = staticallyQuantized(input(), step)
    let matrix = staticMatrix(linear)
    let product = emit("MatMul", [activations, matrix], linear.bias == nil ? .output(0) : .local("product"))
    if let bias = linear.bias { emit("Add", [product, constant(bias)], .output(0)) }
  }

  /// A value rounded to 8 bits, once for all layers that read it.
  private mutating func staticallyQuantized(_ value: String, _ step: ActivationRanges.Step) -> String {
    shared("static \(value)") { lowering in
      let scale = lowering.number(step.scale)
      let zero = lowering.byte(step.zeroPoint)
      let integers = lowering.emit("QuantizeLinear", [value, scale, zero], .named(value + "/int8"))
      return lowering.emit("DequantizeLinear", [integers, scale, zero], .named(value + "/rounded"))
    }
  }

  private mutating func staticMatrix(_ linear: QuantizedLinear) -> String {
    shared("static panels \(linear.panels.index)") { lowering in
      let (panels, scales) = (lowering.graph[linear.panels], lowering.graph[linear.scales])
      let integers = lowering.weight(
        panels.name, .int8, [linear.inputs, linear.outputs], .panels(panels.data, inputs: 0..<linear.inputs, of: linear)
      )
      let factors = lowering.weight(
        scales.name, .float, [linear.outputs], .floats(.reshaped(scales.data, [linear.outputs])))
      let zeros = lowering.zeroPoints(linear.outputs)
      let base = panels.name.hasSuffix(".int8") ? String(panels.name.dropLast(5)) : panels.name
      return lowering.emit(
        "DequantizeLinear", [integers, factors, zeros], .named(base + "_dequantized"), .init("axis", .integer(1)))
    }
  }

  private mutating func zeroPoints(_ count: Int) -> String {
    shared("zero points \(count)") { lowering in
      lowering.weight("number/zeros_\(count)", .int8, [count], .bytes([UInt8](repeating: 0, count: count)))
    }
  }
}

// MARK: - Dynamic

extension GraphLowering {
  /// For each group of inputs: the activations in 8 bits, one scale and zero point for the whole tensor, times int8 weights.
  private mutating func dynamicLinear(_ linear: QuantizedLinear) {
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
    let whole = name.hasSuffix(".int8") ? name : name + ".int8"
    return linear.groups == 1 ? whole : "\(whole)/group_\(group)"
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
}
