import MultiwayCore
public import MultiwayGraph

extension QuantizedLinear {
  /// The fp32 matrix [outputs, inputs] that the layer's int8 weights stand for or, where they are not computed yet, that they will be computed
  /// from.
  public func matrix(in graph: Graph) -> TensorExpression {
    let panels = graph[panels].data
    if case .quantized(let matrix, _) = panels { return matrix.weight }
    let name = graph[self.panels].name
    return .stored(
      StoredTensor(
        name: name, dtype: .f32, shape: [outputs, inputs],
        storage: PanelNumbers(self, panels: panels, scales: graph[scales].data, name: name)))
  }
}

extension Graph {
  /// The graph with a floating-point layer in place of every int8 one, whose weight has the name that it had before it was quantized.
  public func dequantized() -> Graph {
    var graph = self
    var weights: [ConstantID: ConstantID] = [:]
    for position in graph.nodes.indices {
      guard case .quantizedLinear(let linear) = graph.nodes[position].op else { continue }
      let weight = weights[linear.panels] ?? graph.addWeight(of: linear)
      weights[linear.panels] = weight
      graph.nodes[position].op = .linear(weight: weight, bias: linear.bias)
    }
    if !weights.isEmpty { graph.removeDeadCode() }
    return graph
  }

  /// The graph with int8 layers that have one scale for each output, whatever number of groups they were cut into.
  public func withoutGroups() -> Graph {
    var graph = self
    var parts: [ConstantID: [ConstantID]] = [:]
    for position in graph.nodes.indices {
      guard case .quantizedLinear(var linear) = graph.nodes[position].op, linear.groups > 1 else { continue }
      let whole = parts[linear.panels] ?? graph.addWhole(linear)
      parts[linear.panels] = whole
      (linear.panels, linear.scales, linear.sums, linear.groups) = (whole[0], whole[1], whole[2], 1)
      graph.nodes[position].op = .quantizedLinear(linear)
    }
    if !parts.isEmpty { graph.removeDeadCode() }
    return graph
  }

  private mutating func addWeight(of linear: QuantizedLinear) -> ConstantID {
    let panels = self[linear.panels]
    let name = panels.name.hasSuffix(".int8") ? String(panels.name.dropLast(5)) : panels.name + ".weight"
    return addConstant(
      Constant(name: name, role: panels.role, modality: panels.modality, data: linear.matrix(in: self)))
  }

  /// Quantizes a layer's matrix anew; the constants take the places of the old ones.
  private mutating func addWhole(_ linear: QuantizedLinear) -> [ConstantID] {
    let matrix = QuantizedMatrix(linear.matrix(in: self), groups: 1)
    let old: [(ConstantID, QuantizedMatrix.Component)] = [
      (linear.panels, .panels), (linear.scales, .scales), (linear.sums, .sums),
    ]
    return old.map { id, component in
      let name = self[id].name
      self[id].name = name + "/groups"
      return addConstant(
        Constant(
          name: name, role: self[id].role, modality: self[id].modality, data: .quantized(matrix, component)))
    }
  }
}

/// The numbers that panels and scales stand for, in C order, computed when they are asked for.
private final class PanelNumbers: TensorStorage {
  private let linear: QuantizedLinear
  private let panels: TensorExpression
  private let scales: TensorExpression
  private let name: String

  init(_ linear: QuantizedLinear, panels: TensorExpression, scales: TensorExpression, name: String) {
    self.linear = linear
    self.panels = panels
    self.scales = scales
    self.name = name
  }

  // Type inference has bounded both.
  var byteCount: Int { linear.outputs * linear.inputs * 4 }

  func load() throws(TensorError) -> TensorBytes {
    var materializer = Materializer(discardsSources: true)
    do {
      let elements = try materializer.bytes(of: panels).array(of: Int8.self)
      let factors = try materializer.floats(of: scales)
      var numbers = [Float](repeating: 0, count: linear.outputs * linear.inputs)
      let length = linear.inputs / linear.groups
      for output in 0..<linear.outputs {
        for input in 0..<linear.inputs {
          let element = elements[Int8Panels.offset(output: output, input: input, inputs: linear.inputs)]
          numbers[output * linear.inputs + input] = Float(element) * factors[input / length * linear.outputs + output]
        }
      }
      return TensorBytes(copying: numbers)
    } catch let error as TensorError {
      throw error
    } catch let error as any DiagnosedError {
      throw TensorError(.unsupported, error.diagnosis)
    } catch {
      throw TensorError(.corrupt, "\(error)", tensor: name)
    }
  }

  var origins: [StoredTensor]? { (panels.sources + scales.sources).flatMap(\.sources) }

  func discard() {
    for source in panels.sources + scales.sources { source.discard() }
  }
}
