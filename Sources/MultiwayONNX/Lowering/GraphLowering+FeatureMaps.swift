import MultiwayCore
import MultiwayGraph

/// The ops on feature maps, whose tokens stand row by row. What the standard defines on images goes through [N, C, H, W].
extension GraphLowering {
  mutating func featureMap(_ op: FeatureMapOp, _ grid: Grid) throws(ONNXError) {
    switch op {
    case .convolution(let weight, let bias, let kernel): convolution(weight, bias, kernel, grid)
    case .pixelShuffle: pixelShuffle(grid)
    case .maxPool:
      let image = image(grid, .local("image"))
      let pooled = emit(
        "MaxPool", [image], .local("pooled"), .init("kernel_shape", .integers([2, 2])),
        .init("strides", .integers([2, 2])))
      tokens(pooled)
    case .averagePool(let bins): try averagePool(bins, grid)
    case .resize(let target): resize(grid, target)
    case .toImage: _ = image(grid, .output(0))
    }
  }

  private var channels: Int { inputType().dimensions[2].offset }

  /// [N, H·W, C] → [N, C, H, W].
  private mutating func image(_ grid: Grid, _ result: Result) -> String {
    let rows = reshape(input(), [0, grid.height, grid.width, channels], .local("rows"))
    return transpose(rows, [0, 3, 1, 2], result)
  }

  /// [N, C, H, W] → [N, H·W, C], the output.
  private mutating func tokens(_ image: String) {
    let dimensions = outputType().dimensions
    let rows = transpose(image, [0, 2, 3, 1], .local("channels_last"))
    _ = reshape(rows, [0, dimensions[1].offset, dimensions[2].offset], .output(0))
  }

  private mutating func convolution(_ weight: ConstantID, _ bias: ConstantID?, _ kernel: Int, _ grid: Grid) {
    let outputs = graph[weight].data.shape[0]
    let inputs = channels
    let kernels = constant(weight, "/kernels_\(kernel)") {
      .permuted(.reshaped($0, [outputs, kernel, kernel, inputs]), axes: [0, 3, 1, 2])
    }
    let image = image(grid, .local("image"))
    let half = kernel / 2
    let convolved = emit(
      "Conv", [image, kernels] + (bias.map { [constant($0)] } ?? []), .local("convolved"),
      .init("kernel_shape", .integers([kernel, kernel])), .init("pads", .integers([half, half, half, half])))
    tokens(convolved)
  }

  /// [N, H·W, 4C] → [N, H, W, 2, 2, C] → [N, H, 2, W, 2, C] → [N, 2H·2W, C].
  private mutating func pixelShuffle(_ grid: Grid) {
    let dimensions = outputType().dimensions
    let cut = reshape(input(), [0, grid.height, grid.width, 2, 2, dimensions[2].offset], .local("cut"))
    let ordered = transpose(cut, [0, 1, 3, 2, 4, 5], .local("ordered"))
    _ = reshape(ordered, [0, dimensions[1].offset, dimensions[2].offset], .output(0))
  }

  /// The means over a block are means over its columns of means over its rows: a product with a matrix for each axis. ONNX's own pools
  /// have blocks of one size, and these may differ by one.
  private mutating func averagePool(_ bins: Int, _ grid: Grid) throws(ONNXError) {
    // Type inference bounds the sides and the bins' square.
    guard bins * max(grid.height, grid.width) <= 1 << 20 else {
      throw fail("\(bins)×\(bins) means over a map of \(grid)", expected: "a map that a model of this family has")
    }
    let down = averages(bins, over: grid.height)
    let flat = reshape(input(), [0, grid.height, grid.width * channels], .local("map_rows"))
    let rows = emit("MatMul", [down, flat], .local("row_means"))
    let columns = reshape(rows, [0, bins, grid.width, channels], .local("map_columns"))
    let means = emit("MatMul", [averages(bins, over: grid.width), columns], .local("means"))
    _ = reshape(means, [0, bins * bins, channels], .output(0))
  }

  /// [bins, size]: row `i` averages from ⌊i·size/bins⌋ to before ⌈(i+1)·size/bins⌉.
  private mutating func averages(_ bins: Int, over size: Int) -> String {
    shared("averages \(bins) \(size)") { lowering in
      var matrix = [Float](repeating: 0, count: bins * size)
      for bin in 0..<bins {
        let block = bin * size / bins..<((bin + 1) * size + bins - 1) / bins
        for place in block { matrix[bin * size + place] = 1 / Float(block.count) }
      }
      let bytes = TensorBytes(copying: matrix)
      return lowering.weight(
        "averages/\(bins)_of_\(size)", .float, [bins, size], .bytes(bytes.array(of: UInt8.self)))
    }
  }

  private mutating func resize(_ grid: Grid, _ target: Grid) {
    let image = image(grid, .local("image"))
    let batch = length(input(), inputType().dimensions[0], axis: 0)
    let sizes = concatenate(
      [batch, integers([channels, target.height, target.width])], axis: 0, .local("sizes"))
    let resized = emit(
      "Resize", [image, "", "", sizes], .local("resized"), .init("mode", .text("linear")),
      .init("coordinate_transformation_mode", .text("half_pixel")))
    tokens(resized)
  }
}
