import Glibc

/// e to a power, for what people read; models have their own.
enum Exponential {
  static func of(_ power: Double) -> Double { exp(power) }
}
