public import MultiwayCore

/// The inputs of many examples, to be cut into parts where all inputs share one batch.
public struct ExampleBatches: Sendable {
  private let inputs: [String: TensorValue]
  private let isDivisible: Bool
  /// The number of examples.
  public let count: Int

  /// Looks at the inputs of a graph; whether they fit it is for `Graph.bind` to say.
  public init(_ inputs: [String: TensorValue], for graph: Graph) {
    self.inputs = inputs
    let symbols = Set(graph.inputs.compactMap { graph[$0].type.dimensions.first?.symbol })
    let counts = Set(inputs.values.map { $0.shape.dimensions.first ?? 0 })
    isDivisible = symbols.count == 1 && counts.count == 1
    count = counts.max() ?? 0
  }

  /// Ranges of at most `size` examples; one range of all where the inputs cannot be cut.
  public func ranges(of size: Int) -> [Range<Int>] {
    guard isDivisible, count > 0 else { return [0..<count] }
    return stride(from: 0, to: count, by: max(1, size)).map { $0..<min(count, $0 + size) }
  }

  /// The inputs of a range of examples.
  public func part(_ range: Range<Int>) -> [String: TensorValue] {
    isDivisible ? inputs.mapValues { $0.rows(range) } : inputs
  }
}
