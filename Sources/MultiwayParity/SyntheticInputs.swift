public import MultiwayCore
public import MultiwayGraph

/// Inputs from a fixed seed, for when nobody gives real ones. Images are smooth, like photographs and unlike noise: a sum of random
/// grids from coarse to fine; texts are random token ids between the start and end tokens, some of them padded.
public enum SyntheticInputs {
  /// The number of text tokens of an example, where the model has positions for as many.
  private static let textTokens = 24

  /// More elements than these are refused: an artifact may claim any image size.
  private static let maximumElements = 1 << 28

  /// The sizes that the graph's symbols take in inputs of so many examples.
  public static func sizes(for graph: Graph, examples: Int) -> [String: Int] {
    var sizes: [String: Int] = [:]
    for symbol in graph.inputs.flatMap({ graph[$0].type.dimensions.compactMap(\.symbol) }) {
      sizes[symbol] = symbol == "text_tokens" ? min(textTokens, capacity(graph)) : examples
    }
    return sizes
  }

  /// Makes inputs for a graph. Throws `.tooLarge` where they would be larger than any model of the family needs.
  /// - Parameters:
  ///   - examples: the batch.
  ///   - seed: equal seeds make equal inputs, on every machine.
  public static func make(
    for graph: Graph, examples: Int, seed: UInt64 = 0
  ) throws(ParityError) -> [String: TensorValue] {
    var random = SeededNumbers(seed: seed)
    var inputs: [String: TensorValue] = [:]
    let sizes = sizes(for: graph, examples: examples)
    for id in graph.inputs {
      let value = graph[id]
      let dimensions = value.type.dimensions.map { $0.resolved(sizes) ?? 0 }
      guard let shape = Shape(checking: dimensions), shape.elementCount <= maximumElements else {
        throw ParityError(
          .tooLarge, "the input \(value.name): \(value.type) is too large to make for \(examples) examples",
          expected: "at most \(maximumElements) elements", remedy: "use fewer examples, or give inputs of your own")
      }
      switch value.type.dtype {
      case .f32: inputs[value.name] = images(shape, &random)
      case .u8: inputs[value.name] = padding(shape)
      default: inputs[value.name] = tokens(shape, vocabulary: vocabulary(graph, id), &random)
      }
    }
    return inputs
  }

  /// The most text tokens for which there are positions.
  private static func capacity(_ graph: Graph) -> Int {
    var capacity = Int.max
    for node in graph.nodes {
      guard case .addPositions(let table, let firstRow) = node.op else { continue }
      let tokens = graph[node.outputs[0]].type.dimensions[1]
      guard tokens.symbol == "text_tokens" else { continue }
      capacity = min(capacity, graph[table].data.shape[0] - firstRow - tokens.offset)
    }
    return max(1, capacity)
  }

  private static func vocabulary(_ graph: Graph, _ id: ValueID) -> Int {
    for node in graph.nodes where node.inputs.contains(id) {
      if case .embedding(let table) = node.op { return graph[table].data.shape[0] }
    }
    return 1
  }

  private static func images(_ shape: Shape, _ random: inout SeededNumbers) -> TensorValue {
    let (height, width) = shape.rank >= 2 ? (shape[shape.rank - 2], shape.last) : (1, shape.last)
    var elements = [Float](repeating: 0, count: shape.elementCount)
    for plane in 0..<shape.elementCount / max(1, height * width) {
      for (cells, weight) in [(3, Float(1)), (7, 0.6), (17, 0.35)] {
        let grid = (0..<(cells + 1) * (cells + 1)).map { _ in (random.uniform() * 2 - 1) * weight }
        for row in 0..<height {
          for column in 0..<width {
            let y = Float(row) / Float(height) * Float(cells)
            let x = Float(column) / Float(width) * Float(cells)
            elements[(plane * height + row) * width + column] += interpolate(grid, cells + 1, x, y)
          }
        }
      }
    }
    return TensorValue(shape, elements)
  }

  private static func interpolate(_ grid: [Float], _ side: Int, _ x: Float, _ y: Float) -> Float {
    let (column, row) = (Int(x), Int(y))
    let (right, down) = (x - Float(column), y - Float(row))
    let start = row * side + column
    let top = grid[start] * (1 - right) + grid[start + 1] * right
    let bottom = grid[start + side] * (1 - right) + grid[start + side + 1] * right
    return top * (1 - down) + bottom * down
  }

  /// Every second example has its last quarter padded.
  private static func padding(_ shape: Shape) -> TensorValue {
    let tokens = shape.last
    return TensorValue(
      shape,
      integers: (0..<shape.elementCount).map { index in
        index / tokens % 2 == 1 && index % tokens >= tokens - tokens / 4 ? 1 : 0
      })
  }

  private static func tokens(_ shape: Shape, vocabulary: Int, _ random: inout SeededNumbers) -> TensorValue {
    let ids = (0..<shape.elementCount).map { _ in
      min(vocabulary - 1, Int(random.uniform() * Float(vocabulary)))
    }
    return TensorValue(shape, integers: ids)
  }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct SeededNumbers {
  private var state: UInt64

  init(seed: UInt64) { state = seed &+ 0x6D75_6C74_6977_6179 }

  /// A number in 0..<1 with 24 random bits.
  mutating func uniform() -> Float {
    state &+= 0x9E37_79B9_7F4A_7C15
    var bits = state
    bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
    bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
    return Float((bits ^ (bits >> 31)) >> 40) * 0x1p-24
  }
}
