import MultiwayCore
import MultiwayGraph
import MultiwayTestSupport

/// A random chain of ops over two streams of tokens: another one for every seed, the same one for the same seed.
///
/// It ends in the pooled streams, so every op comes before something that shows its result.
struct RandomGraph {
  private var sketch: GraphSketch
  private var width: Int
  private var streams: [ValueID] = []
  private var mask: ValueID
  private var count = 0
  private let hasInt8: Bool

  var graph: Graph { sketch.graph }

  init(seed: UInt64, hasInt8: Bool) throws {
    sketch = GraphSketch(seed: seed)
    self.hasInt8 = hasInt8
    width = [4, 8, 12, 36][Int(sketch.numbers.next() % 4)]
    let image = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 2, 6, 4]))
    let text = sketch.graph.addInput("text", ValueType(.i64, [.symbol("batch"), .symbol("text_tokens")]))
    mask = sketch.graph.addInput("padding_mask", ValueType(.u8, [.symbol("batch"), .symbol("text_tokens")]))
    let patches = try sketch.add(.patchify(size: 2), image, name: "patches")
    let embedded = try sketch.add(
      sketch.linear("patch", outputs: width, inputs: 8, as: sketch.storage), patches, name: "embedded")
    let token = sketch.constant("token", [width])
    let vision = try sketch.add(.prependToken(token), embedded, name: "tokens")
    let table = sketch.constant("table", [7, width], as: sketch.storage)
    let words = try sketch.add(.embedding(table: table), text, name: "words")
    for (name, tokens) in [("vision", vision), ("text", words)] {
      let positions = sketch.constant(name + ".positions", [12, width], as: sketch.storage)
      streams.append(try sketch.add(.addPositions(table: positions, firstRow: 2), tokens, name: name + ".placed"))
    }
    streams[1] = try sketch.add(.zeroPadding, streams[1], mask, name: "text.padded")
    for _ in 0..<8 { try addOne() }
    try finish()
    try sketch.graph.verify()
  }

  private mutating func pick(_ count: Int) -> Int { Int(sketch.numbers.next() % UInt64(count)) }

  private mutating func name(_ op: String) -> String {
    count += 1
    return "\(op).\(count)"
  }

  private mutating func add(_ op: Op, _ inputs: ValueID...) throws -> ValueID {
    let name = name(op.name)
    return try sketch.graph.add(op, inputs, names: [name], role: nil, modality: .shared)[0]
  }

  private mutating func linear(_ inputs: Int, _ outputs: Int) -> Op {
    let name = name("weights")
    let hasBias = pick(2) == 0
    if hasInt8, pick(2) == 0 {
      let groups = [1, 2, 3].filter { $0 == 1 || inputs % ($0 * QuantizedMatrix.panelInputs) == 0 }
      return sketch.quantizedLinear(
        name, outputs: outputs, inputs: inputs, groups: groups[pick(groups.count)], hasBias: hasBias)
    }
    return sketch.linear(name, outputs: outputs, inputs: inputs, hasBias: hasBias, as: sketch.storage)
  }

  /// A block of the kind that real models have, or a single op.
  private mutating func addOne() throws {
    let place = pick(2)
    let x = streams[place]
    switch pick(11) {
    case 0: streams[place] = try add(.tanh, x)
    case 1: streams[place] = try add(.scale(by: 0.75), x)
    case 2: streams[place] = try add(.normalizeL2, x)
    case 3: streams[place] = try add(.add, x, x)
    case 4, 5: streams[place] = try feedForward(x)
    case 6: try attend(streams: [0, 1])
    case 7: try attend(streams: [place])
    case 8: streams[place] = try add(.scaleChannels(sketch.constant(name("factors"), [width])), x)
    case 9: streams[place] = try add(.add, x, try add(.relu, x))
    default:
      let norm = sketch.norm(name("norm"), width, hasWeight: pick(2) == 0, hasBias: pick(2) == 0)
      streams[place] = try add(norm, x)
    }
  }

  private mutating func feedForward(_ x: ValueID) throws -> ValueID {
    let inner = [3, 16, 24, 65][pick(4)]
    let normed = try add(sketch.norm(name("norm"), width), x)
    let hidden = try add(linear(width, inner), normed)
    let active = try add(.gelu, hidden)
    let result = try add(linear(inner, width), active)
    // Either order, with the residual made before or after the layer.
    switch pick(3) {
    case 0: return try add(.add, x, result)
    case 1: return try add(.add, result, x)
    default: return try add(.add, result, try add(.tanh, x))
    }
  }

  private mutating func attend(streams places: [Int]) throws {
    let heads = [1, 2, 4][pick(3)]
    var attention = Attention(heads: heads, isPadded: places.last == 1 && pick(3) > 0)
    if pick(3) == 0 { attention.mask = .caption }
    if pick(3) == 0 {
      attention.bias = bias(places, heads: heads)
    } else if pick(2) == 0 {
      attention.memories = 1 + pick(2)
    }
    var inputs: [ValueID] = []
    for _ in 0..<attention.memories {
      let source = streams[pick(2)]
      inputs += [try add(linear(width, width), source), try add(linear(width, width), source)]
    }
    let sameScale = pick(3) > 0
    for place in places {
      let normed = try add(sketch.norm(name("norm"), width), streams[place])
      let query = try add(linear(width, width), normed)
      let scaled = try add(.scale(by: sameScale || place == 0 ? 0.5 : 0.25), query)
      inputs += [scaled, try add(linear(width, width), normed), try add(linear(width, width), normed)]
      // Now and then something else reads the scaled query as well.
      if pick(4) == 0 { sketch.output(name("seen"), scaled) }
    }
    if attention.isPadded { inputs.append(mask) }
    let names = places.map { _ in name("attention") }
    let outputs = try sketch.graph.add(
      .attention(attention), inputs, names: names, role: nil, modality: .shared)
    for (place, output) in zip(places, outputs) { streams[place] = try add(.add, streams[place], output) }
  }

  /// A bias over all tokens of the streams; texts have at most ten.
  private mutating func bias(_ places: [Int], heads: Int) -> RelativeBias {
    let rows = 1 + pick(9)
    let tokens = places.reduce(0) { $0 + (sketch.graph[streams[$1]].type.dimensions[1].size ?? 10) }
    let indices = (0..<tokens * tokens).map { _ in Int16(pick(rows)) }
    let stored = StoredTensor(name: "index", dtype: .i16, shape: [tokens, tokens], elements: indices)
    let index = Constant(
      name: name("index"), role: .relativePositionIndex, modality: .shared, data: .stored(stored))
    return RelativeBias(
      table: sketch.constant(name("bias"), [rows, heads], as: sketch.storage, role: .relativePositionBias),
      index: sketch.graph.addConstant(index))
  }

  private mutating func finish() throws {
    let joined = try add(.joinTokens, streams[0], streams[1])
    sketch.output("features", joined)
    sketch.output("mean", try add(.meanTokens(first: 1), streams[0]))
    sketch.output("patches", try add(.dropTokens(first: 1 + pick(6)), streams[0]))
    let token = try add(.selectToken(0), joined)
    sketch.output("logits", try add(linear(width, 5), token))
  }
}

extension GraphSketch {
  /// One of the types that weights are stored in.
  fileprivate var storage: DType {
    mutating get { [.f32, .f16, .bf16][Int(numbers.next() % 3)] }
  }
}
