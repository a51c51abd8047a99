import MultiwayCore
import MultiwayGraph

/// What the graph builders of all architectures share: constants from bound parameters, linear layers, norms, outputs.
protocol ModelGraphBuilding {
  var parameters: BoundParameters { get }
  var graph: Graph { get set }
  /// The constants made so far, by canonical name.
  var constants: [String: ConstantID] { get set }
  /// ε of the model's LayerNorms.
  var epsilon: Float { get }
}

extension ModelGraphBuilding {
  /// The constant of a canonical name, made on first use. Types that the ops do not take are cast to fp32.
  mutating func constant(_ name: String, reshaped shape: Shape? = nil) throws(GraphError) -> ConstantID {
    if let id = constants[name] { return id }
    guard let parameter = parameters[name] else {
      throw GraphError(.invalidReference, "the checkpoint has no parameter for this", tensor: name)
    }
    var data = parameter.data
    if ![.f32, .f16, .bf16].contains(data.dtype) { data = .cast(data, .f32) }
    if let shape { data = .reshaped(data, shape) }
    return constant(name, parameter.declaration.role, parameter.declaration.modality, data)
  }

  /// A constant that is computed rather than stored, made on first use of the name.
  mutating func constant(
    _ name: String, _ role: Role, _ modality: Modality, _ data: TensorExpression
  ) -> ConstantID {
    if let id = constants[name] { return id }
    let id = graph.addConstant(Constant(name: name, role: role, modality: modality, data: data))
    constants[name] = id
    return id
  }

  /// A linear layer with the parameters of `name`; the value is called so too unless told otherwise. The bias is added where the
  /// checkpoint has one.
  mutating func linear(
    _ input: ValueID, _ name: String, _ role: Role, _ modality: Modality, as value: String? = nil
  ) throws(GraphError) -> ValueID {
    let weight = try constant(name + ".weight")
    let bias = parameters[name + ".bias"] == nil ? nil : try constant(name + ".bias")
    return try graph.add(
      .linear(weight: weight, bias: bias), input, name: value ?? name, role: role, modality: modality)
  }

  /// A LayerNorm with the parameters of `name`.
  mutating func norm(
    _ input: ValueID, _ name: String, _ role: Role, _ modality: Modality, as value: String? = nil
  ) throws(GraphError) -> ValueID {
    let weight = try constant(name + ".weight")
    let bias = try constant(name + ".bias")
    let op = Op.layerNorm(weight: weight, bias: bias, epsilon: epsilon)
    return try graph.add(op, input, name: value ?? name, role: role, modality: modality)
  }

  /// image [N, C, side, side] → patches [N, tokens, width], before class token and positions.
  mutating func embedPatches(
    side: Int, channels: Int, patchSize: Int, width: Int, input: String = "image", prefix: String = ""
  ) throws(GraphError) -> ValueID {
    let image = graph.addInput(
      input, ValueType(.f32, [.symbol("batch"), .fixed(channels), .fixed(side), .fixed(side)]))
    let cut = try graph.add(.patchify(size: patchSize), image, name: prefix + "vision.pixels", modality: .vision)
    let weight = try constant("vision.patches.weight", reshaped: [width, patchSize * patchSize * channels])
    let bias = try constant("vision.patches.bias")
    return try graph.add(
      .linear(weight: weight, bias: bias), cut, name: prefix + "vision.patches", role: .patchEmbedding,
      modality: .vision)
  }

  mutating func output(_ name: String, _ value: ValueID) {
    graph.outputs.append(GraphOutput(name: name, value: value))
  }
}
