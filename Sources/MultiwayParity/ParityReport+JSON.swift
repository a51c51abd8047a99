public import MultiwayCore
import MultiwayRuntime

extension ParityReport {
  /// The report as JSON: what `--json` prints and what a certificate holds.
  public var json: JSONObject {
    var object: JSONObject = [
      "passed": .bool(hasPassed), "verdict": .string(verdict), "examples": .integer(exampleCount),
      "synthetic_inputs": .bool(isSynthetic), "isa": .string(isa),
      "compute": .string(compute.rawValue), "gates": .object(gates.json),
      "outputs": .array(outputs.map { .object($0.json) }),
    ]
    if let accuracy {
      object["accuracy"] = .object([
        "reference": .real(accuracy.reference), "candidate": .real(accuracy.candidate),
        "examples": .integer(accuracy.examples),
      ])
    }
    if !layers.isEmpty {
      object["layers"] = .array(
        layers.map { layer in
          .object([
            "name": .string(layer.name), "local_sqnr_db": .number(layer.local.sqnr),
            "cumulative_sqnr_db": .number(layer.cumulative.sqnr), "input_peak": .number(layer.inputPeak),
          ])
        })
    }
    if let (layer, reason) = firstSuspect {
      object["first_suspect"] = .object(["layer": .string(layer.name), "reason": .string(reason)])
    }
    return object
  }
}

extension Gates {
  /// The gates as JSON.
  public var json: JSONObject {
    var object: JSONObject = [
      "output_sqnr_db": .real(outputSQNR), "top_one_agreement": .real(topOneAgreement),
    ]
    if let layerSQNR { object["layer_sqnr_db"] = .real(layerSQNR) }
    return object
  }
}

extension Comparison {
  /// The comparison as JSON; `sqnr_db` is null for equal values, which `exact` tells.
  public var json: JSONObject {
    var object: JSONObject = [
      "name": .string(name), "exact": .bool(isExact), "sqnr_db": .number(sqnr), "cosine": .number(cosine),
      "max_abs_difference": .number(maximumDifference), "mean_abs_difference": .number(meanDifference),
      "reference_range": .number(referenceRange), "elements": .integer(elementCount),
      "broken_elements": .integer(brokenCount),
    ]
    if let topOneAgreement { object["top_one_agreement"] = .real(topOneAgreement) }
    return object
  }
}

extension JSONValue {
  /// A number, null where JSON has none for it.
  fileprivate static func number(_ value: Double) -> JSONValue { value.isFinite ? .real(value) : .null }
}
