public import MultiwayCore
public import MultiwayGraph

/// A graph with every op that has floating-point weights, in the variants that differ in what is made of them. All of its numbers
/// come from a seed.
public enum OperatorSketch {
  /// The graph. Inputs: an image, token ids with their padding, and keys and values of other examples.
  public static func graph() throws -> Graph {
    var sketch = GraphSketch(seed: 7)
    let image = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 3, 6, 10]))
    let text = sketch.graph.addInput("text", ValueType(.i64, [.symbol("batch"), .symbol("text_tokens")]))
    let mask = sketch.graph.addInput("padding_mask", ValueType(.u8, [.symbol("batch"), .symbol("text_tokens")]))
    let vision = try visionTokens(&sketch, image)
    let words = try textTokens(&sketch, text, mask)
    try attentions(&sketch, vision, words, mask)
    try featureMaps(&sketch, vision)
    try vectors(&sketch, vision, words)
    return sketch.graph
  }

  /// Inputs for it: two images' worth of shared keys for four examples, the last of which is nothing but padding.
  public static func inputs() throws -> [String: TensorValue] {
    var numbers = SeededGenerator(seed: 8)
    func floats(_ shape: Shape) -> TensorValue { TensorValue(shape, numbers.floats(shape.elementCount)) }
    let padding = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 1, 1]
    return [
      "image": floats([4, 3, 6, 10]), "text": TensorValue([4, 4], integers: numbers.integers(16, in: 0..<11)),
      "padding_mask": TensorValue([4, 4], integers: padding), "shared_key": floats([2, 3, 8]),
      "shared_value": floats([2, 3, 8]), "past_key": floats([4, 2, 8]), "past_value": floats([4, 2, 8]),
    ]
  }

  /// [batch, 15, 8] in front of which a token stands, with the first row of the table left out.
  private static func visionTokens(_ sketch: inout GraphSketch, _ image: ValueID) throws -> ValueID {
    let patches = try sketch.add(.patchify(size: 2), image, name: "patches")
    let embedded = try sketch.add(
      sketch.linear("patch", outputs: 8, inputs: 12, as: .bf16), patches, name: "embedded")
    let token = sketch.constant("class_token", [8])
    let whole = try sketch.add(.prependToken(token), embedded, name: "with_class_token")
    let table = sketch.constant("vision.positions", [17, 8])
    return try sketch.add(.addPositions(table: table, firstRow: 1), whole, name: "vision")
  }

  private static func textTokens(_ sketch: inout GraphSketch, _ text: ValueID, _ mask: ValueID) throws -> ValueID {
    let words = sketch.constant("words", [11, 8], as: .f16)
    let looked = try sketch.add(.embedding(table: words), text, name: "looked_up")
    let table = sketch.constant("text.positions", [9, 8], as: .f16)
    let placed = try sketch.add(.addPositions(table: table, firstRow: 2), looked, name: "placed")
    let normalized = try sketch.add(sketch.norm("text.norm", 8), placed, name: "normalized")
    return try sketch.add(.zeroPadding, normalized, mask, name: "words_without_padding")
  }

  private static func attentions(
    _ sketch: inout GraphSketch, _ vision: ValueID, _ words: ValueID, _ mask: ValueID
  ) throws {
    let shared = ["shared_key", "shared_value"].map {
      sketch.graph.addInput($0, ValueType(.f32, [.symbol("images"), .symbol("shared_tokens"), 8]))
    }
    let past = ["past_key", "past_value"].map {
      sketch.graph.addInput($0, ValueType(.f32, [.symbol("batch"), .symbol("past_tokens"), 8]))
    }
    let index = (0..<22 * 22).map { Int16(($0 * 7) % 5) }
    let tensor = StoredTensor(name: "index", dtype: .i16, shape: [22, 22], elements: index)
    let bias = RelativeBias(
      table: sketch.constant("bias_table", [5, 2]),
      index: sketch.graph.addConstant(
        Constant(name: "bias_index", role: .head, modality: .shared, data: .stored(tensor))))
    let streams = [vision, vision, vision, words, words, words]
    let text = [words, words, words]
    try attend(&sketch, Attention(heads: 2, isPadded: true), text + [mask], "alone")
    try attend(&sketch, Attention(heads: 2, isPadded: true, mask: .caption), text + [mask], "written")
    try attend(&sketch, Attention(heads: 4, isPadded: true, mask: .caption), streams + [mask], "captioned")
    try attend(&sketch, Attention(heads: 2, isPadded: true, bias: bias), streams + [mask], "biased")
    try attend(
      &sketch, Attention(heads: 2, isPadded: true, mask: .caption, memories: 2), shared + past + text + [mask],
      "remembered")
    try attend(&sketch, Attention(heads: 2, memories: 1), past + text, "unmasked")
  }

  private static func attend(
    _ sketch: inout GraphSketch, _ attention: Attention, _ inputs: [ValueID], _ name: String
  ) throws {
    let streams = (inputs.count - attention.memories * 2) / 3
    let names = (0..<streams).map { "\(name)_\($0)" }
    let outputs = try sketch.graph.add(.attention(attention), inputs, names: names, role: nil, modality: .shared)
    for (output, name) in zip(outputs, names) { sketch.output(name, output) }
  }

  private static func featureMaps(_ sketch: inout GraphSketch, _ vision: ValueID) throws {
    let grid = Grid(height: 3, width: 5)
    let map = try sketch.add(.dropTokens(first: 1), vision, name: "map")
    let kernel = sketch.constant("kernel", [4, 72], in: -0.1...0.1)
    let bias = sketch.constant("kernel.bias", [4])
    let convolved = try sketch.add(
      .featureMap(.convolution(weight: kernel, bias: bias, kernel: 3), grid), map, name: "convolved")
    let activated = try sketch.add(.relu, convolved, name: "activated")
    let shuffled = try sketch.add(.featureMap(.pixelShuffle, grid), map, name: "shuffled")
    let pooled = try sketch.add(.featureMap(.maxPool, grid.doubled), shuffled, name: "pooled")
    let halved = try sketch.add(.featureMap(.maxPool, grid), activated, name: "halved")
    let means = try sketch.add(.featureMap(.averagePool(bins: 2), grid), activated, name: "means")
    let resized = try sketch.add(
      .featureMap(.resize(to: Grid(height: 7, width: 11)), Grid(height: 2, width: 2)), means, name: "resized")
    let joined = try sketch.add(.joinChannels, pooled, activated, name: "joined")
    let image = try sketch.add(.featureMap(.toImage, grid), joined, name: "image_of_channels")
    for (name, value) in [("maps", image), ("resized", resized), ("halved", halved)] { sketch.output(name, value) }
  }

  private static func vectors(_ sketch: inout GraphSketch, _ vision: ValueID, _ words: ValueID) throws {
    let joint = try sketch.add(.joinTokens, vision, words, name: "joint")
    let scaled = try sketch.add(.scale(by: 0.25), joint, name: "scaled")
    let layer = try sketch.add(sketch.linear("layer", outputs: 8, inputs: 8, hasBias: false), scaled, name: "layer")
    let curved = try sketch.add(.gelu, layer, name: "curved")
    let factors = sketch.constant("factors", [8])
    let weighted = try sketch.add(.scaleChannels(factors), curved, name: "weighted")
    let sum = try sketch.add(.add, weighted, joint, name: "sum")
    let plain = try sketch.add(sketch.norm("plain", 8, hasWeight: false, hasBias: false), sum, name: "plain_norm")
    let mean = try sketch.add(.meanTokens(first: 2), plain, name: "mean")
    let first = try sketch.add(.selectToken(0), plain, name: "first")
    let both = try sketch.add(.joinChannels, mean, first, name: "both")
    let bounded = try sketch.add(.tanh, both, name: "bounded")
    let unit = try sketch.add(.normalizeL2, bounded, name: "unit")
    for (name, value) in [("embedding", unit), ("embedding_again", unit)] { sketch.output(name, value) }
  }
}
