public import MultiwayCore
public import MultiwayGraph
import MultiwayQuantization

/// The slow interpreter that says what every op means.
///
/// It works in fp32 with plain loops and OpenBLAS and shares no code with the kernels, so that an error in one of the two shows
/// up as a difference. Sums inside norms and means are taken in double precision. The weights of one node are in memory at a
/// time, and a value is freed after its last use.
public struct Reference: Sendable {
  /// The most elements that a value may have.
  public static let maximumElements = 1 << 31

  private let graph: Graph

  /// Makes an interpreter of `graph`.
  /// - Parameter threads: the threads of OpenBLAS, which are the whole process's; nil leaves them at one for each core.
  public init(_ graph: Graph, threads: Int? = nil) {
    self.graph = graph
    if let threads { BLAS.setThreads(threads) }
  }

  /// Ends the threads that OpenBLAS has started as it was loaded, and that keep the other cores busy for the first 25 ms of a process. They
  /// come back when an interpreter needs them. Call it before anything else runs.
  public static func endIdleThreads() { BLAS.endThreads() }

  /// Runs the graph.
  /// - Parameters:
  ///   - inputs: by name; `Graph.bind` says what they may be.
  ///   - observe: called with the name and the elements of every value in execution order, the inputs first.
  /// - Returns: the outputs in the order of the graph.
  public func run(
    _ inputs: [String: TensorValue], observe: ((String, TensorValue) -> Void)? = nil
  ) throws -> [(name: String, value: TensorValue)] {
    try graph.verify()
    var values = [TensorValue?](repeating: nil, count: graph.values.count)
    for (id, value) in zip(graph.inputs, try graph.bind(inputs).tensors) {
      observe?(graph[id].name, value)
      values[id.index] = value
    }
    let readers = readerCounts()
    var pending = readers
    for node in graph.nodes {
      let results = try evaluate(node, inputs: node.inputs.compactMap { values[$0.index] })
      for (id, value) in zip(node.outputs, results) {
        observe?(graph[id].name, value)
        values[id.index] = readers[id.index] > 0 ? value : nil
      }
      for id in node.inputs {
        pending[id.index] -= 1
        if pending[id.index] == 0 { values[id.index] = nil }
      }
    }
    return graph.outputs.compactMap { output in values[output.value.index].map { (output.name, $0) } }
  }

  /// Evaluates one node of the graph, which must be verified, on inputs that may come from elsewhere: so the error that one
  /// layer adds is told from the error that it was given.
  public func evaluate(_ node: Node, inputs: [TensorValue]) throws -> [TensorValue] {
    var binding = InputBinding()
    guard node.inputs.count == inputs.count else {
      throw ReferenceError(
        .invalidInput, "\(inputs.count) inputs for \(node.op.name)", expected: "\(node.inputs.count)",
        node: node.outputs.first.map { graph[$0].name })
    }
    let checked = zip(node.inputs, inputs).map { id, value in binding.bind(graph[id], to: value) }
    try binding.throwProblems(node: node.outputs.first.map { graph[$0].name })
    let shapes = try node.outputs.map { id throws in try binding.shape(of: graph[id]) }
    var evaluation = NodeEvaluation(graph: graph, node: node, inputs: checked, shapes: shapes)
    return try evaluation.evaluate()
  }

  /// How many times each value is read, an output counting as one reader.
  private func readerCounts() -> [Int] {
    var counts = [Int](repeating: 0, count: graph.values.count)
    for node in graph.nodes {
      for id in node.inputs { counts[id.index] += 1 }
    }
    for output in graph.outputs { counts[output.value.index] += 1 }
    return counts
  }
}
