import MultiwayCore

/// The rows and columns of a feature map: a token stream [batch, height · width, channels] whose tokens stand row by row.
public struct Grid: Hashable, Sendable, CustomStringConvertible {
  /// The number of rows.
  public var height: Int
  /// The number of columns.
  public var width: Int

  /// Makes a grid.
  public init(height: Int, width: Int) {
    self.height = height
    self.width = width
  }

  /// The number of positions; nil where a side is below 1 or the product is beyond any dimension.
  public var positions: Int? {
    guard height >= 1, width >= 1 else { return nil }
    let (count, overflow) = height.multipliedReportingOverflow(by: width)
    return overflow || !Dimension.limits.contains(count) ? nil : count
  }

  /// Twice as many rows and columns. For grids with `positions`, whose sides are far from overflowing.
  public var doubled: Grid { Grid(height: height * 2, width: width * 2) }

  /// Half as many rows and columns, rounded down.
  public var halved: Grid { Grid(height: height / 2, width: width / 2) }

  /// `32×48`.
  public var description: String { "\(height)×\(width)" }
}

/// An operation on one feature map, which keeps the batch and treats every image by itself.
public enum FeatureMapOp: Hashable, Sendable {
  /// A convolution with an odd square kernel, stride 1 and as many zeros around the map as keep its size: weight
  /// [out, kernel · kernel · in] with the inputs in the order row, column, channel. What lies outside adds nothing.
  case convolution(weight: ConstantID, bias: ConstantID?, kernel: Int)
  /// [N, H·W, 4·C] → [N, 2H·2W, C]: channel (2·i + j)·C + c of a position becomes channel c of the position at row 2y + i and column
  /// 2x + j. A transposed convolution 2×2 of stride 2 is a linear layer followed by this.
  case pixelShuffle
  /// The largest of each 2×2 block, a last odd row or column left out; NaN where one of the four is.
  case maxPool
  /// The means over bins × bins blocks that cover the map: block i of an axis of n goes from ⌊i·n/bins⌋ to ⌈(i+1)·n/bins⌉.
  case averagePool(bins: Int)
  /// Bilinear interpolation between the centres of positions (`align_corners=False`), in fp32 as PyTorch computes it.
  case resize(to: Grid)
  /// [N, H·W, C] → [N, C, H, W].
  case toImage
}

extension FeatureMapOp {
  /// The name that the printer and the artifact use.
  public var name: String {
    switch self {
    case .convolution: "convolution"
    case .pixelShuffle: "pixel_shuffle"
    case .maxPool: "max_pool"
    case .averagePool: "average_pool"
    case .resize: "resize_bilinear"
    case .toImage: "to_image"
    }
  }

  var constants: [(String, ConstantID?)] {
    guard case .convolution(let weight, let bias, _) = self else { return [] }
    return [("weight", weight), ("bias", bias)]
  }

  func mappingConstants(_ transform: (ConstantID) -> ConstantID) -> FeatureMapOp {
    guard case .convolution(let weight, let bias, let kernel) = self else { return self }
    return .convolution(weight: transform(weight), bias: bias.map(transform), kernel: kernel)
  }

  /// The numbers of the op on a grid, by the names that the printer and the artifact use.
  public func attributes(on grid: Grid) -> [(name: String, value: Int)] {
    let size = [(name: "height", value: grid.height), (name: "width", value: grid.width)]
    switch self {
    case .convolution(_, _, let kernel): return size + [("kernel", kernel)]
    case .averagePool(let bins): return size + [("bins", bins)]
    case .resize(let target): return size + [("to_height", target.height), ("to_width", target.width)]
    case .pixelShuffle, .maxPool, .toImage: return size
    }
  }
}

extension TypeInference {
  /// The type of a feature map's op. Every size is checked here: kernels and interpreter rely on it.
  func featureMap(_ op: FeatureMapOp, _ grid: Grid) throws(GraphError) -> ValueType {
    let type = try tokens(0)
    guard let positions = grid.positions, type.dimensions[1].size == positions, let channels = type.dimensions[2].size
    else { throw fail("a map of \(grid) from \(type)", expected: "height · width tokens") }
    let batch = type.dimensions[0]
    switch op {
    case .convolution(let weight, let bias, let kernel):
      let outputs = try convolutionOutputs(weight, bias, kernel: kernel, channels: channels)
      return ValueType(.f32, [batch, .fixed(positions), .fixed(outputs)])
    case .pixelShuffle:
      guard channels % 4 == 0 else { throw fail("\(channels) channels", expected: "a multiple of 4") }
      return ValueType(.f32, [batch, .fixed(positions * 4), .fixed(channels / 4)])
    case .maxPool:
      return ValueType(.f32, [batch, .fixed(try count(grid.halved)), .fixed(channels)])
    case .averagePool(let bins):
      return ValueType(.f32, [batch, .fixed(try count(Grid(height: bins, width: bins))), .fixed(channels)])
    case .resize(let target): return ValueType(.f32, [batch, .fixed(try count(target)), .fixed(channels)])
    case .toImage: return ValueType(.f32, [batch, .fixed(channels), .fixed(grid.height), .fixed(grid.width)])
    }
  }

  private func count(_ grid: Grid) throws(GraphError) -> Int {
    guard let positions = grid.positions else {
      throw fail("a map of \(grid)", expected: "1 to \(Dimension.limits.upperBound) positions")
    }
    return positions
  }

  private func convolutionOutputs(
    _ weight: ConstantID, _ bias: ConstantID?, kernel: Int, channels: Int
  ) throws(GraphError) -> Int {
    let shape = try matrix(weight)
    guard kernel >= 1, kernel % 2 == 1, let area = Grid(height: kernel, width: kernel).positions else {
      throw fail("a kernel of \(kernel)×\(kernel)", expected: "an odd size")
    }
    let (inputs, overflow) = area.multipliedReportingOverflow(by: channels)
    guard !overflow, shape[1] == inputs else {
      throw fail("weights \(shape)", expected: "\(kernel) · \(kernel) · \(channels) inputs")
    }
    if let bias { try vector(bias, .fixed(shape[0])) }
    return shape[0]
  }

  /// Streams of the same tokens, or single tokens of the same batch, their channels after one another.
  func joinChannels() throws(GraphError) -> ValueType {
    var joined = try activation(0)
    let last = joined.dimensions.count - 1
    for index in node.inputs.indices.dropFirst() {
      let type = try activation(index)
      guard type.dimensions.dropLast() == joined.dimensions.dropLast(), let left = joined.dimensions[last].size,
        let right = type.dimensions[last].size
      else { throw fail("\(joined) and \(type)", expected: "streams of the same batch and tokens") }
      joined.dimensions[last] = .fixed(left + right)
    }
    return joined
  }
}
