import MultiwayKernels

/// Logarithms of probabilities, the same bits on every machine: the exponentials of a row by the kernels, the rest in double precision with
/// + − × ÷ alone, as a C library's functions differ in the last bit.
enum LogSoftmax {
  /// What is subtracted from the logits of each row [rows, width] to make them the logarithms of their probabilities: the logarithm of the
  /// sum of all exponentials.
  static func normalizers(_ logits: [Float], width: Int, _ kernels: KernelContext) -> [Double] {
    kernels.exponentialSums(logits, width: width).map { largest, sum in
      largest.isFinite ? Double(largest) + logarithm(sum) : Double(largest)
    }
  }

  /// eˣ for x ≤ 0, NaN for NaN; 0 below −100, which adds nothing to a sum that holds a 1.
  static func exponential(_ x: Double) -> Double {
    guard x >= -100 else { return x.isNaN ? x : 0 }
    let power = (x * 1.4426950408889634).rounded()
    let rest = x - power * 0.6931471805599453
    // |rest| ≤ 0.35: the next term is below 10⁻¹⁹.
    var term = 1.0
    var sum = 1.0
    for n in 1...15 {
      term = term * rest / Double(n)
      sum += term
    }
    return Double(sign: .plus, exponent: Int(power), significand: sum)
  }

  /// ln x for a normal x > 0; NaN for NaN.
  static func logarithm(_ x: Double) -> Double {
    guard x.isNormal, x > 0 else { return .nan }
    let isLarge = x.significand > 1.4142135623730951
    let mantissa = isLarge ? x.significand / 2 : x.significand
    let exponent = Double(x.exponent) + (isLarge ? 1 : 0)
    // ln m = 2 artanh((m − 1) ÷ (m + 1)), whose argument is at most 0.172: the next term is below 10⁻¹⁸.
    let s = (mantissa - 1) / (mantissa + 1)
    var power = s
    var sum = 0.0
    for n in 0...11 {
      sum += power / Double(2 * n + 1)
      power = power * s * s
    }
    return exponent * 0.6931471805599453 + 2 * sum
  }
}
