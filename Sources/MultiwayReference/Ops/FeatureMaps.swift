import MultiwayCore
import MultiwayGraph

/// The ops on feature maps. Type inference has checked that the tokens are as many as the grid's positions.
extension NodeEvaluation {
  mutating func featureMap(_ op: FeatureMapOp, _ grid: Grid) throws -> [Float] {
    switch op {
    case .convolution(let weight, let bias, let kernel):
      return try convolution(weights(weight), try bias.map { id throws in try weights(id) }, kernel: kernel, grid)
    case .pixelShuffle: return pixelShuffle(grid)
    case .maxPool: return maxPool(grid)
    case .averagePool(let bins): return averagePool(bins, grid)
    case .resize(let target): return resize(grid, to: target)
    case .toImage: return toImage(grid)
    }
  }

  func joinChannels() -> [Float] {
    let tokens = inputs[0].shape.dimensions.dropLast().reduce(1, *)
    let streams = inputs.map { (elements: $0.floats, width: $0.shape.last) }
    var result: [Float] = []
    result.reserveCapacity(shapes[0].elementCount)
    for token in 0..<tokens {
      for stream in streams { result += stream.elements[token * stream.width..<(token + 1) * stream.width] }
    }
    return result
  }

  /// One row of an image at a time: its neighbourhoods, zeros outside, times the weights.
  private func convolution(_ weight: [Float], _ bias: [Float]?, kernel: Int, _ grid: Grid) throws -> [Float] {
    let values = input
    let length = kernel * kernel * width
    let outputs = shapes[0][2]
    var result = [Float](repeating: 0, count: shapes[0].elementCount)
    var neighbours = [Float](repeating: 0, count: grid.width * length)
    for row in 0..<shapes[0][0] * grid.height {
      let (image, y) = (row / grid.height, row % grid.height)
      gather(values, image: image, row: y, kernel: kernel, grid, into: &neighbours)
      let place = MatrixPlace(offset: row * grid.width * outputs, rows: grid.width, columns: outputs, stride: outputs)
      try BLAS.multiply(
        neighbours, MatrixPlace(rows: grid.width, columns: length), weight, MatrixPlace(rows: outputs, columns: length),
        transposesRight: true, into: &result, place)
    }
    guard let bias else { return result }
    for index in result.indices { result[index] += bias[index % outputs] }
    return result
  }

  private func gather(
    _ values: [Float], image: Int, row: Int, kernel: Int, _ grid: Grid, into neighbours: inout [Float]
  ) {
    let half = kernel / 2
    var target = 0
    for column in 0..<grid.width {
      for y in row - half...row + half {
        for x in column - half...column + half {
          let isInside = (0..<grid.height).contains(y) && (0..<grid.width).contains(x)
          let source = ((image * grid.height + y) * grid.width + x) * width
          for channel in 0..<width {
            neighbours[target] = isInside ? values[source + channel] : 0
            target += 1
          }
        }
      }
    }
  }

  private func pixelShuffle(_ grid: Grid) -> [Float] {
    let values = input
    let channels = width / 4
    var result: [Float] = []
    result.reserveCapacity(values.count)
    for row in 0..<inputs[0].shape[0] * grid.height * 2 {
      for column in 0..<grid.width * 2 {
        let block = row % 2 * 2 + column % 2
        let start = (row / 2 * grid.width + column / 2) * width + block * channels
        result += values[start..<start + channels]
      }
    }
    return result
  }

  private func maxPool(_ grid: Grid) -> [Float] {
    let values = input
    var result: [Float] = []
    for image in 0..<inputs[0].shape[0] {
      for row in 0..<grid.height / 2 {
        for column in 0..<grid.width / 2 {
          for channel in 0..<width {
            var largest = -Float.infinity
            for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
              let position = (image * grid.height + row * 2 + i) * grid.width + column * 2 + j
              let value = values[position * width + channel]
              if value > largest || value.isNaN { largest = value }
            }
            result.append(largest)
          }
        }
      }
    }
    return result
  }

  private func averagePool(_ bins: Int, _ grid: Grid) -> [Float] {
    func block(_ index: Int, _ size: Int) -> Range<Int> { index * size / bins..<((index + 1) * size + bins - 1) / bins }
    let values = input
    var result: [Float] = []
    for image in 0..<inputs[0].shape[0] {
      for row in 0..<bins {
        for column in 0..<bins {
          let (rows, columns) = (block(row, grid.height), block(column, grid.width))
          for channel in 0..<width {
            var sum = 0.0
            for y in rows {
              for x in columns {
                sum += Double(values[((image * grid.height + y) * grid.width + x) * width + channel])
              }
            }
            result.append(Float(sum / Double(rows.count * columns.count)))
          }
        }
      }
    }
    return result
  }

  private func resize(_ grid: Grid, to target: Grid) -> [Float] {
    let values = input
    let rows = Neighbours.all(from: grid.height, to: target.height)
    let columns = Neighbours.all(from: grid.width, to: target.width)
    var result: [Float] = []
    result.reserveCapacity(shapes[0].elementCount)
    for image in 0..<inputs[0].shape[0] {
      for row in rows {
        for column in columns {
          let corners = [
            (row.low, column.low), (row.low, column.high), (row.high, column.low), (row.high, column.high),
          ]
          .map { y, x in ((image * grid.height + y) * grid.width + x) * width }
          for channel in 0..<width {
            let corner = corners.map { Double(values[$0 + channel]) }
            let above = corner[0] * (1 - column.part) + corner[1] * column.part
            let below = corner[2] * (1 - column.part) + corner[3] * column.part
            result.append(Float(above * (1 - row.part) + below * row.part))
          }
        }
      }
    }
    return result
  }

  private func toImage(_ grid: Grid) -> [Float] {
    let values = input
    let positions = grid.height * grid.width
    var result: [Float] = []
    result.reserveCapacity(values.count)
    for image in 0..<inputs[0].shape[0] {
      for channel in 0..<width {
        for position in 0..<positions { result.append(values[(image * positions + position) * width + channel]) }
      }
    }
    return result
  }
}

/// The two positions of an axis that an interpolated one lies between.
private struct Neighbours {
  var low: Int
  var high: Int
  /// How far on the way from `low` to `high`.
  var part: Double

  /// PyTorch finds the place in fp32, and so its rounding belongs to the definition.
  static func all(from size: Int, to target: Int) -> [Neighbours] {
    let scale = Float(size) / Float(target)
    return (0..<target).map { index in
      let place = max(0, scale * (Float(index) + 0.5) - 0.5)
      let low = min(Int(place), size - 1)
      return Neighbours(low: low, high: min(low + 1, size - 1), part: Double(min(1, place - Float(low))))
    }
  }
}
