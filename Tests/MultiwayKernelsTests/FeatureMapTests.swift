import CMultiwayKernels
import MultiwayCore
import MultiwayKernels
import Testing

/// Maps [images][height][width][channels] with guard pages behind every buffer.
private struct Map: CustomTestStringConvertible {
  var images: Int, height: Int, width: Int, channels: Int
  var elements: [Float]

  var testDescription: String { "\(images)×\(height)×\(width)×\(channels)" }

  init(_ images: Int, _ height: Int, _ width: Int, _ channels: Int) {
    (self.images, self.height, self.width, self.channels) = (images, height, width, channels)
    var numbers = Numbers(seed: images * 31 + height * 7 + width * 3 + channels)
    elements = numbers.floats(images * height * width * channels)
  }

  func at(_ image: Int, _ row: Int, _ column: Int, _ channel: Int) -> Float {
    elements[((image * height + row) * width + column) * channels + channel]
  }

  /// The elements of maps of another size, in order.
  func map(_ height: Int, _ width: Int, _ element: (_ image: Int, _ row: Int, _ column: Int, _ channel: Int) -> Float)
    -> [Float]
  {
    (0..<images).flatMap { image in
      (0..<height).flatMap { row in
        (0..<width).flatMap { column in (0..<channels).map { element(image, row, column, $0) } }
      }
    }
  }

  /// What a kernel writes, the same on every instruction set and number of threads.
  func run(
    count: Int, _ kernel: (RawContext, UnsafePointer<Float>, UnsafeMutablePointer<Float>) -> mwk_status
  ) -> [Float] {
    checkVariants { context in
      let (x, y) = (GuardedBuffer(elements), GuardedBuffer([Float](repeating: 7, count: count)))
      #expect(unsafe kernel(context, UnsafePointer(x.pointer), y.pointer) == mwk_ok)
      withExtendedLifetime(x) {}
      return y.values
    }
  }

  static let sizes = [
    Map(1, 1, 1, 1), Map(2, 2, 2, 3), Map(1, 5, 7, 16), Map(2, 6, 6, 33), Map(1, 2, 9, 64), Map(3, 8, 1, 5),
    Map(0, 4, 4, 4), Map(1, 3, 3, 0),
  ]
}

/// One convolution.
private struct ConvolutionCase: CustomTestStringConvertible {
  var map: Map
  var kernel: Int, outputs: Int
  var type = WeightType.f32

  var testDescription: String { "\(map.testDescription), \(kernel)×\(kernel) → \(outputs) \(type)" }

  static let all = [
    ConvolutionCase(map: Map(1, 1, 1, 1), kernel: 1, outputs: 1),
    ConvolutionCase(map: Map(2, 5, 7, 3), kernel: 3, outputs: 6, type: .f16),
    ConvolutionCase(map: Map(1, 4, 13, 17), kernel: 3, outputs: 64),
    ConvolutionCase(map: Map(2, 3, 2, 8), kernel: 5, outputs: 70, type: .bf16),
    ConvolutionCase(map: Map(1, 2, 6, 4), kernel: 9, outputs: 65),
    ConvolutionCase(map: Map(1, 3, 3, 600), kernel: 3, outputs: 5),
    ConvolutionCase(map: Map(1, 20, 41, 2), kernel: 3, outputs: 130),
    ConvolutionCase(map: Map(0, 3, 3, 2), kernel: 3, outputs: 4),
    ConvolutionCase(map: Map(1, 3, 3, 0), kernel: 3, outputs: 4),
    ConvolutionCase(map: Map(1, 3, 3, 2), kernel: 3, outputs: 0),
  ]

  /// Weights as stored, and what they decode to.
  var weights: (bytes: [UInt8], values: [Float]) {
    let inputs = kernel * kernel * map.channels
    let layer = FloatCase(0, inputs, outputs, type)
    return (layer.weightBytes, layer.weights)
  }

  /// The definition: one chain of fma for each sum, over the neighbours inside the image.
  func reference(_ weights: [Float], _ bias: [Float]?) -> [Float] {
    var result: [Float] = []
    for image in 0..<map.images {
      for row in 0..<map.height {
        for column in 0..<map.width {
          for output in 0..<outputs {
            var sum: Float = 0
            for y in 0..<kernel where (0..<map.height).contains(row + y - kernel / 2) {
              for x in 0..<kernel where (0..<map.width).contains(column + x - kernel / 2) {
                for c in 0..<map.channels {
                  let weight = weights[((output * kernel + y) * kernel + x) * map.channels + c]
                  sum = sum.addingProduct(map.at(image, row + y - kernel / 2, column + x - kernel / 2, c), weight)
                }
              }
            }
            result.append(bias.map { sum + $0[output] } ?? sum)
          }
        }
      }
    }
    return result
  }
}

@Suite struct FeatureMapTests {
  @Test(arguments: ConvolutionCase.all, [false, true])
  private func convolution(item: ConvolutionCase, hasBias: Bool) {
    var numbers = Numbers(seed: 9)
    let bias = numbers.floats(item.outputs)
    let (bytes, values) = item.weights
    let found = checkVariants { context in
      let (x, w) = (GuardedBuffer(item.map.elements), GuardedBuffer(bytes, misalignedBy: 1))
      let (b, count) = (GuardedBuffer(bias), item.map.images * item.map.height * item.map.width * item.outputs)
      let y = GuardedBuffer([Float](repeating: 7, count: count))
      var job = unsafe mwk_convolution_f32_job(
        images: item.map.images, height: item.map.height, width: item.map.width, channels: item.map.channels,
        outputs: item.outputs, kernel: item.kernel, x: x.pointer, weight: w.pointer,
        weight_type: item.type == .f32 ? mwk_weight_f32 : item.type == .f16 ? mwk_weight_f16 : mwk_weight_bf16,
        bias: hasBias ? UnsafePointer(b.pointer) : nil, activation: mwk_activation_none, y: y.pointer)
      #expect(unsafe mwk_convolution_f32(context.pointer, &job) == mwk_ok)
      withExtendedLifetime((x, w, b)) {}
      return y.values
    }
    #expect(found == item.reference(values, hasBias ? bias : nil))
  }

  /// A NaN reaches its neighbours and nothing else; an infinite weight of a tap that leaves the image reaches nothing.
  @Test func whatIsOutsideTakesNoPart() {
    var item = ConvolutionCase(map: Map(1, 4, 4, 1), kernel: 3, outputs: 1)
    item.map.elements = [Float](repeating: 1, count: 16)
    item.map.elements[0] = .nan
    let weights: [Float] = [.infinity, 0, 0, 0, 1, 0, 0, 0, 0]
    let found = unsafe item.map.run(count: 16) { context, x, y in
      let w = GuardedBuffer(weights)
      var job = unsafe mwk_convolution_f32_job(
        images: 1, height: 4, width: 4, channels: 1, outputs: 1, kernel: 3, x: x, weight: w.pointer,
        weight_type: mwk_weight_f32, bias: nil, activation: mwk_activation_none, y: y)
      let status = unsafe mwk_convolution_f32(context.pointer, &job)
      withExtendedLifetime(w) {}
      // NaN is not equal to itself, which checkVariants would take for a difference.
      for index in 0..<16 where unsafe y[index].isNaN { unsafe y[index] = -1 }
      return status
    }
    #expect(Array(found[0..<4]) == [-1, -1, 1, 1])
    #expect(found[4] == -1 && found[5] == -1 && found[6] == .infinity && found[12] == 1)
  }

  @Test(arguments: Map.sizes) private func maxPool(map: Map) {
    let expected = map.map(map.height / 2, map.width / 2) { image, row, column, channel in
      [(0, 0), (0, 1), (1, 0), (1, 1)].map { map.at(image, row * 2 + $0, column * 2 + $1, channel) }.max() ?? 0
    }
    let found = unsafe map.run(count: expected.count) { context, x, y in
      unsafe mwk_max_pool_f32(context.pointer, map.images, map.height, map.width, map.channels, x, y)
    }
    #expect(found == expected)
  }

  @Test(arguments: [0, 1, 2, 3]) func maxPoolKeepsNaN(place: Int) {
    var map = Map(1, 2, 2, 1)
    map.elements = [1, 2, 3, 4]
    map.elements[place] = .nan
    let found = unsafe map.run(count: 1) { context, x, y in
      let status = unsafe mwk_max_pool_f32(context.pointer, 1, 2, 2, 1, x, y)
      unsafe y[0] = y[0].isNaN ? -1 : y[0]
      return status
    }
    #expect(found == [-1])
  }

  @Test(arguments: Map.sizes, [1, 2, 3, 6]) private func averagePool(map: Map, bins: Int) {
    let expected = map.map(bins, bins) { image, row, column, channel in
      let rows = row * map.height / bins..<((row + 1) * map.height + bins - 1) / bins
      let columns = column * map.width / bins..<((column + 1) * map.width + bins - 1) / bins
      var sum: Float = 0
      for y in rows { for x in columns { sum += map.at(image, y, x, channel) } }
      return sum / Float(rows.count * columns.count)
    }
    let found = unsafe map.run(count: expected.count) { context, x, y in
      unsafe mwk_average_pool_f32(context.pointer, map.images, map.height, map.width, map.channels, bins, x, y)
    }
    #expect(found == expected)
  }

  @Test(arguments: Map.sizes, [(1, 1), (4, 12), (7, 3), (13, 16)])
  private func resizeBilinear(map: Map, target: (Int, Int)) {
    func neighbours(_ index: Int, _ size: Int, _ target: Int) -> (low: Int, high: Int, part: Float) {
      let place = max(0, Float(size) / Float(target) * (Float(index) + 0.5) - 0.5)
      let low = min(Int(place), size - 1)
      return (low, min(low + 1, size - 1), min(1, place - Float(low)))
    }
    let expected = map.map(target.0, target.1) { image, row, column, channel in
      let (y, x) = (neighbours(row, map.height, target.0), neighbours(column, map.width, target.1))
      func mixed(_ row: Int) -> Float {
        (1 - x.part) * map.at(image, row, x.low, channel) + x.part * map.at(image, row, x.high, channel)
      }
      return (1 - y.part) * mixed(y.low) + y.part * mixed(y.high)
    }
    let found = unsafe map.run(count: expected.count) { context, x, y in
      unsafe mwk_resize_bilinear_f32(
        context.pointer, map.images, map.height, map.width, map.channels, target.0, target.1, x, y)
    }
    #expect(found == expected)
  }

  @Test(arguments: Map.sizes) private func toImage(map: Map) {
    var expected: [Float] = []
    for image in 0..<map.images {
      for channel in 0..<map.channels {
        for row in 0..<map.height {
          for column in 0..<map.width { expected.append(map.at(image, row, column, channel)) }
        }
      }
    }
    let found = unsafe map.run(count: expected.count) { context, x, y in
      unsafe mwk_to_image_f32(context.pointer, map.images, map.height, map.width, map.channels, x, y)
    }
    #expect(found == expected)
  }

  @Test(arguments: [(1, 1, 1, 4), (2, 3, 2, 12), (1, 1, 5, 8), (0, 2, 2, 4)])
  func pixelShuffle(images: Int, height: Int, width: Int, channels: Int) throws {
    let map = Map(images, height, width, channels)
    let quarter = channels / 4
    var expected: [Float] = []
    for image in 0..<images {
      for row in 0..<height * 2 {
        for column in 0..<width * 2 {
          for channel in 0..<quarter {
            let place = (row % 2 * 2 + column % 2) * quarter + channel
            expected.append(map.at(image, row / 2, column / 2, place))
          }
        }
      }
    }
    var layout = RegionLayout()
    let (x, y) = (layout.floats(expected.count), layout.floats(expected.count))
    var arena = try Arena(byteCount: layout.byteCount)
    arena.write(map.elements, at: x)
    let size = MapSize(images: images, height: height, width: width, channels: channels)
    try KernelContext().pixelShuffle(&arena, size, x: x, into: y)
    #expect(arena.read(y) == expected)
  }
}
