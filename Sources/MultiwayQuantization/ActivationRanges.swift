/// How large the elements of values are when a model runs on a few examples, and the 8-bit steps that fit them best: for formats that fix
/// them when a model is written.
public struct ActivationRanges: Sendable {
  /// Counts of elements by sign, power of two and the five bits behind it, and the smallest and largest.
  private struct Histogram {
    var counts: [Int]
    var low: Float = 0
    var high: Float = 0

    init() { counts = [Int](repeating: 0, count: 2 * ActivationRanges.binCount) }
  }

  /// A step and the integer that stands for 0.
  public struct Step: Hashable, Sendable {
    /// The difference of two neighbours.
    public var scale: Float
    /// The integer of 0, from −128 to 127.
    public var zeroPoint: Int8

    /// Makes a step.
    public init(scale: Float, zeroPoint: Int8) {
      self.scale = scale
      self.zeroPoint = zeroPoint
    }
  }

  /// Magnitudes from 2⁻⁶⁴ on have bins of their own, 32 for a power of two.
  private static let smallestExponent = -64
  private static let binCount = 192 * 32

  private var histograms: [String: Histogram] = [:]

  /// Makes empty ranges.
  public init() {}

  /// Adds elements of a value. What is not finite is left out.
  public mutating func add(_ elements: [Float], of name: String) {
    var histogram = histograms.removeValue(forKey: name) ?? Histogram()
    for element in elements where element.isFinite {
      histogram.low = min(histogram.low, element)
      histogram.high = max(histogram.high, element)
      histogram.counts[ActivationRanges.bin(element)] += 1
    }
    histograms[name] = histogram
  }

  private static func bin(_ element: Float) -> Int {
    let bits = Int(element.magnitude.bitPattern >> 18)
    // 2⁻⁶⁴ has the exponent 63 in its bits.
    let bin = min(max(0, bits - (smallestExponent + 127) * 32), binCount - 1)
    return element < 0 ? binCount + bin : bin
  }

  /// The middle of a bin.
  private static func magnitude(_ bin: Int) -> Double {
    let place = bin % binCount
    let base = Float(bitPattern: UInt32(place + (smallestExponent + 127) * 32) << 18)
    return Double(base) * (1 + 1 / 64)
  }

  /// The step of a value with the smallest mean square error over a few ranges, from the whole one down to a quarter of it; nil for a
  /// value that was not seen.
  /// - Parameter isSymmetric: 0 stands for 0, as some consumers want; else both ends of the range are tried by themselves.
  public func step(of name: String, isSymmetric: Bool) -> Step? {
    guard let histogram = histograms[name] else { return nil }
    let top = max(-histogram.low, histogram.high)
    guard top > Float.leastNormalMagnitude * 256 else { return Step(scale: 1, zeroPoint: 0) }
    let bins = histogram.counts.indices.filter { histogram.counts[$0] > 0 }.map { bin in
      let magnitude = Self.magnitude(bin)
      return (value: bin < Self.binCount ? magnitude : -magnitude, count: Double(histogram.counts[bin]))
    }
    var best = (step: Step(scale: 1, zeroPoint: 0), error: Double.infinity)
    for step in isSymmetric ? Self.symmetric(top) : Self.asymmetric(histogram.low, histogram.high) {
      let error = Self.error(of: step, bins)
      if error < best.error { best = (step, error) }
    }
    return best.step
  }

  private static let shares: [Float] = (0...24).map { 1 - Float($0) / 32 }

  private static func symmetric(_ top: Float) -> [Step] {
    shares.map { Step(scale: top * $0 / 127, zeroPoint: 0) }
  }

  private static func asymmetric(_ low: Float, _ high: Float) -> [Step] {
    shares.flatMap { lowShare in
      shares.map { highShare in
        let (low, high) = (low * lowShare, high * highShare)
        let scale = (high - low) / 255
        let zero = (-128 - low / scale).rounded(.toNearestOrEven)
        return Step(scale: scale, zeroPoint: Int8(max(-128, min(127, zero))))
      }
    }.filter { $0.scale.isNormal }
  }

  /// The square error: what is cut off, and a twelfth of the step's square for everything else.
  private static func error(of step: Step, _ bins: [(value: Double, count: Double)]) -> Double {
    let scale = Double(step.scale)
    let low = Double(-128 - Int(step.zeroPoint)) * scale
    let high = Double(127 - Int(step.zeroPoint)) * scale
    var sum = 0.0
    for bin in bins {
      let beyond = max(0, bin.value - high, low - bin.value)
      // Numbers smaller than half a step become 0.
      let noise = bin.value.magnitude < scale / 2 ? bin.value * bin.value : scale * scale / 12
      sum += bin.count * (beyond > 0 ? beyond * beyond + scale * scale / 12 : noise)
    }
    return sum
  }
}
