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
    fileprivate var exampleCount: Double
  }

  /// How many tokens of a value are kept as they are.
  public static let sampleCount = 8

  private var values: [String: Channels] = [:]

  /// Makes empty statistics.
  public init() {}

  /// The statistics of a value, nil where it was not seen.
  public subscript(name: String) -> Channels? { values[name] }

  /// The statistics of several values of one width as if they were one, nil where none was seen: each counts by its examples, and the
  /// samples are taken from all in turn.
  public func together(_ names: [String]) -> Channels? {
    let seen = names.compactMap { values[$0] }
    guard var joined = seen.first, seen.count > 1, seen.allSatisfy({ $0.means.count == joined.means.count }) else {
      return seen.first
    }
    let total = seen.reduce(0) { $0 + $1.exampleCount }
    for channel in joined.means.indices {
      joined.means[channel] = seen.reduce(0) { $0 + $1.means[channel] * $1.exampleCount / total }
      joined.meanSquares[channel] = seen.reduce(0) { $0 + $1.meanSquares[channel] * $1.exampleCount / total }
    }
    joined.samples = (0..<Self.sampleCount).compactMap { index in
      let samples = seen[index % seen.count].samples
      return samples.isEmpty ? nil : samples[index * samples.count / Self.sampleCount]
    }
    joined.exampleCount = total
    return joined
  }

  /// Takes over what others have of values that these have not.
  mutating func take(_ others: ActivationStatistics) { values.merge(others.values) { own, _ in own } }

  /// Adds tokens [tokens, width] of a value that come from so many examples. The samples are those of the last call.
  ///
  /// Examples are what counts, not tokens: those of one image look alike.
  public mutating func add(_ elements: [Float], width: Int, of name: String, examples: Int) {
    let tokens = width == 0 ? 0 : elements.count / width
    guard tokens > 0 else { return }
    var channels =
      values[name]
      ?? Channels(
        means: [Double](repeating: 0, count: width), meanSquares: [Double](repeating: 0, count: width),
        samples: [], exampleCount: 0)
    let total = channels.exampleCount + Double(examples)
    let (oldWeight, newWeight) = (channels.exampleCount / total, Double(examples) / total / Double(tokens))
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
      channels.means[channel] = channels.means[channel] * oldWeight + sums[channel] * newWeight
      channels.meanSquares[channel] = channels.meanSquares[channel] * oldWeight + squares[channel] * newWeight
    }
    channels.samples = Self.samples(elements, tokens: tokens, width: width)
    channels.exampleCount = total
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
