import MultiwayCore
import MultiwayGraph
import MultiwayReference

/// How far one linear layer of the candidate is from the reference's.
public struct LayerComparison: Sendable, Hashable {
  /// On the reference's own activations: the error that the layer itself adds.
  public var local: Comparison
  /// On the candidate's activations: the error that has gathered up to here.
  public var cumulative: Comparison
  /// The largest magnitude of the layer's input over its root mean square: what makes int8 coarse.
  public var inputPeak: Double

  /// The layer's name.
  public var name: String { local.name }
}

/// Compares every linear layer of two graphs of one model. Layers are matched by the names of their results, which passes keep as long as
/// the values mean the same.
struct LayerVerification {
  let reference: Graph
  let candidate: Graph
  let threads: Int?

  func run(
    reference referenceInputs: [String: TensorValue], candidate candidateInputs: [String: TensorValue]
  ) throws -> [LayerComparison] {
    let referenceNames = Set(reference.values.map(\.name))
    let layers = candidate.nodes.filter { node in
      isLinear(node) && referenceNames.contains(candidate[node.outputs[0]].name)
    }
    let wanted = neededNames(layers, referenceNames)
    var expected: [String: TensorValue] = [:]
    _ = try Reference(reference, threads: threads).run(referenceInputs) { name, value in
      if wanted.contains(name) { expected[name] = value }
    }
    let names = Set(layers.map { candidate[$0.outputs[0]].name })
    var cumulative: [String: Comparison] = [:]
    _ = try Reference(candidate, threads: threads).run(candidateInputs) { name, value in
      if names.contains(name), let left = expected[name] { cumulative[name] = compare(name, left, value) }
    }
    let interpreter = Reference(candidate, threads: threads)
    var results: [LayerComparison] = []
    for node in layers {
      let name = candidate[node.outputs[0]].name
      guard let left = expected[name], let gathered = cumulative[name] else { continue }
      let input = try value(node.inputs[0], expected, interpreter)
      let right = try interpreter.evaluate(node, inputs: [input])[0]
      results.append(
        LayerComparison(local: compare(name, left, right), cumulative: gathered, inputPeak: peak(input.floats)))
    }
    return results
  }

  private func isLinear(_ node: Node) -> Bool {
    switch node.op {
    case .linear, .quantizedLinear, .featureMap(.convolution, _): true
    default: false
    }
  }

  /// A value of the candidate on the reference's activations: the reference's own where it has it, computed from what it has else.
  private func value(
    _ id: ValueID, _ expected: [String: TensorValue], _ interpreter: Reference
  ) throws -> TensorValue {
    if let value = expected[candidate[id].name] { return value }
    guard let node = candidate.nodes.first(where: { $0.outputs.contains(id) }), node.outputs.count == 1 else {
      throw ParityError(.incomparable, "the reference has no value to start from", node: candidate[id].name)
    }
    let inputs = try node.inputs.map { try value($0, expected, interpreter) }
    return try interpreter.evaluate(node, inputs: inputs)[0]
  }

  /// The names of the reference's values that `value` will ask for, and those of the layers' results.
  private func neededNames(_ layers: [Node], _ referenceNames: Set<String>) -> Set<String> {
    let producers = candidate.producers()
    var names = Set(layers.map { candidate[$0.outputs[0]].name })
    var pending = layers.map { $0.inputs[0] }
    var seen = Set(pending)
    while let id = pending.popLast() {
      if referenceNames.contains(candidate[id].name) {
        names.insert(candidate[id].name)
      } else if let producer = producers[id.index] {
        for input in candidate.nodes[producer].inputs where seen.insert(input).inserted { pending.append(input) }
      }
    }
    return names
  }

  private func compare(_ name: String, _ reference: TensorValue, _ candidate: TensorValue) -> Comparison {
    var accumulator = ComparisonAccumulator()
    accumulator.add(reference: reference, candidate: candidate)
    return accumulator.result(name: name)
  }

  private func peak(_ values: [Float]) -> Double {
    var (largest, squares) = (0.0, 0.0)
    for value in values where value.isFinite {
      largest = max(largest, Double(abs(value)))
      squares += Double(value) * Double(value)
    }
    let root = (squares / Double(max(1, values.count))).squareRoot()
    return root == 0 ? 0 : largest / root
  }
}
