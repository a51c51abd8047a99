import CMultiwayKernels
import MultiwayCore

/// The sizes of feature maps [images, height, width, channels], row-major.
public struct MapSize: Hashable, Sendable {
  /// The number of maps.
  public var images: Int
  /// The rows of each.
  public var height: Int
  /// The columns of each.
  public var width: Int
  /// The numbers of a position.
  public var channels: Int

  /// Makes a size.
  public init(images: Int, height: Int, width: Int, channels: Int) {
    self.images = images
    self.height = height
    self.width = width
    self.channels = channels
  }

  /// The number of elements; an overflow stops the program.
  var elementCount: Int { product(images, height, width, channels) }

  /// The same maps with other rows, columns and channels.
  func with(height: Int, width: Int, channels: Int? = nil) -> MapSize {
    MapSize(images: images, height: height, width: width, channels: channels ?? self.channels)
  }
}

extension KernelContext {
  /// y [images, height, width, outputs] = activation(Σ x · w + bias), the sum over the odd `kernel` × `kernel` neighbourhood of each
  /// position as one chain of fma. The inputs of the weights stand in the order row, column, channel. The epilogue has no residual.
  public func convolution(
    _ arena: inout Arena, _ size: MapSize, kernel: Int, x: Region, weights: FloatWeights,
    epilogue: Epilogue = Epilogue(), into y: Region
  ) {
    precondition(kernel > 0 && kernel % 2 == 1, "the kernel has no centre")
    precondition(weights.inputs == product(kernel, kernel, size.channels), "the weights are of another size")
    precondition(!y.overlaps(x), "the result overlaps its input")
    precondition(epilogue.residual == nil, "a convolution adds no residual")
    defer { withExtendedLifetime((weights, epilogue)) {} }
    let result = size.with(height: size.height, width: size.width, channels: weights.outputs)
    var job = unsafe mwk_convolution_f32_job()
    unsafe job.images = size.images
    unsafe job.height = size.height
    unsafe job.width = size.width
    unsafe job.channels = size.channels
    unsafe job.outputs = weights.outputs
    unsafe job.kernel = kernel
    unsafe job.x = UnsafePointer(arena.pointer(x, count: size.elementCount))
    unsafe job.weight = UnsafeRawPointer(
      weights.bytes.pointer(count: product(weights.outputs, weights.inputs, weights.type.byteWidth), of: UInt8.self))
    unsafe job.weight_type = weights.type.code
    unsafe job.bias = epilogue.bias?.pointer(count: weights.outputs, of: Float.self)
    unsafe job.activation = epilogue.activation.code
    unsafe job.y = arena.pointer(y, count: result.elementCount)
    unsafe check(mwk_convolution_f32(pointer, &job))
  }

  /// The largest of each 2×2 block, a last odd row or column left out; NaN where one of the four is.
  public func maxPool(_ arena: inout Arena, _ size: MapSize, x: Region, into y: Region) {
    precondition(!y.overlaps(x), "the result overlaps its input")
    let result = size.with(height: size.height / 2, width: size.width / 2)
    unsafe check(
      mwk_max_pool_f32(
        pointer, size.images, size.height, size.width, size.channels, arena.pointer(x, count: size.elementCount),
        arena.pointer(y, count: result.elementCount)))
  }

  /// The means over `bins` × `bins` blocks that cover the map.
  public func averagePool(_ arena: inout Arena, _ size: MapSize, bins: Int, x: Region, into y: Region) {
    precondition(bins > 0 && size.height > 0 && size.width > 0, "a block is empty")
    precondition(!y.overlaps(x), "the result overlaps its input")
    let result = size.with(height: bins, width: bins)
    unsafe check(
      mwk_average_pool_f32(
        pointer, size.images, size.height, size.width, size.channels, bins,
        arena.pointer(x, count: size.elementCount), arena.pointer(y, count: result.elementCount)))
  }

  /// Bilinear interpolation between the centres of positions, to `height` × `width`.
  public func resizeBilinear(
    _ arena: inout Arena, _ size: MapSize, toHeight height: Int, toWidth width: Int, x: Region, into y: Region
  ) {
    precondition(size.height > 0 && size.width > 0, "there is nothing to interpolate")
    precondition(!y.overlaps(x), "the result overlaps its input")
    let result = size.with(height: height, width: width)
    unsafe check(
      mwk_resize_bilinear_f32(
        pointer, size.images, size.height, size.width, size.channels, height, width,
        arena.pointer(x, count: size.elementCount), arena.pointer(y, count: result.elementCount)))
  }

  /// The maps as [images, channels, height, width].
  public func toImage(_ arena: inout Arena, _ size: MapSize, x: Region, into y: Region) {
    precondition(!y.overlaps(x), "the result overlaps its input")
    let count = size.elementCount
    unsafe check(
      mwk_to_image_f32(
        pointer, size.images, size.height, size.width, size.channels, arena.pointer(x, count: count),
        arena.pointer(y, count: count)))
  }

  /// Doubles rows and columns: channel (2·i + j)·C + c of a position becomes channel c of the position at row 2y + i and
  /// column 2x + j, where C is a quarter of the channels.
  public func pixelShuffle(_ arena: inout Arena, _ size: MapSize, x: Region, into y: Region) {
    precondition(size.channels % 4 == 0, "the channels are no multiple of 4")
    let pair = size.channels / 2
    // Two neighbours in a row of the result lie side by side in the source.
    for row in 0..<product(size.images, size.height, 2) {
      let source = row / 2 * size.width * size.channels + row % 2 * pair
      copyRows(
        &arena, rows: size.width, width: pair, x: x.dropping(elements: source), xStride: size.channels,
        into: y.dropping(elements: row * size.width * pair), yStride: pair)
    }
  }
}
