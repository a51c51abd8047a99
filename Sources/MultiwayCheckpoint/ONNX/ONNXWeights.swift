import MultiwayCore

/// Finds out which parameter of a model each initializer is: exporters fold, transpose, quantize and rename weights, and the nodes around
/// one tell what became of it.
struct ONNXWeights {
  private let model: ONNXFile
  /// The tensors by the names of the values that hold them: initializers, and what casts and dequantization make of them.
  private var values: [String: StoredTensor] = [:]
  /// The nodes that read a value, by place.
  private var readers: [String: [Int]] = [:]
  /// The node that makes a value.
  private var makers: [String: Int] = [:]
  /// Initializers that were used up: scales, zero points, integers.
  private var used: Set<String> = []
  private var names: Set<String> = []
  /// Constants of which nobody knows what they were computed from.
  private var unknown: [StoredTensor] = []
  private(set) var tensors: [StoredTensor] = []
  private(set) var notes: [String] = []

  /// - Parameter stored: the initializers in the model's order, with unique names.
  init(_ model: ONNXFile, _ stored: [StoredTensor]) throws(CheckpointError) {
    self.model = model
    for tensor in stored { values[tensor.name] = tensor }
    for (place, node) in model.nodes.enumerated() where node.isStandard {
      for input in node.inputs { readers[input, default: []].append(place) }
      for output in node.outputs { makers[output] = place }
    }
    var weights = stored
    weights += dequantized() + integerProducts()
    for tensor in weights where !used.contains(tensor.name) { add(tensor) }
    let lost = unknown.map(\.name).filter { !used.contains($0) }
    if !lost.isEmpty {
      notes.append("left out, as they were computed from parameters in a way that is not undone: \(listed(lost))")
    }
    if !used.isEmpty, weights.count > stored.count {
      notes.append("int8 weights are read as the fp32 numbers that they stand for; activations are not quantized here")
    }
  }

  private mutating func append(_ tensor: StoredTensor) {
    if names.insert(tensor.name).inserted { tensors.append(tensor) }
  }

  private func node(reading value: String, _ types: Set<String>, at place: Int? = nil) -> ONNXFileNode? {
    for index in readers[value] ?? [] {
      let node = model.nodes[index]
      guard types.contains(node.type) else { continue }
      if let place, !(node.inputs.indices.contains(place) && node.inputs[place] == value) { continue }
      return node
    }
    return nil
  }

  private func node(making value: String, _ type: String) -> ONNXFileNode? {
    makers[value].map { model.nodes[$0] }.flatMap { $0.type == type ? $0 : nil }
  }
}

// MARK: - Integers

extension ONNXWeights {
  /// What DequantizeLinear nodes make of initializers. The results are looked at under the names of the values that they are.
  private mutating func dequantized() -> [StoredTensor] {
    var found: [StoredTensor] = []
    for node in model.nodes where node.isStandard && node.type == "DequantizeLinear" {
      guard node.inputs.count >= 2, let output = node.outputs.first, let integers = values[node.inputs[0]],
        let scale = values[node.inputs[1]]
      else { continue }
      let zero = node.inputs.count > 2 ? values[node.inputs[2]] : nil
      guard zero != nil || node.inputs.count < 3 || node.inputs[2].isEmpty,
        let tensor = dequantized(integers, scale: scale, zero: zero, axis: node.axis ?? 1, as: output)
      else { continue }
      found.append(tensor)
    }
    return found
  }

  private mutating func dequantized(
    _ integers: StoredTensor, scale: StoredTensor, zero: StoredTensor?, axis: Int, as name: String
  ) -> StoredTensor? {
    let axis = axis < 0 ? axis &+ integers.shape.rank : axis
    guard values[name] == nil, let storage = DequantizedStorage(integers, scale: scale, zero: zero, axis: axis) else {
      return nil
    }
    for part in [integers, scale] + (zero.map { [$0] } ?? []) { used.insert(part.name) }
    let tensor = StoredTensor(name: name, dtype: .f32, shape: integers.shape, storage: storage)
    values[name] = tensor
    return tensor
  }

  /// The matrices of MatMulInteger: its product, cast to fp32, is multiplied with the product of two scales, one of which is the weights'.
  private mutating func integerProducts() -> [StoredTensor] {
    var found: [StoredTensor] = []
    var groups: [String: [StoredTensor]] = [:]
    var order: [String] = []
    for node in model.nodes where node.isStandard && node.type == "MatMulInteger" && node.inputs.count >= 2 {
      guard let integers = values[node.inputs[1]], integers.shape.rank == 2, let product = node.outputs.first,
        let scale = scale(ofProduct: product)
      else { continue }
      let zero = node.inputs.count > 3 ? values[node.inputs[3]] : nil
      guard zero != nil || node.inputs.count < 4 || node.inputs[3].isEmpty else { continue }
      let (base, group) = ONNXWeights.base(ofIntegers: integers.name)
      guard !used.contains(integers.name),
        let tensor = dequantized(
          integers, scale: scale, zero: zero, axis: 1, as: group == nil ? base : integers.name + "/f32")
      else { continue }
      guard group != nil else {
        found.append(tensor)
        continue
      }
      if groups[base] == nil { order.append(base) }
      groups[base, default: []].append(tensor)
    }
    return found + order.compactMap { joined(groups[$0] ?? [], as: $0) }
  }

  /// The groups of inputs of one matrix [in, out], which stand in the order of their products.
  private func joined(_ groups: [StoredTensor], as name: String) -> StoredTensor? {
    guard let first = groups.first, groups.allSatisfy({ $0.shape[1] == first.shape[1] }) else { return nil }
    let rows = groups.reduce(0) { $0 &+ $1.shape[0] }
    guard rows >= 0, let shape = Shape(checking: [rows, first.shape[1]]), shape.byteCount(of: .f32) != nil else {
      return nil
    }
    return StoredTensor(name: name, dtype: .f32, shape: shape, storage: JoinedStorage(groups))
  }

  private func scale(ofProduct product: String) -> StoredTensor? {
    guard let cast = node(reading: product, ["Cast"])?.outputs.first, let mul = node(reading: cast, ["Mul"]) else {
      return nil
    }
    for input in mul.inputs where input != cast {
      if let scale = values[input] { return scale }
      guard let scales = node(making: input, "Mul") else { continue }
      for factor in scales.inputs { if let scale = values[factor] { return scale } }
    }
    return nil
  }

  /// The name of a matrix by that of its integers, and the number of a group: `w.int8/group_2` is group 2 of `w`, `w_quantized` is `w`.
  private static func base(ofIntegers name: String) -> (name: String, group: Int?) {
    if let range = name.lastRange(of: ".int8/group_"), let group = Int(name[range.upperBound...]) {
      return (String(name[..<range.lowerBound]) + "_transposed", group)
    }
    if name.hasSuffix(".int8") { return (String(name.dropLast(5)) + "_transposed", nil) }
    if name.hasSuffix("_quantized") { return (String(name.dropLast(10)), nil) }
    return (name + "/f32", nil)
  }
}

// MARK: - Names

extension ONNXWeights {
  /// Adds a weight under the name of the parameter that it is, as far as that can be found out.
  private mutating func add(_ tensor: StoredTensor) {
    var name = tensor.name
    for suffix in ["_DequantizeLinear_Output", "_quantized"] where name.hasSuffix(suffix) {
      name = String(name.dropLast(suffix.count))
    }
    if name.hasSuffix("_dequantized") { name = String(name.dropLast(12)) + "_transposed" }
    if name.hasSuffix(".stored") { return append(tensor.named(String(name.dropLast(7)))) }
    if name.hasSuffix("_transposed"), tensor.shape.rank == 2 {
      return append(tensor.viewed(axes: [1, 0]).named(String(name.dropLast(11))))
    }
    if let range = name.lastRange(of: "/kernels_"), tensor.shape.rank == 4 {
      return append(tensor.viewed(axes: [0, 2, 3, 1]).named(String(name[..<range.lowerBound])))
    }
    guard isAnonymous(name) else {
      // Shapes, axes and other numbers that a node wants are no weights.
      if tensor.dtype.isFloatingPoint || tensor.shape.rank > 1, !isAuxiliary(name) { append(tensor.named(name)) }
      return
    }
    guard tensor.dtype.isFloatingPoint, tensor.shape.elementCount > 1 else { return }
    addAnonymous(tensor, original: name)
  }

  /// True for the names that our exporter gives to numbers that are no parameters.
  private func isAuxiliary(_ name: String) -> Bool {
    ["integers/", "integer/", "number/", "averages/"].contains { name.hasPrefix($0) }
  }

  /// True for a name that an exporter made up: `onnx::MatMul_12`, or, where it tells which values are parameters, any other.
  private func isAnonymous(_ name: String) -> Bool {
    if name.hasPrefix("onnx::") || name.utf8.allSatisfy({ (0x30...0x39).contains($0) }) { return true }
    guard !model.remarks.isEmpty, model.producer == "pytorch" || model.remarks[name] != nil else { return false }
    return model.remarks[name]?.isParameter != true
  }

  private mutating func addAnonymous(_ tensor: StoredTensor, original: String) {
    let sources = (model.remarks[original]?.foldedFrom ?? []).filter { !$0.hasPrefix("val_") }
    // Values in between are listed too; what has a path is a parameter.
    let paths = sources.filter { $0.contains(".") }
    let folded = paths.isEmpty && sources.count == 1 ? sources : paths
    let dimensions = tensor.shape.dimensions
    if let table = folded.first(where: { $0.hasSuffix(ONNXWeights.biasTable) }), dimensions.count == 4 {
      return append(tensor.named(String(table.dropLast("_table".count))))
    }
    if folded.contains(where: { $0.hasSuffix(".q_bias") }), dimensions.count == 1, dimensions[0] % 3 == 0 {
      let prefix = folded.first { $0.hasSuffix(".q_bias") }?.dropLast(6) ?? ""
      return appendFusedBias(tensor, module: String(prefix))
    }
    if let matrix = node(reading: tensor.name, ["MatMul"], at: 1), dimensions.count == 2 {
      return addMatrix(tensor, matrix, folded.first)
    }
    if let name = folded.first, folded.count == 1 || dimensions.count == 3 {
      return append(name.hasSuffix("embed_positions.A.weight") ? withUnreadRows(tensor, name) : tensor.named(name))
    }
    addByReader(tensor)
  }

  /// A matrix [in, out] that was [out, in] in the module.
  private mutating func addMatrix(_ tensor: StoredTensor, _ node: ONNXFileNode, _ folded: String?) {
    let view = tensor.viewed(axes: [1, 0])
    if let folded { return append(view.named(folded)) }
    let add = node.outputs.first.flatMap { self.node(reading: $0, ["Add"]) }
    let bias = add?.inputs.first { values[$0] != nil }
    if let bias, bias.hasSuffix(".bias") { return append(view.named(String(bias.dropLast(4)) + "weight")) }
    guard let module = node.module else { return unknown.append(tensor) }
    // unilm and timm join the bias of a fused projection when they run, outside the layer's own module.
    guard let bias, let vector = values[bias], isAnonymous(bias), view.shape[0] == vector.shape.elementCount,
      view.shape[0] % 3 == 0, vector.shape.rank == 1
    else { return append(view.named(module + ".weight")) }
    append(view.named(module + ".qkv.weight"))
    appendFusedBias(vector, module: module + ".")
  }

  /// Cuts a bias of queries, keys and values, of which the keys' is zero, into its parts.
  private mutating func appendFusedBias(_ tensor: StoredTensor, module: String) {
    let count = tensor.shape.elementCount / 3
    append(tensor.part(0..<count, name: module + "q_bias"))
    append(tensor.part(2 * count..<3 * count, name: module + "v_bias"))
    used.insert(tensor.name)
  }

  private static let biasTable = "relative_position_bias_table"

  /// What only its reader tells: relative biases that were computed when the model was exported.
  private mutating func addByReader(_ tensor: StoredTensor) {
    let dimensions = tensor.shape.dimensions
    // Where the exporter tells what constants come from, one that comes from no parameter is a mask.
    if model.remarks.isEmpty, let add = node(reading: tensor.name, ["Add"]), let module = add.module,
      dimensions.count == 4, dimensions[0] == 1, dimensions[2] == dimensions[3]
    {
      return append(tensor.named(module + "." + ONNXWeights.biasTable.dropLast("_table".count)))
    }
    if let resize = node(reading: tensor.name, ["Resize"], at: 0), let module = resize.module, dimensions.count == 4,
      let last = model.nodes.first(where: { $0.type == "Concat" && $0.module == module })?.inputs
        .compactMap({ values[$0] }).first(where: {
          $0.shape.dimensions == [3, dimensions[1]] && $0.dtype == tensor.dtype
        })
    {
      // transformers resizes the table's square part on the way, to its own size.
      let square = tensor.viewed(axes: [2, 3, 1, 0])
      used.insert(last.name)
      guard let rows = Shape(checking: [dimensions[2] &* dimensions[3] &+ 3, dimensions[1]]) else { return }
      return append(
        StoredTensor(
          name: module + "." + ONNXWeights.biasTable, dtype: tensor.dtype, shape: rows,
          storage: JoinedStorage([square, last])))
    }
    unknown.append(tensor)
  }

  /// A table of positions without its first two rows, which torchscale never reads, and which the exporter has cut off.
  private mutating func withUnreadRows(_ tensor: StoredTensor, _ name: String) -> StoredTensor {
    let dimensions = tensor.shape.dimensions
    guard dimensions.count == 3, dimensions[0] == 1, let width = tensor.dtype.byteWidth,
      let whole = Shape(checking: [dimensions[1] &+ 2, dimensions[2]]), whole.byteCount(of: tensor.dtype) != nil
    else { return tensor.named(name) }
    let unread = StoredTensor(
      name: name, dtype: tensor.dtype, shape: [2, dimensions[2]],
      storage: MemoryStorage(AlignedBuffer(byteCount: 2 * dimensions[2] * width).bytes))
    notes.append("the first two rows of '\(name)', which nothing reads, are not in the file: they are zeros")
    return StoredTensor(
      name: name, dtype: tensor.dtype, shape: whole, storage: JoinedStorage([unread, tensor]))
  }
}

extension ONNXFileNode {
  /// True for the operators of the standard.
  var isStandard: Bool { domain.isEmpty || domain == "ai.onnx" }

  /// The path of the module that the node belongs to; nil where nothing tells. Torch writes it as the node's name,
  /// `/blocks/blocks.0/attn/MatMul`, or in the node's metadata.
  var module: String? {
    if scopes.count > 1 { return scopes[scopes.count - 2].isEmpty ? nil : scopes[scopes.count - 2] }
    guard name.hasPrefix("/") else { return nil }
    var path: [Substring] = []
    for part in name.split(separator: "/").dropLast() {
      // A container that is called itself stands twice: `blocks`, then `blocks.0`.
      if let last = path.last, part.hasPrefix(last + ".") { path.removeLast() }
      path.append(part)
    }
    return path.isEmpty ? nil : path.joined(separator: ".")
  }
}

extension String {
  /// The last place of a text in this one.
  func lastRange(of text: String) -> Range<String.Index>? {
    var end = endIndex
    while end > startIndex {
      let candidate = self[..<end]
      if candidate.hasSuffix(text) { return index(end, offsetBy: -text.count)..<end }
      end = index(before: end)
    }
    return nil
  }
}
