import MultiwayCore
import MultiwayGraph

/// A batch goes through the model a few examples at a time: what a layer writes is then still in the caches when the next one reads it,
/// and memory does not grow with the batch. No example depends on the others, so the results are the same bits.
extension Session {
  /// Rows a thread needs so that reading the weights again for every slice costs less than activations that fall out of the caches: int8
  /// panels are used as they are, others are decoded once for all rows of a slice.
  private static let leastRows = (int8: 96, float: 384)

  /// The sizes of a slice; the given ones where the batch goes through at once: it is small, or inputs and outputs do not share it.
  func slice(of symbols: [String: Int]) -> [String: Int] {
    guard let batchSymbol, let batch = symbols[batchSymbol], batch > 1 else { return symbols }
    var one = symbols
    one[batchSymbol] = 1
    let rows = program.longestRows(one)
    let least = (program.isMostlyInt8 ? Self.leastRows.int8 : Self.leastRows.float) * threadCount
    let most = max(1, (least + rows - 1) / max(1, rows))
    guard most < batch else { return symbols }
    let slices = (batch + most - 1) / most
    one[batchSymbol] = (batch + slices - 1) / slices
    return one
  }

  /// Runs slices one after the other.
  func runSliced(
    _ inputs: BoundInputs, in workspace: inout Workspace, slice: Int
  ) throws -> [(name: String, value: TensorValue)] {
    guard let batchSymbol, let batch = inputs.symbols[batchSymbol] else { return [] }
    var parts: [[TensorValue]] = [[TensorValue]](repeating: [], count: program.outputs.count)
    for first in stride(from: 0, to: batch, by: slice) {
      let part = inputs.examples(first..<min(batch, first + slice), of: batchSymbol)
      for (place, output) in try runAtOnce(part, in: &workspace, reusesKept: false).enumerated() {
        parts[place].append(output.value)
      }
    }
    return zip(program.outputs, parts).map { ($0.name, TensorValue(joining: $1)) }
  }

  /// The symbol that is the first dimension of all inputs and outputs, nil where there is none: each example is by itself then.
  static func batchSymbol(of graph: Graph) -> String? {
    let values = graph.inputs + graph.outputs.map(\.value)
    let first = Set(values.map { graph[$0].type.dimensions.first.flatMap { $0.offset == 0 ? $0.symbol : nil } })
    return first.count == 1 ? first.first ?? nil : nil
  }
}

extension Program {
  /// The most rows that a matrix product of the program has.
  fileprivate func longestRows(_ symbols: [String: Int]) -> Int {
    var longest = 1
    for step in steps where step.operation.isProduct {
      let dimensions = buffers[step.reads[0].index].type.dimensions.dropLast()
      var rows = 1
      for dimension in dimensions {
        let (next, overflow) = rows.multipliedReportingOverflow(by: dimension.resolved(symbols) ?? 1)
        rows = overflow ? Int.max : next
      }
      longest = max(longest, rows)
    }
    return longest
  }

  /// Whether more products are of int8 than of floating-point numbers.
  fileprivate var isMostlyInt8: Bool {
    let products = steps.filter { $0.operation.isProduct }
    let int8 = products.filter { if case .quantizedLinear = $0.operation { true } else { false } }
    return 2 * int8.count > products.count
  }
}

extension Step.Operation {
  fileprivate var isProduct: Bool {
    switch self {
    case .linear, .quantizedLinear, .blockLinear, .roundedLinear: true
    default: false
    }
  }
}
