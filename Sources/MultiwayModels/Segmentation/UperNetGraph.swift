import MultiwayCore
import MultiwayGraph

/// A feature map on its way through a decoder: a token stream with the rows and columns that it has.
struct FeatureMap {
  var tokens: ValueID
  var grid: Grid
}

/// The graph of an UperNet. Batch norms fold into the layers before them as they are built, so they are no nodes.
extension ModelGraphBuilding {
  /// Four token streams, the class token first → logits [N, classes, 4 · grid, 4 · grid].
  mutating func segment(
    _ taps: [ValueID], grid: Grid, _ configuration: UperNetConfiguration
  ) throws(GraphError) -> ValueID {
    var maps: [FeatureMap] = []
    for (level, tap) in taps.enumerated() {
      let name = "neck.\(level).patches"
      maps.append(FeatureMap(tokens: try decode(.dropTokens(first: 1), tap, as: name), grid: grid))
    }
    let pyramid = try makePyramid(maps)
    let fused = try fuse(pyramid, poolScales: configuration.poolScales)
    let weight = try constant("decoder.classes.weight", reshaped: [configuration.classes, configuration.width])
    let bias = try constant("decoder.classes.bias")
    let scores = try graph.add(
      .linear(weight: weight, bias: bias), fused.tokens, name: "decoder.classes", role: .segmentation,
      modality: .shared)
    return try decode(.featureMap(.toImage, fused.grid), scores, as: "logits")
  }

  /// Maps of one size → maps of four times, twice, once and half the size.
  private mutating func makePyramid(_ maps: [FeatureMap]) throws(GraphError) -> [FeatureMap] {
    let once = try expand(maps[0], "neck.quadrupled.expand", norm: "neck.quadrupled.norm", hasGELU: true)
    let quadrupled = try expand(once, "neck.quadrupled.expand_again")
    let doubled = try expand(maps[1], "neck.doubled.expand")
    let halved = try decode(.featureMap(.maxPool, maps[3].grid), maps[3].tokens, as: "neck.halved")
    return [quadrupled, doubled, maps[2], FeatureMap(tokens: halved, grid: maps[3].grid.halved)]
  }

  /// A transposed convolution 2×2 of stride 2: every position makes four. What follows element by element comes before
  /// they part, where the layer can take it in.
  private mutating func expand(
    _ map: FeatureMap, _ name: String, norm: String? = nil, hasGELU: Bool = false
  ) throws(GraphError) -> FeatureMap {
    let data = try parameter(name + ".weight")
    let (inputs, outputs) = (data.shape[0], data.shape[1])
    var weight = TensorExpression.reshaped(.permuted(data, axes: [2, 3, 1, 0]), [4 * outputs, inputs])
    var bias = try parameter(name + ".bias")
    if let norm {
      let batchNorm = try self.batchNorm(norm)
      weight = .rowsScaled(weight, by: quadrupled(.batchNormScale(batchNorm)))
      bias = .batchNormShift(batchNorm, bias: bias)
    }
    let op = Op.linear(
      weight: constant(name + ".weight", .segmentation, .shared, weight),
      bias: constant(name + ".bias", .segmentation, .shared, quadrupled(bias)))
    var value = try graph.add(op, map.tokens, name: name, role: .segmentation, modality: .shared)
    if hasGELU { value = try decode(.gelu, value, as: name + ".activation") }
    let shuffled = try decode(.featureMap(.pixelShuffle, map.grid), value, as: name + ".output")
    return FeatureMap(tokens: shuffled, grid: map.grid.doubled)
  }

  private func quadrupled(_ vector: TensorExpression) -> TensorExpression {
    .joinedRows(Array(repeating: vector, count: 4))
  }

  /// Pools of the coarsest level, sums from coarse to fine, and one convolution over all levels at the size of the finest.
  private mutating func fuse(_ pyramid: [FeatureMap], poolScales: [Int]) throws(GraphError) -> FeatureMap {
    let top = pyramid.count - 1
    var levels: [FeatureMap] = []
    for level in 0..<top { levels.append(try convolve(pyramid[level], "decoder.laterals.\(level)")) }
    levels.append(try pool(pyramid[top], scales: poolScales))
    for level in (0..<top).reversed() {
      let (grid, name) = (levels[level].grid, "decoder.sums.\(level)")
      let coarse = try resize(levels[level + 1], to: grid, as: name + ".coarse")
      let sum = try graph.add(.add, levels[level].tokens, coarse.tokens, name: name, modality: .shared)
      levels[level] = FeatureMap(tokens: sum, grid: grid)
    }
    var joined: [FeatureMap] = []
    for level in levels.indices {
      let map = level == top ? levels[level] : try convolve(levels[level], "decoder.levels.\(level)")
      joined.append(try resize(map, to: levels[0].grid, as: "decoder.levels.\(level).resized"))
    }
    return try convolve(try join(joined, as: "decoder.joined"), "decoder.fused")
  }

  private mutating func pool(_ map: FeatureMap, scales: [Int]) throws(GraphError) -> FeatureMap {
    var maps = [map]
    for (index, scale) in scales.enumerated() {
      let name = "decoder.pools.\(index)"
      let pooled = try decode(.featureMap(.averagePool(bins: scale), map.grid), map.tokens, as: name + ".pooled")
      let reduced = try convolve(
        FeatureMap(tokens: pooled, grid: Grid(height: scale, width: scale)), name)
      maps.append(try resize(reduced, to: map.grid, as: name + ".resized"))
    }
    return try convolve(try join(maps, as: "decoder.pools.joined"), "decoder.pooled")
  }

  /// Convolution, batch norm and ReLU.
  private mutating func convolve(_ map: FeatureMap, _ name: String) throws(GraphError) -> FeatureMap {
    let data = try parameter(name + ".convolution.weight")
    let (outputs, inputs, kernel) = (data.shape[0], data.shape[1], data.shape[2])
    let norm = try batchNorm(name + ".norm")
    let matrix = TensorExpression.reshaped(.permuted(data, axes: [0, 2, 3, 1]), [outputs, inputs * kernel * kernel])
    let weight = constant(name + ".weight", .segmentation, .shared, .rowsScaled(matrix, by: .batchNormScale(norm)))
    let bias = constant(name + ".bias", .segmentation, .shared, .batchNormShift(norm, bias: nil))
    let op: Op =
      kernel == 1
      ? .linear(weight: weight, bias: bias)
      : .featureMap(.convolution(weight: weight, bias: bias, kernel: kernel), map.grid)
    let value = try graph.add(op, map.tokens, name: name, role: .segmentation, modality: .shared)
    return FeatureMap(tokens: try decode(.relu, value, as: name + ".activation"), grid: map.grid)
  }

  private mutating func resize(_ map: FeatureMap, to grid: Grid, as name: String) throws(GraphError) -> FeatureMap {
    guard map.grid != grid else { return map }
    return FeatureMap(tokens: try decode(.featureMap(.resize(to: grid), map.grid), map.tokens, as: name), grid: grid)
  }

  private mutating func join(_ maps: [FeatureMap], as name: String) throws(GraphError) -> FeatureMap {
    let joined = try graph.add(.joinChannels, maps.map(\.tokens), names: [name], modality: .shared)[0]
    return FeatureMap(tokens: joined, grid: maps[0].grid)
  }

  private mutating func decode(_ op: Op, _ input: ValueID, as name: String) throws(GraphError) -> ValueID {
    try graph.add(op, input, name: name, modality: .shared)
  }

  private func batchNorm(_ name: String) throws(GraphError) -> BatchNorm {
    BatchNorm(
      weight: try parameter(name + ".weight"), bias: try parameter(name + ".bias"), mean: try parameter(name + ".mean"),
      variance: try parameter(name + ".variance"), epsilon: UperNetConfiguration.batchNormEpsilon)
  }

  private func parameter(_ name: String) throws(GraphError) -> TensorExpression {
    guard let parameter = parameters[name] else {
      throw GraphError(.invalidReference, "the checkpoint has no parameter for this", tensor: name)
    }
    // Types that the ops do not take are cast to fp32.
    return [.f32, .f16, .bf16].contains(parameter.data.dtype) ? parameter.data : .cast(parameter.data, .f32)
  }
}
