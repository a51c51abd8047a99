public import MultiwayCore

/// A captioning graph split for writing a text token by token, as the original does it (unilm `beit3/engine_for_finetuning.py`): the
/// last word and a mask token go in, the logits at the mask are those of the next word, and the mask is forgotten.
///
///     logits = captioning(image, text)     │   logits, image keys and values, text keys and values = opening(image, text[0..<2])
///                                          │   logits, text keys and values = step(text[n - 2..<n], positions, image keys …, text keys …)
///
/// The image attends to itself alone, so its keys and values are made once and shared by all texts about it. Both graphs are the
/// captioning graph with nodes taken out and inputs put in: they read the same constants, whatever recipe made them.
public struct CaptionDecoding: Sendable {
  /// image [batch, …] and text [batch, text_tokens] → logits [batch, vocabulary] of the second token; keys and values.
  public let opening: Graph
  /// text and positions [batch, text_tokens], the image's keys and values [images, …], the text's so far [batch, cached_tokens, …] →
  /// logits [batch, vocabulary] of the second token; keys and values of the new tokens.
  public let step: Graph
  /// The number of attentions, each with keys and values of its own.
  public let layers: Int
  /// The number of logits.
  public let vocabulary: Int
  /// The row of the position table for the first token of a text.
  public let firstPosition: Int
  /// The most tokens of a text.
  public let capacity: Int

  /// The input of `step` with the rows of the position table, one for each token.
  public static let positionsName = "positions"

  /// What goes from one run to the next.
  public enum State: String, CaseIterable, Sendable {
    /// Keys of the image.
    case imageKey = "image_key"
    /// Values of the image.
    case imageValue = "image_value"
    /// Keys of the text.
    case textKey = "text_key"
    /// Values of the text.
    case textValue = "text_value"

    /// The name of the input and output of a layer.
    public func name(_ layer: Int) -> String { "\(rawValue).\(layer)" }
  }

  /// The most tokens of a text of a graph that captions images, nil for other graphs.
  public static func capacity(of graph: Graph) -> Int? { (try? CaptioningParts(graph))?.capacity(graph) }

  /// Splits a graph. Throws `.unsupported` for one that is not for captioning.
  public init(_ graph: Graph) throws(GraphError) {
    let parts = try CaptioningParts(graph)
    opening = try parts.opening(graph)
    step = try parts.step(graph)
    layers = parts.attentions.count
    vocabulary = parts.vocabulary
    firstPosition = parts.firstRow
    capacity = parts.capacity(graph)
  }
}

/// The nodes of a captioning graph that the split looks at, by their place.
private struct CaptioningParts {
  let text: ValueID
  let attentions: [Int]
  let positions: Int
  let table: ConstantID
  let firstRow: Int
  let vocabulary: Int

  init(_ graph: Graph) throws(GraphError) {
    func fail(_ found: String) -> GraphError {
      GraphError(.unsupported, found, expected: "a captioning model: image and text under a caption mask to logits")
    }
    let names = graph.inputs.map { graph[$0].name }
    guard let text = graph.inputs.first(where: { graph[$0].name == "text" }), names.contains("image"),
      names.allSatisfy({ ["image", "text", Graph.paddingMaskName].contains($0) }), graph.outputs.count == 1,
      graph.outputs[0].name == "logits", let symbol = graph[text].type.dimensions.last?.symbol
    else {
      throw fail(
        "inputs \(names.joined(separator: ", ")), outputs \(graph.outputs.map(\.name).joined(separator: ", "))")
    }
    let logits = graph[graph.outputs[0].value].type.dimensions
    guard logits.count == 3, logits[1].symbol == symbol, let vocabulary = logits[2].size else {
      throw fail("logits \(graph[graph.outputs[0].value].type)")
    }
    var (attentions, placed): ([Int], [(place: Int, table: ConstantID, firstRow: Int)]) = ([], [])
    for (place, node) in graph.nodes.enumerated() {
      guard node.outputs.contains(where: { graph[$0].type.dimensions.dropFirst().first?.symbol == symbol }) else {
        continue
      }
      switch node.op {
      case .attention(let attention):
        guard node.outputs.count == 2, attention.mask == .caption, attention.memories == 0, attention.bias == nil else {
          throw fail("attention without a caption mask over image and text")
        }
        attentions.append(place)
      case .addPositions(let table, let firstRow): placed.append((place, table, firstRow))
      case .embedding, .zeroPadding, .add: break
      default: if !node.op.isTokenwise { throw fail("\(node.op.name) over text tokens") }
      }
    }
    guard placed.count == 1, !attentions.isEmpty else { throw fail("\(placed.count) additions of text positions") }
    self.text = text
    self.attentions = attentions
    (positions, table, firstRow) = placed[0]
    self.vocabulary = vocabulary
  }

  func capacity(_ graph: Graph) -> Int { graph[table].data.shape[0] - firstRow }

  func opening(_ graph: Graph) throws(GraphError) -> Graph {
    var opening = graph
    for (layer, place) in attentions.enumerated() {
      opening.expose([.imageKey, .imageValue], graph.nodes[place].inputs[1...2], layer)
      opening.expose([.textKey, .textValue], graph.nodes[place].inputs[4...5], layer)
    }
    opening.removePadding()
    try opening.selectSecondToken()
    opening.removeDeadCode()
    return opening
  }

  func step(_ graph: Graph) throws(GraphError) -> Graph {
    var step = graph
    let tokens = graph[text].type.dimensions
    for (layer, place) in attentions.enumerated() {
      guard case .attention(let attention) = graph.nodes[place].op else { continue }
      let inputs = graph.nodes[place].inputs
      let types = [graph[inputs[1]].type, graph[inputs[4]].type]
      var memories: [ValueID] = []
      for (states, type, axes) in [
        (
          [CaptionDecoding.State.imageKey, .imageValue], types[0], [Dimension.symbol("images"), types[0].dimensions[1]]
        ),
        ([.textKey, .textValue], types[1], [tokens[0], .symbol("cached_tokens")]),
      ] {
        for state in states {
          memories.append(step.addInput(state.name(layer), ValueType(.f32, axes + type.dimensions.suffix(1))))
        }
      }
      step.nodes[place].op = .attention(
        Attention(
          heads: attention.heads, mask: .caption, memories: 2, isQuantized: attention.isQuantized))
      step.nodes[place].inputs = memories + inputs[3...5]
      step.nodes[place].outputs = [graph.nodes[place].outputs[1]]
      step.expose([.textKey, .textValue], inputs[4...5], layer)
    }
    try step.lookUpPositions(at: positions, table: table, tokens)
    step.removePadding()
    try step.selectSecondToken()
    step.removeDeadCode()
    return step
  }
}

extension Op {
  /// True for the ops of one input that treat every token by itself.
  fileprivate var isTokenwise: Bool {
    switch self {
    case .layerNorm, .linear, .quantizedLinear, .scale, .scaleChannels, .gelu, .tanh, .relu, .normalizeL2: true
    default: false
    }
  }
}

extension Graph {
  /// Makes values outputs under the names of a layer's state.
  fileprivate mutating func expose(_ states: [CaptionDecoding.State], _ values: ArraySlice<ValueID>, _ layer: Int) {
    for (state, value) in zip(states, values) { outputs.append(GraphOutput(name: state.name(layer), value: value)) }
  }

  /// Takes the padding mask out: nothing is padded.
  fileprivate mutating func removePadding() {
    for position in nodes.indices {
      switch nodes[position].op {
      case .attention(var attention) where attention.isPadded:
        attention.isPadded = false
        nodes[position].op = .attention(attention)
        nodes[position].inputs = nodes[position].inputs.filter { self[$0].type.dtype == .f32 }
      case .zeroPadding: replaceUses(of: nodes[position].outputs[0], with: nodes[position].inputs[0])
      default: continue
      }
    }
  }

  /// Positions come from an input instead of the order of the tokens.
  fileprivate mutating func lookUpPositions(
    at position: Int, table: ConstantID, _ tokens: [Dimension]
  ) throws(GraphError) {
    let rows = addInput(CaptionDecoding.positionsName, ValueType(.i64, tokens))
    let node = nodes[position]
    let name = self[node.outputs[0]].name + ".positions"
    let found = try add(.embedding(table: table), rows, name: name, role: node.role, modality: node.modality)
    let lookup = nodes.removeLast()
    nodes[position].op = .add
    nodes[position].inputs.append(found)
    nodes.insert(lookup, at: position)
  }

  /// Takes the second token before the layers that make the logits, the first output, of all tokens.
  fileprivate mutating func selectSecondToken() throws(GraphError) {
    let (producers, consumers) = (producers(), consumers())
    var value = outputs[0].value
    var layers: [Int] = []
    while let producer = producers[value.index], nodes[producer].op.isTokenwise,
      consumers[nodes[producer].inputs[0].index].count == 1
    {
      layers.insert(producer, at: 0)
      value = nodes[producer].inputs[0]
    }
    let selected = try add(.selectToken(1), value, name: self[value].name + ".second", modality: .text)
    guard let first = layers.first else {
      outputs[0].value = selected
      return
    }
    nodes[first].inputs = [selected]
    for layer in layers {
      for (output, type) in zip(nodes[layer].outputs, try TypeInference(self, nodes[layer]).outputTypes()) {
        self[output].type = type
      }
    }
    nodes.insert(nodes.removeLast(), at: first)
  }
}
