public import MultiwayGraph
import MultiwayCore
import MultiwayKernels

extension ActivationStatistics {
  /// How many real examples an estimate is worth, where there are both.
  private static let estimateWeight = 4

  /// What the results of LayerNorms look like by the weights alone, without running the model.
  ///
  /// The input of the norm before a linear layer is taken as normally distributed and equal in all channels, so the layer's result has the
  /// mean W·β + b and the deviation ‖W diag γ‖ in each channel. That holds through GELU by its moments, and through attention, which averages
  /// tokens; the norm behind it makes the whole have mean 0 and deviation 1. Norms that follow something else are left out.
  public static func estimated(for graph: Graph) throws -> ActivationStatistics {
    let producers = graph.producers()
    let norms = graph.nodes.filter { node in
      if case .layerNorm(.some, _, _) = node.op { return true }
      return false
    }
    let keepsPages = MemoryBudget.keepsPages(of: graph.constants.flatMap(\.data.sources))
    var normals: [Int: [Double]] = [:]
    for case .layerNorm(let weight?, _, _) in norms.map(\.op) {
      let width = graph[weight].data.shape.elementCount
      if normals[width] == nil { normals[width] = ChannelMoments.normals(width: width) }
    }
    let numbers = normals
    let estimates = try Pipeline.map(norms.count) { place in
      var materializer = Materializer(peekingFor: nil, keepsPages: keepsPages)
      return try estimated(norms[place], graph, producers, numbers, &materializer)
    }
    var statistics = ActivationStatistics()
    for estimate in estimates { statistics.take(estimate) }
    return statistics
  }

  /// What a norm's result looks like; nothing where its input tells nothing.
  private static func estimated(
    _ node: Node, _ graph: Graph, _ producers: [Int?], _ normals: [Int: [Double]], _ materializer: inout Materializer
  ) throws -> ActivationStatistics {
    var statistics = ActivationStatistics()
    guard case .layerNorm(let weight?, let bias, _) = node.op,
      let source = NormSource(graph, producers, of: node.inputs[0]),
      let moments = try source.moments(graph, &materializer)
    else { return statistics }
    let scale = try materializer.floats(of: graph[weight].data)
    let shift = try bias.map { try materializer.floats(of: graph[$0].data) } ?? []
    let tokens = try moments.normedTokens(
      scale: scale, shift: shift, isRectified: source.isRectified,
      normals: normals[moments.means.count] ?? ChannelMoments.normals(width: moments.means.count), &materializer)
    statistics.add(tokens, width: scale.count, of: graph[node.outputs[0]].name, examples: estimateWeight)
    return statistics
  }
}

/// The linear layer that a norm's input comes from.
private struct NormSource {
  var weight: ConstantID
  var bias: ConstantID?
  /// The weight and bias of the norm before that layer.
  var norm: (weight: ConstantID?, bias: ConstantID?)
  /// True where a GELU lies between.
  var isRectified: Bool

  /// Walks up from the input of a norm through GELU or attention to a linear layer and the norm before it.
  init?(_ graph: Graph, _ producers: [Int?], of value: ValueID) {
    guard var position = producers[value.index] else { return nil }
    isRectified = false
    switch graph.nodes[position].op {
    case .gelu:
      isRectified = true
      guard let next = producers[graph.nodes[position].inputs[0].index] else { return nil }
      position = next
    case .attention(let attention):
      guard let stream = graph.nodes[position].outputs.firstIndex(of: value),
        let next = producers[graph.nodes[position].inputs[attention.queryPlace(stream) + 2].index]
      else { return nil }
      position = next
    default: return nil
    }
    guard case .linear(let weight, let bias) = graph.nodes[position].op,
      let before = producers[graph.nodes[position].inputs[0].index],
      case .layerNorm(let normWeight, let normBias, _) = graph.nodes[before].op
    else { return nil }
    self.weight = weight
    self.bias = bias
    norm = (normWeight, normBias)
  }

  /// The mean and deviation of each output of the layer.
  func moments(_ graph: Graph, _ materializer: inout Materializer) throws -> ChannelMoments? {
    let data = graph[weight].data
    let (outputs, inputs) = (data.shape[0], data.shape[1])
    let ones = [Float](repeating: 1, count: inputs)
    let scale = try norm.weight.map { try materializer.floats(of: graph[$0].data) } ?? ones
    let shift = try norm.bias.map { try materializer.floats(of: graph[$0].data) } ?? []
    let start = try bias.map { try materializer.floats(of: graph[$0].data) } ?? []
    let squares = scale.map { Double($0) * Double($0) }
    var moments = ChannelMoments(means: start.map(Double.init), deviations: [])
    if moments.means.isEmpty { moments.means = [Double](repeating: 0, count: outputs) }
    let kernels = try materializer.context()
    try materializer.forEachRows(of: data) { rows, matrix in
      let sums = kernels.moments(matrix, squares: squares, shift: shift)
      for (place, output) in rows.enumerated() {
        moments.means[output] += sums.means[place]
        moments.deviations.append(sums.squares[place].squareRoot())
      }
    }
    let isUsable = (moments.means + moments.deviations).allSatisfy(\.isFinite)
    return isUsable ? moments : nil
  }
}

/// The mean and deviation of each channel.
private struct ChannelMoments {
  var means: [Double]
  var deviations: [Double]

  /// Enough that the root mean square of a channel is right within a tenth.
  private static let tokenCount = 64

  /// The numbers of which the tokens of a width are made: the same for every norm.
  static func normals(width: Int) -> [Double] {
    var random = NormalNumbers(seed: UInt64(width))
    return (0..<tokenCount * width).map { _ in random.next() }
  }

  /// Tokens drawn from the moments, through GELU where there is one, normed, times `scale` plus `shift`.
  func normedTokens(
    scale: [Float], shift: [Float], isRectified: Bool, normals: [Double], _ materializer: inout Materializer
  ) throws -> [Float] {
    let width = means.count
    var tokens = [Float](repeating: 0, count: Self.tokenCount * width)
    for token in 0..<Self.tokenCount {
      for channel in 0..<width {
        let index = token * width + channel
        tokens[index] = Float(means[channel] + deviations[channel] * normals[index])
      }
    }
    if isRectified { tokens = try materializer.context().gelu(tokens) }
    for token in 0..<Self.tokenCount {
      let range = token * width..<(token + 1) * width
      var (sum, squares) = (0.0, 0.0)
      for index in range { sum += Double(tokens[index]) }
      let mean = sum / Double(width)
      for index in range { squares += (Double(tokens[index]) - mean) * (Double(tokens[index]) - mean) }
      let inverse = 1 / max(1e-12, (squares / Double(width)).squareRoot())
      for index in range {
        let channel = index - range.lowerBound
        let normed = Float((Double(tokens[index]) - mean) * inverse) * scale[channel]
        tokens[index] = shift.isEmpty ? normed : normed + shift[channel]
      }
    }
    return tokens
  }
}

/// Standard normal numbers from a seed: the sum of twelve uniform numbers less 6 needs no library function, so it is the same on every
/// machine.
struct NormalNumbers {
  private var state: UInt64

  init(seed: UInt64) { state = seed &+ 0x9E37_79B9_7F4A_7C15 }

  /// A number of mean 0 and deviation 1, between −6 and 6.
  mutating func next() -> Double {
    var sum = -6.0
    // Each word of random bits gives three uniform numbers of 21 bits.
    for _ in 0..<4 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var bits = state
      bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
      bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
      bits ^= bits >> 31
      for shift in [0, 21, 42] as [UInt64] { sum += Double((bits >> shift) & 0x1F_FFFF) * 0x1p-21 }
    }
    return sum
  }
}
