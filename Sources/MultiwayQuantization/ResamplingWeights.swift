import MultiwayGraph

/// What the points of the new grid take from those of the old one, along one axis: all methods are separable.
struct ResamplingWeights {
  /// The weights [to, from], a row for each new point.
  let rows: [[Double]]

  init(_ method: Resampling.Method, from: Int, to: Int) {
    switch method {
    case .bicubic: rows = (0..<to).map { ResamplingWeights.bicubic($0, from, to) }
    case .bicubicAntialiased: rows = (0..<to).map { ResamplingWeights.antialiased($0, from, to) }
    case .bilinear: rows = (0..<to).map { ResamplingWeights.bilinear($0, from, to) }
    case .geometricLinear:
      let points = GeometricGrid.points(from: from, to: to)
      rows = GeometricGrid.targets(to).map { ResamplingWeights.linear($0, points) }
    case .geometricCubic:
      let spline = CubicSpline(GeometricGrid.points(from: from, to: to))
      rows = GeometricGrid.targets(to).map { spline.weights(at: $0) }
    }
  }

  /// The table of a square grid with `channels` values a point, resampled along both axes, in double precision.
  func apply(_ table: ArraySlice<Float>, from: Int, channels: Int) -> [Float] {
    let (start, to) = (table.startIndex, rows.count)
    var middle = [Double](repeating: 0, count: from * to * channels)
    for y in 0..<from {
      for x in 0..<to {
        for (source, weight) in rows[x].enumerated() where weight != 0 {
          let (into, at) = ((y * to + x) * channels, start + (y * from + source) * channels)
          for channel in 0..<channels { middle[into + channel] += weight * Double(table[at + channel]) }
        }
      }
    }
    var result = [Double](repeating: 0, count: to * to * channels)
    for y in 0..<to {
      for (source, weight) in rows[y].enumerated() where weight != 0 {
        let (into, at) = (y * to * channels, source * to * channels)
        for place in 0..<to * channels { result[into + place] += weight * middle[at + place] }
      }
    }
    return result.map { Float($0) }
  }

  /// Cubic convolution kernel (Keys, 1981) with the free parameter `a`.
  private static func cubic(_ distance: Double, a: Double) -> Double {
    let x = abs(distance)
    if x <= 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0
  }

  private static func bicubic(_ point: Int, _ from: Int, _ to: Int) -> [Double] {
    var weights = [Double](repeating: 0, count: from)
    let place = (Double(point) + 0.5) * Double(from) / Double(to) - 0.5
    let base = Int(place.rounded(.down))
    for tap in base - 1...base + 2 {
      weights[min(max(tap, 0), from - 1)] += cubic(place - Double(tap), a: -0.75)
    }
    return weights
  }

  private static func antialiased(_ point: Int, _ from: Int, _ to: Int) -> [Double] {
    var weights = [Double](repeating: 0, count: from)
    let scale = Double(from) / Double(to)
    let width = max(1, scale)
    let centre = (Double(point) + 0.5) * scale
    let first = max(Int(centre - 2 * width + 0.5), 0)
    let end = min(Int(centre + 2 * width + 0.5), from)
    for tap in first..<max(first, end) {
      weights[tap] = cubic((Double(tap) - centre + 0.5) / width, a: -0.5)
    }
    let sum = weights.reduce(0, +)
    return sum == 0 ? weights : weights.map { $0 / sum }
  }

  private static func bilinear(_ point: Int, _ from: Int, _ to: Int) -> [Double] {
    var weights = [Double](repeating: 0, count: from)
    let place = max(0, (Double(point) + 0.5) * Double(from) / Double(to) - 0.5)
    let base = min(Int(place), from - 1)
    weights[base] += 1 - (place - Double(base))
    weights[min(base + 1, from - 1)] += place - Double(base)
    return weights
  }

  /// Lines between uneven points; outside of them the value at the end.
  private static func linear(_ place: Double, _ points: [Double]) -> [Double] {
    var weights = [Double](repeating: 0, count: points.count)
    let place = min(max(place, points[0]), points[points.count - 1])
    let right = points.firstIndex { $0 >= place } ?? points.count - 1
    guard right > 0, points[right] != place else {
      weights[right] = 1
      return weights
    }
    let share = (place - points[right - 1]) / (points[right] - points[right - 1])
    weights[right - 1] = 1 - share
    weights[right] = share
    return weights
  }
}

/// Where unilm places the source's points: near the middle a step apart, farther out in geometric progression, so that the outermost
/// stand at the target's ends.
enum GeometricGrid {
  /// The places of an odd number of points.
  static func points(from: Int, to: Int) -> [Double] {
    var (left, right) = (1.01, 1.5)
    var ratio = left
    // The original's bisection, step for step: what it ends at is part of the definition.
    while right - left > 1e-6 {
      ratio = (left + right) / 2
      let reach = (1 - power(ratio, from / 2)) / (1 - ratio)
      if reach > Double(to / 2) { right = ratio } else { left = ratio }
    }
    var distances: [Double] = []
    var current = 1.0
    for step in 0..<from / 2 {
      distances.append(current)
      current += power(ratio, step + 1)
    }
    return distances.reversed().map { -$0 } + [0] + distances
  }

  /// The places of the result's points: whole numbers around 0.
  static func targets(_ count: Int) -> [Double] { (0..<count).map { Double($0 - count / 2) } }

  private static func power(_ base: Double, _ exponent: Int) -> Double {
    (0..<exponent).reduce(1) { product, _ in product * base }
  }
}

/// The cubic spline through uneven points whose third derivative does not jump at the second and the last but one ("not a knot"): what
/// FITPACK's `regrid` gives without smoothing, one axis of it.
private struct CubicSpline {
  private let points: [Double]
  /// Second derivatives at the points as combinations of the values, [point, value].
  private let curvatures: [[Double]]

  init(_ points: [Double]) {
    self.points = points
    let count = points.count
    let steps = (0..<count - 1).map { points[$0 + 1] - points[$0] }
    var matrix = [[Double]](repeating: [Double](repeating: 0, count: count), count: count)
    var values = matrix
    for row in 1..<count - 1 {
      let (before, after) = (steps[row - 1], steps[row])
      matrix[row][row - 1] = before / 6
      matrix[row][row] = (before + after) / 3
      matrix[row][row + 1] = after / 6
      values[row][row - 1] = 1 / before
      values[row][row] = -1 / before - 1 / after
      values[row][row + 1] = 1 / after
    }
    for (row, first) in [(0, 0), (count - 1, count - 3)] {
      let (before, after) = (steps[first], steps[first + 1])
      matrix[row][first] = -1 / before
      matrix[row][first + 1] = 1 / before + 1 / after
      matrix[row][first + 2] = -1 / after
    }
    curvatures = CubicSpline.solve(matrix, values)
  }

  /// The value at a place as a combination of the values at the points; places outside count as the ends.
  func weights(at place: Double) -> [Double] {
    let place = min(max(place, points[0]), points[points.count - 1])
    let right = min(max(1, points.firstIndex { $0 > place } ?? points.count - 1), points.count - 1)
    let step = points[right] - points[right - 1]
    let (a, b) = ((points[right] - place) / step, (place - points[right - 1]) / step)
    var weights = points.indices.map { column in
      ((a * a * a - a) * curvatures[right - 1][column] + (b * b * b - b) * curvatures[right][column]) * step * step / 6
    }
    weights[right - 1] += a
    weights[right] += b
    return weights
  }

  /// X of A·X = B by elimination with row exchanges.
  private static func solve(_ a: [[Double]], _ b: [[Double]]) -> [[Double]] {
    var (a, b) = (a, b)
    let count = a.count
    for column in 0..<count {
      let pivot = (column..<count).max { abs(a[$0][column]) < abs(a[$1][column]) } ?? column
      a.swapAt(column, pivot)
      b.swapAt(column, pivot)
      for row in column + 1..<max(count, column + 1) where a[row][column] != 0 {
        let factor = a[row][column] / a[column][column]
        for place in column..<count { a[row][place] -= factor * a[column][place] }
        for place in b[row].indices { b[row][place] -= factor * b[column][place] }
      }
    }
    for row in (0..<count).reversed() {
      for place in row + 1..<max(count, row + 1) where a[row][place] != 0 {
        for column in b[row].indices { b[row][column] -= a[row][place] * b[place][column] }
      }
      for column in b[row].indices { b[row][column] /= a[row][row] }
    }
    return b
  }
}
