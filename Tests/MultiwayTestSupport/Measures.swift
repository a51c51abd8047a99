import Foundation
public import MultiwayCore

/// Signal to noise in dB, 10·log₁₀(Σ r² / Σ (r − c)²): ∞ where all elements are equal, −∞ where the lengths differ or the candidate
/// holds what is not a number.
///
/// Written apart from `MultiwayParity`, which it is used to judge.
public func decibels(_ reference: [Float], _ candidate: [Float]) -> Double {
  guard reference.count == candidate.count else { return -.infinity }
  var (signal, noise) = (0.0, 0.0)
  for (left, right) in zip(reference, candidate) {
    signal += Double(left) * Double(left)
    noise += (Double(left) - Double(right)) * (Double(left) - Double(right))
  }
  guard noise.isFinite, signal.isFinite else { return -.infinity }
  return noise == 0 ? .infinity : 10 * log10(signal / noise)
}

/// Signal to noise of two tensors in dB; −∞ where the shapes differ.
public func decibels(_ reference: TensorValue, _ candidate: TensorValue) -> Double {
  reference.shape == candidate.shape ? decibels(reference.floats, candidate.floats) : -.infinity
}

extension TensorValue {
  /// The bits of the elements as fp32: equal exactly where the tensors are, zeros of either sign told apart.
  public var bits: [UInt32] { floats.map(\.bitPattern) }
}

extension [String: TensorValue] {
  /// The bits of all tensors.
  public var bits: [String: [UInt32]] { mapValues(\.bits) }

  /// FNV-1a, 64 bits, over names, shapes and the bits of all tensors in the order of their names.
  public var digest: String {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    func add(_ byte: UInt8) { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    func add(_ word: UInt32) { for shift in [0, 8, 16, 24] { add(UInt8(truncatingIfNeeded: word >> shift)) } }
    for (name, value) in sorted(by: { $0.key < $1.key }) {
      for byte in name.utf8 { add(byte) }
      for dimension in value.shape.dimensions { add(UInt32(truncatingIfNeeded: dimension)) }
      for bits in value.bits { add(bits) }
    }
    let digits = String(hash, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}

/// The place of the largest element of every row of logits.
public func answers(_ logits: TensorValue) -> [Int] {
  let (floats, width) = (logits.floats, logits.shape.last)
  return (0..<logits.shape[0]).map { row in
    let scores = floats[row * width..<(row + 1) * width]
    return scores.indices.max { scores[$0] < scores[$1] }.map { $0 - scores.startIndex } ?? 0
  }
}

/// The share of equal elements.
public func agreement(_ left: [Int], _ right: [Int]) -> Double {
  Double(zip(left, right).count { $0 == $1 }) / Double(max(1, left.count, right.count))
}
