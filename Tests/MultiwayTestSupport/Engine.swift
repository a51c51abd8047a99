public import MultiwayCore
public import MultiwayGraph
public import MultiwayKernels
import MultiwayReference
import MultiwayRuntime

/// The two implementations of the graph.
public enum Engine: String, CaseIterable, Sendable {
  /// The slow interpreter.
  case reference
  /// The kernels.
  case runtime

  /// The outputs of a graph by name.
  public func run(_ graph: Graph, _ inputs: [String: TensorValue]) throws -> [String: TensorValue] {
    let outputs =
      switch self {
      case .reference: try Reference(graph, threads: 1).run(inputs)
      case .runtime: try Session(graph, threads: 2).run(inputs)
      }
    return Dictionary(uniqueKeysWithValues: outputs.map { ($0.name, $0.value) })
  }

  /// True where an example gives the same numbers whatever else is in the batch: to the last bit with the kernels; OpenBLAS, which the
  /// interpreter calls, picks its routine by the number of rows on some CPUs.
  public func isTheSame(_ values: TensorValue?, inAnotherBatch others: TensorValue?) -> Bool {
    guard let values, let others, values.shape == others.shape else { return false }
    switch self {
    case .runtime: return values == others
    case .reference: return decibels(values, others) > 100
    }
  }
}

/// Every value of a graph by name, as the reference interpreter makes them.
public func referenceValues(
  _ graph: Graph, _ inputs: [String: TensorValue]
) throws -> [String: TensorValue] {
  var values: [String: TensorValue] = [:]
  let outputs = try Reference(graph, threads: 1).run(inputs) { values[$0] = $1 }
  for (name, value) in outputs { values[name] = value }
  return values
}

/// The outputs of a graph on one instruction set and number of threads.
public func runtimeOutputs(
  _ graph: Graph, _ inputs: [String: TensorValue], isa: ISA, threads: Int
) throws -> [String: TensorValue] {
  let outputs = try Session(graph, isa: isa, threads: threads).run(inputs)
  return Dictionary(uniqueKeysWithValues: outputs.map { ($0.name, $0.value) })
}
