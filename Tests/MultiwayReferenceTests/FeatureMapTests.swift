import MultiwayCore
import MultiwayGraph
import MultiwayReference
import MultiwayTestSupport
import Testing

/// The ops on feature maps against PyTorch's own answers, which come as [N, C, H, W]. 120 dB: single fp32 operations.
@Suite struct FeatureMapTests {
  private let goldens: [String: TensorValue]
  private let grid = Grid(height: 5, width: 7)

  init() throws { goldens = try Fixtures.values("tiny/segmentation/feature_maps.safetensors") }

  private func golden(_ name: String) throws -> TensorValue { try #require(goldens[name], "no golden for \(name)") }

  /// A graph whose input `x` is PyTorch's map as tokens.
  private func start() throws -> (SmallGraph, ValueID) {
    var small = SmallGraph()
    let x = small.floats("x", [2, 35, 8], FeatureMapTests.tokens(try golden("x")))
    return (small, x)
  }

  /// [N, C, H, W] as [N, H·W, C].
  private static func tokens(_ image: TensorValue) -> [Float] {
    let (channels, positions) = (image.shape[1], image.shape[2] * image.shape[3])
    let values = image.floats
    return (0..<values.count).map { index in
      let (token, channel) = (index / channels, index % channels)
      return values[(token / positions * channels + channel) * positions + token % positions]
    }
  }

  private func stored(_ name: String) throws -> TensorExpression {
    let value = try golden(name)
    return .stored(StoredTensor(name: name, dtype: .f32, shape: value.shape, elements: value.floats))
  }

  private func constant(_ name: String, _ data: TensorExpression, in small: inout SmallGraph) -> ConstantID {
    small.graph.addConstant(Constant(name: name, role: .head, modality: .shared, data: data))
  }

  /// The op's result as an image, against PyTorch's.
  private func check(_ name: String, _ small: SmallGraph, _ map: ValueID) throws {
    var small = small
    let expected = try golden(name)
    let size = Grid(height: expected.shape[2], width: expected.shape[3])
    let image = try small.add(.featureMap(.toImage, size), map, name: "image")
    let found = try small.run(image)[0]
    let quality = decibels(expected, found)
    #expect(quality >= 120, "\(name): \(quality) dB")
  }

  /// PyTorch's weights [out, in, height, width] with the inputs in our order.
  private func convolutionWeight(_ name: String) throws -> TensorExpression {
    let weight = try stored(name)
    let shape = weight.shape
    return .reshaped(.permuted(weight, axes: [0, 2, 3, 1]), [shape[0], shape[1] * shape[2] * shape[3]])
  }

  @Test(arguments: [1, 3, 5])
  func convolutions(kernel: Int) throws {
    var (small, x) = try start()
    let name = "convolution_\(kernel)"
    let weight = constant("weight", try convolutionWeight(name + ".weight"), in: &small)
    let bias = constant("bias", try stored(name + ".bias"), in: &small)
    let op = FeatureMapOp.convolution(weight: weight, bias: bias, kernel: kernel)
    let map = try small.add(.featureMap(op, grid), x)
    try check(name, small, map)
  }

  @Test func aFoldedBatchNorm() throws {
    var (small, x) = try start()
    let norm = BatchNorm(
      weight: try stored("batch_norm.weight"), bias: try stored("batch_norm.bias"),
      mean: try stored("batch_norm.running_mean"), variance: try stored("batch_norm.running_var"), epsilon: 1e-5)
    let scaled = TensorExpression.rowsScaled(
      try convolutionWeight("convolution_3.weight"), by: .batchNormScale(norm))
    let weight = constant("weight", scaled, in: &small)
    let bias = constant("bias", .batchNormShift(norm, bias: try stored("convolution_3.bias")), in: &small)
    let op = FeatureMapOp.convolution(weight: weight, bias: bias, kernel: 3)
    let map = try small.add(.featureMap(op, grid), x)
    try check("batch_norm", small, map)
  }

  @Test func transposedConvolutionIsALinearLayerAndAShuffle() throws {
    var (small, x) = try start()
    let permuted = TensorExpression.permuted(try stored("transposed.weight"), axes: [2, 3, 1, 0])
    let weight = constant("weight", .reshaped(permuted, [12, 8]), in: &small)
    let bias = constant("bias", .joinedRows(Array(repeating: try stored("transposed.bias"), count: 4)), in: &small)
    let expanded = try small.add(.linear(weight: weight, bias: bias), x, name: "expanded")
    let map = try small.add(.featureMap(.pixelShuffle, grid), expanded)
    try check("transposed", small, map)
  }

  @Test(arguments: [1, 2, 3, 6, 9])
  func averagePools(bins: Int) throws {
    var (small, x) = try start()
    let map = try small.add(.featureMap(.averagePool(bins: bins), grid), x)
    try check("average_pool_\(bins)", small, map)
  }

  @Test func maxPool() throws {
    var (small, x) = try start()
    let map = try small.add(.featureMap(.maxPool, grid), x)
    try check("max_pool", small, map)
  }

  @Test(arguments: [(10, 14), (3, 2), (5, 9), (1, 1), (23, 17)])
  func resizes(height: Int, width: Int) throws {
    var (small, x) = try start()
    let op = FeatureMapOp.resize(to: Grid(height: height, width: width))
    let map = try small.add(.featureMap(op, grid), x)
    try check("resize_\(height)_\(width)", small, map)
  }

  @Test func joinPutsChannelsAfterOneAnother() throws {
    var small = SmallGraph()
    let first = small.floats("a", [1, 2, 1], [1, 2])
    let second = small.floats("b", [1, 2, 2], [3, 4, 5, 6])
    let result = try small.run(try small.add(.joinChannels, first, second, first))[0]
    #expect(result == TensorValue([1, 2, 4], [1, 3, 4, 1, 2, 5, 6, 2]))
  }
}
