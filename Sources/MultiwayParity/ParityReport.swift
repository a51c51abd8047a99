public import MultiwayRuntime

/// The share of right answers of both models.
public struct Accuracy: Sendable, Hashable {
  /// Of the reference.
  public var reference: Double
  /// Of the candidate.
  public var candidate: Double
  /// On how many examples.
  public var examples: Int
}

/// What a comparison found, and whether that is what the recipe promises.
public struct ParityReport: Sendable {
  /// The outputs.
  public var outputs: [Comparison]
  /// The linear layers in execution order; empty where they were not compared.
  public var layers: [LayerComparison] = []
  /// What was promised.
  public var gates: Gates
  /// The number of examples.
  public var exampleCount: Int
  /// True where the inputs came from a seed instead of the real world.
  public var isSynthetic: Bool
  /// Accuracies, where labels were given.
  public var accuracy: Accuracy?
  /// The instruction set that the candidate ran on.
  public var isa: String
  /// What the candidate's layers that are not int8 were computed in.
  public var compute = ComputeType.f32

  /// The gates that were missed, a sentence each.
  public var failures: [String] {
    var failures: [String] = []
    for output in outputs {
      if output.brokenCount > 0 {
        failures.append("\(output.name): \(output.brokenCount) elements are infinite or undefined in one model only")
      } else if output.sqnr < gates.outputSQNR {
        failures.append("\(output.name): \(Decibels(output.sqnr)) is below \(Decibels(gates.outputSQNR))")
      }
      if let agreement = output.topOneAgreement, agreement < gates.topOneAgreement {
        failures.append(
          "\(output.name): \(Percent(agreement)) of the answers agree, fewer than \(Percent(gates.topOneAgreement))")
      }
    }
    if let gate = gates.layerSQNR {
      let low = layers.filter { $0.local.sqnr < gate }
      if let worst = low.min(by: { $0.local.sqnr < $1.local.sqnr }) {
        failures.append(
          "\(low.count) of \(layers.count) layers are below \(Decibels(gate)) locally, the worst is \(worst.name) with "
            + "\(Decibels(worst.local.sqnr))")
      }
    }
    return failures
  }

  /// True where no gate was missed.
  public var hasPassed: Bool { failures.isEmpty }

  /// The first layer that adds more error than the recipe allows, in execution order, and why.
  public var firstSuspect: (layer: LayerComparison, reason: String)? {
    let gate = gates.layerSQNR ?? gates.outputSQNR
    guard let layer = layers.first(where: { $0.local.sqnr < gate || $0.local.brokenCount > 0 }) else { return nil }
    if layer.local.brokenCount > 0 { return (layer, "its result is infinite or undefined: an overflow in its weights") }
    if layer.inputPeak > 24 {
      let peak = Int(layer.inputPeak.rounded())
      return (layer, "its input's largest value is \(peak) × the root mean square: a few channels dominate")
    }
    // No rounding to 8 bits is as coarse as this where the input is unremarkable.
    if layer.local.sqnr < 20 { return (layer, "its weights differ from the reference's by more than rounding") }
    return (layer, "its weights or activations spread more than the recipe's steps can follow")
  }

  /// What the verdict means, in words.
  public var verdict: String {
    var text: String
    if outputs.allSatisfy(\.isExact) {
      text = "PASSED: every output is bit for bit the reference's."
    } else if hasPassed {
      text = "PASSED: the candidate computes what the reference computes, within what its recipe promises"
      text += " (outputs ≥ \(Decibels(gates.outputSQNR)))."
    } else {
      text = "FAILED: " + failures.joined(separator: "; ") + "."
    }
    if isSynthetic {
      text += " The inputs were synthetic: this proves the arithmetic, it says nothing about accuracy on real data."
    } else if accuracy == nil {
      text += " Answers were compared with each other, not with labels."
    } else if exampleCount < 10_000 {
      text +=
        " \(exampleCount) examples are enough for these gates, but too few to certify a loss of a few tenths of a point."
    }
    return text
  }
}

/// A number of dB as text.
public struct Decibels: CustomStringConvertible {
  private let value: Double
  /// Wraps a number of dB.
  public init(_ value: Double) { self.value = value }
  /// `41.3 dB`, `exact`.
  public var description: String {
    if value == .infinity { return "exact" }
    if value == -.infinity { return "no signal" }
    return "\(fixed(value, 1)) dB"
  }
}

/// A share as text.
public struct Percent: CustomStringConvertible {
  private let value: Double
  /// Wraps a share.
  public init(_ value: Double) { self.value = value }
  /// `99.24 %`.
  public var description: String { "\(fixed(value * 100, 2)) %" }
}

/// A number with a fixed number of decimals.
public func fixed(_ value: Double, _ decimals: Int) -> String {
  guard value.isFinite, abs(value) < 1e15 else { return "\(value)" }
  var scale = 1.0
  for _ in 0..<decimals { scale *= 10 }
  let scaled = (abs(value) * scale).rounded()
  let whole = Int(scaled / scale)
  let sign = value < 0 && scaled > 0 ? "-" : ""
  guard decimals > 0 else { return sign + String(whole) }
  let rest = String(Int(scaled) - whole * Int(scale))
  return "\(sign)\(whole)." + String(repeating: "0", count: decimals - rest.count) + rest
}

/// A number in scientific notation with three digits.
public func scientific(_ value: Double) -> String {
  guard value.isFinite, value != 0 else { return value == 0 ? "0" : "\(value)" }
  var (mantissa, exponent) = (abs(value), 0)
  while mantissa >= 9.995 { (mantissa, exponent) = (mantissa / 10, exponent + 1) }
  while mantissa < 0.9995 { (mantissa, exponent) = (mantissa * 10, exponent - 1) }
  return (value < 0 ? "-" : "") + fixed(mantissa, 2) + "e\(exponent)"
}
