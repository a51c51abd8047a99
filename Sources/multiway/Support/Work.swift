import MultiwayCore
import MultiwayGraph

/// The multiply-adds of a graph for given sizes, two operations each.
struct Work {
  /// In int8 layers.
  private(set) var int8 = 0.0
  /// In floating-point layers and attention.
  private(set) var float = 0.0

  var total: Double { int8 + float }

  init(_ graph: Graph, _ symbols: [String: Int]) {
    func sizes(_ id: ValueID) -> [Double] {
      graph[id].type.dimensions.map { Double($0.resolved(symbols) ?? 0) }
    }
    for node in graph.nodes {
      let input = sizes(node.inputs[0])
      let rows = input.dropLast().reduce(1, *)
      switch node.op {
      case .linear(let weight, _): float += 2 * rows * Double(graph[weight].data.shape.elementCount)
      case .quantizedLinear(let linear): int8 += 2 * rows * Double(linear.inputs) * Double(linear.outputs)
      case .attention(let attention):
        let queries = node.outputs.reduce(0) { $0 + sizes($1)[1] }
        let keys = (0..<attention.memories).reduce(queries) { $0 + sizes(node.inputs[attention.memoryPlace($1)])[1] }
        let output = sizes(node.outputs[0])
        float += 4 * output[0] * queries * keys * output[2]
      default: break
      }
    }
  }
}
