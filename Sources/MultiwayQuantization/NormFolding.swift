import MultiwayCore
public import MultiwayGraph
import MultiwayKernels

/// Decides how much of a LayerNorm's weight moves into the int8 linear layers behind it.
///
/// A LayerNorm and the layers that read it allow any positive factor t for each channel: `W n = (W diag t) (n / t)`, exactly, and at no
/// cost, as the norm's own weight takes the division. A channel that is large among the activations makes their steps coarse, one
/// that is large among the weights makes theirs coarse; t trades the one for the other (SmoothQuant, Xiao et al. 2022, where it is
/// called migration strength). Three ways are quantized and run on sample tokens: t = 1, t = γ, and
/// t = activationᵃ / weight¹⁻ᵃ by the root mean squares of each channel for a few a. The way with the smallest squared error wins.
public struct NormFolding {
  /// What becomes of a norm's weight.
  public enum Choice: Sendable {
    /// It stays.
    case keep
    /// All of it moves.
    case fold
    /// The factors t of the channels move.
    case balance([Float])
  }

  /// The tokens that are tried, [tokens, channels].
  private let tokens: [Float]
  /// The root mean square of each channel of the norm's result.
  private let magnitudes: [Double]
  /// The norm's weight γ.
  private let weight: [Float]

  /// The output channels of a matrix that are tried.
  private static let sampleRows = 48

  /// Takes the statistics of a norm's result n·γ + β.
  /// - Parameters:
  ///   - bias: β, which is folded away before; zero where nil.
  ///   - channels: nil where the model was not run; then the normed values are taken as normally distributed.
  public init(weight: [Float], bias: [Float]?, channels: ActivationStatistics.Channels?) {
    self.weight = weight
    guard let channels, channels.means.count == weight.count else {
      var random = NormalNumbers(seed: 0)
      tokens = (0..<ActivationStatistics.sampleCount).flatMap { _ in weight.map { Float(random.next()) * $0 } }
      magnitudes = weight.map { Double(abs($0)) }
      return
    }
    let shift = bias ?? [Float](repeating: 0, count: weight.count)
    tokens = channels.samples.flatMap { token in zip(token, shift).map { $0 - $1 } }
    magnitudes = weight.indices.map { index in
      let offset = Double(shift[index])
      let square = channels.meanSquares[index] - 2 * offset * channels.means[index] + offset * offset
      return max(0, square).squareRoot()
    }
  }

  /// The way with the smallest int8 error over all `matrices` [out, in] that read the norm; staying wins a tie.
  public func choose(_ matrices: [TensorExpression], _ materializer: inout Materializer) throws -> Choice {
    let kernels = try materializer.context()
    let samples = try sampledRows(matrices, &materializer)
    let columns = columnMagnitudes(samples, kernels)
    let ones = [Float](repeating: 1, count: weight.count)
    var best = (choice: Choice.keep, error: error(samples, factors: ones, kernels))
    func offer(_ choice: Choice, _ factors: [Float]) {
      let error = error(samples, factors: factors, kernels)
      if error < best.error { best = (choice, error) }
    }
    if weight.allSatisfy({ $0 != 0 }) { offer(.fold, weight) }
    for strength in Strength.allCases {
      let factors = factors(strength, columns)
      offer(.balance(factors), factors)
    }
    return best.choice
  }

  /// Exponents whose powers square roots alone give, so that they are the same on every machine.
  private enum Strength: CaseIterable {
    case threeEighths, half, fiveEighths

    func factor(activation: Double, weight: Double) -> Double {
      let (half, inverse) = (activation.squareRoot(), 1 / weight.squareRoot())
      // The eighth root of activation · weight moves the exponents from 1/2 by an eighth.
      let eighth = (activation * weight).squareRoot().squareRoot().squareRoot()
      return switch self {
      case .threeEighths: half * inverse / eighth
      case .half: half * inverse
      case .fiveEighths: half * inverse * eighth
      }
    }
  }

  private func factors(_ strength: Strength, _ columns: [Double]) -> [Float] {
    weight.indices.map { index in
      let factor = strength.factor(activation: magnitudes[index], weight: columns[index])
      // A channel that is always zero, or that nothing reads, has no factor to find.
      return factor.isFinite && factor > 1e-6 && factor < 1e6 ? Float(factor) : 1
    }
  }

  /// Rows of a matrix, and their products with the tokens.
  private struct Sample {
    /// [rows, channels] in C order.
    var rows: [Float]
    var count: Int
    /// [tokens, rows].
    var products: [Double]
  }

  /// The root mean square of each column over the sampled rows, each matrix on its own scale.
  private func columnMagnitudes(_ samples: [Sample], _ kernels: KernelContext) -> [Double] {
    var squares = [Double](repeating: 0, count: weight.count)
    for sample in samples {
      let columns = kernels.columnSquares(rows: sample.rows, inputs: weight.count)
      let total = columns.reduce(0, +)
      guard total > 0, total.isFinite else { continue }
      for index in squares.indices { squares[index] += columns[index] / total }
    }
    return squares.map { ($0 * Double(weight.count)).squareRoot() }
  }

  private func sampledRows(
    _ matrices: [TensorExpression], _ materializer: inout Materializer
  ) throws -> [Sample] {
    let kernels = try materializer.context()
    return try matrices.map { matrix in
      let outputs = matrix.shape[0]
      let count = min(Self.sampleRows, outputs)
      var rows: [Float] = []
      rows.reserveCapacity(count * weight.count)
      for index in 0..<count {
        let row = index * outputs / count
        rows += try materializer.floats(of: Materializer.rows(row..<row + 1, of: matrix))
      }
      let products = kernels.products(rows: rows, tokens: tokens, inputs: weight.count)
      return Sample(rows: rows, count: count, products: products)
    }
  }

  /// The squared error of both quantizations together, each matrix relative to its own outputs.
  private func error(_ samples: [Sample], factors: [Float], _ kernels: KernelContext) -> Double {
    let quantized = kernels.quantizedTokens(tokens, dividedBy: factors)
    var sum = 0.0
    for sample in samples {
      let (sums, scales) = kernels.quantizedProducts(rows: sample.rows, factors: factors, tokens: quantized.values)
      var (noise, signal) = (0.0, 0.0)
      for row in 0..<sample.count {
        for (place, scale) in quantized.scales.enumerated() {
          let exact = sample.products[place * sample.count + row]
          let difference = Double(sums[place * sample.count + row]) * Double(scales[row]) * Double(scale) - exact
          noise += difference * difference
          signal += exact * exact
        }
      }
      sum += signal > 0 ? noise / signal : noise
    }
    return sum
  }
}
