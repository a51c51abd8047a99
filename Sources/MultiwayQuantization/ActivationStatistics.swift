/// What the inputs of linear layers look like, by the names of the values that they read: gathered when a model runs on a few
/// examples, used to balance activations and weights.
public struct ActivationStatistics: Sendable {
  /// One value's statistics.
  public struct Channels: Sendable {
    /// The mean of each channel.
    public fileprivate(set) var means: [Double]
    /// The mean square of each channel.
    public fileprivate(set) var meanSquares: [Double]
    /// A few tokens, evenly spaced.
    public fileprivate(set) var samples: [[Float]]
    fileprivate var tokenCount: Int
  }

  /// How many tokens of a value are kept as they are.
  public static let sampleCount = 8

  private var values: [String: Channels] = [:]

  /// Makes empty statistics.
  public init() {}

  /// The statistics of a value, nil where it was not seen.
  public subscript(name: String) -> Channels? { values[name] }

  /// Adds tokens [tokens, width] of a value. The samples are those of the first call.
  public mutating func add(_ elements: [Float], width: Int, of name: String) {
    let tokens = width == 0 ? 0 : elements.count / width
    guard tokens > 0 else { return }
    var channels =
      values[name]
      ?? Channels(
        means: [Double](repeating: 0, count: width), meanSquares: [Double](repeating: 0, count: width),
        samples: Self.samples(elements, tokens: tokens, width: width), tokenCount: 0)
    let total = Double(channels.tokenCount + tokens)
    let weight = Double(channels.tokenCount) / total
    var (sums, squares) = ([Double](repeating: 0, count: width), [Double](repeating: 0, count: width))
    for token in 0..<tokens {
      let start = token * width
      for channel in 0..<width {
        let value = Double(elements[start + channel])
        sums[channel] += value
        squares[channel] += value * value
      }
    }
    for channel in 0..<width {
      channels.means[channel] = channels.means[channel] * weight + sums[channel] / total
      channels.meanSquares[channel] = channels.meanSquares[channel] * weight + squares[channel] / total
    }
    channels.tokenCount += tokens
    values[name] = channels
  }

  private static func samples(_ elements: [Float], tokens: Int, width: Int) -> [[Float]] {
    let count = min(sampleCount, tokens)
    return (0..<count).map { index in
      let token = index * tokens / count
      return Array(elements[token * width..<(token + 1) * width])
    }
  }
}
