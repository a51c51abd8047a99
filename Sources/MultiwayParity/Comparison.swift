import Glibc
public import MultiwayCore

/// How far a candidate's values are from the reference's, over all elements of all examples.
public struct Comparison: Sendable, Hashable {
  /// The value's name.
  public var name: String
  /// Signal to noise, 10·log₁₀(Σ reference² / Σ (reference − candidate)²), in dB; infinite where all elements are equal.
  public var sqnr: Double
  /// The cosine of the angle between the two, as vectors of all elements.
  public var cosine: Double
  /// The largest |reference − candidate|.
  public var maximumDifference: Double
  /// The mean |reference − candidate|.
  public var meanDifference: Double
  /// The largest minus the smallest element of the reference.
  public var referenceRange: Double
  /// The share of equal answers, for logits: of examples, or of positions where each has one; nil for other values.
  public var topOneAgreement: Double?
  /// The number of elements compared.
  public var elementCount: Int
  /// The number of elements that are infinite or not a number in one of the two but not the same in the other.
  public var brokenCount: Int

  /// True where every element is equal.
  public var isExact: Bool { sqnr == .infinity && brokenCount == 0 }
}

/// Gathers a comparison example by example, so that nothing but sums is kept.
public struct ComparisonAccumulator {
  private var signal = 0.0
  private var noise = 0.0
  private var candidateSignal = 0.0
  private var product = 0.0
  private var absolute = 0.0
  private var largest = 0.0
  private var low = Double.infinity
  private var high = -Double.infinity
  private var count = 0
  private var broken = 0
  private var rows = 0
  private var agreeing = 0

  /// Starts with nothing.
  public init() {}

  /// Adds as many elements of the one as of the other.
  public mutating func add(reference: [Float], candidate: [Float]) {
    precondition(reference.count == candidate.count, "\(reference.count) and \(candidate.count) elements")
    for index in reference.indices { add(Double(reference[index]), Double(candidate[index])) }
  }

  /// Adds the values of some examples.
  /// - Parameter isClassification: compare the answers of logits.
  mutating func add(reference: TensorValue, candidate: TensorValue, isClassification: Bool = false) {
    add(reference: reference.floats, candidate: candidate.floats)
    guard isClassification else { return }
    let (expected, found) = (TopOne.answers(reference), TopOne.answers(candidate))
    rows += expected.count
    agreeing += zip(expected, found).count { $0 == $1 }
  }

  private mutating func add(_ reference: Double, _ candidate: Double) {
    count += 1
    guard reference.isFinite, candidate.isFinite else {
      if reference != candidate && !(reference.isNaN && candidate.isNaN) { broken += 1 }
      return
    }
    let difference = abs(reference - candidate)
    signal += reference * reference
    candidateSignal += candidate * candidate
    product += reference * candidate
    noise += difference * difference
    absolute += difference
    largest = max(largest, difference)
    low = min(low, reference)
    high = max(high, reference)
  }

  /// The comparison of all that was added.
  public func result(name: String) -> Comparison {
    let ratio = noise == 0 ? .infinity : signal / noise
    let norms = (signal * candidateSignal).squareRoot()
    return Comparison(
      name: name, sqnr: broken > 0 ? -.infinity : 10 * log10(ratio), cosine: norms == 0 ? 1 : product / norms,
      maximumDifference: largest, meanDifference: count == 0 ? 0 : absolute / Double(count),
      referenceRange: max(0, high - low), topOneAgreement: rows == 0 ? nil : Double(agreeing) / Double(rows),
      elementCount: count, brokenCount: broken)
  }
}

/// The answer of a classifier.
public enum TopOne {
  /// The place of the largest element, the first of equals; 0 where none is a number.
  public static func index(_ row: ArraySlice<Float>) -> Int {
    var best = row.startIndex
    for index in row.indices where row[index] > row[best] || row[best].isNaN && !row[index].isNaN { best = index }
    return best - row.startIndex
  }

  /// The answers of logits [N, classes], one for each example, or of logits [N, classes, height, width], one for each position.
  public static func answers(_ logits: TensorValue) -> [Int] {
    let rows = classRows(logits)
    let (elements, width) = (rows.floats, rows.shape.last)
    return (0..<rows.shape[0]).map { index(elements[$0 * width..<($0 + 1) * width]) }
  }

  /// Logits as rows of classes.
  private static func classRows(_ logits: TensorValue) -> TensorValue {
    let shape = logits.shape
    guard shape.rank == 4 else {
      return TensorValue([shape.elementCount / max(1, shape.last), shape.last], logits.floats)
    }
    let (elements, classes, positions) = (logits.floats, shape[1], shape[2] * shape[3])
    var rows: [Float] = []
    rows.reserveCapacity(elements.count)
    for position in 0..<shape[0] * positions {
      let start = position / positions * classes * positions + position % positions
      for label in 0..<classes { rows.append(elements[start + label * positions]) }
    }
    return TensorValue([shape[0] * positions, classes], rows)
  }
}
