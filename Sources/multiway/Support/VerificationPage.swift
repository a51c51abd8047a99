import MultiwayConversion
import MultiwayCore
import MultiwayParity
import MultiwayRuntime

/// A parity report for people and for machines: text, JSON, HTML.
struct VerificationPage {
  let report: ParityReport
  let reference: String
  let candidate: String
  let recipe: String
  let showsLayers: Bool
  let showsSuspect: Bool

  /// What stands behind the instruction set.
  private var arithmetic: String { report.compute == .bf16 ? " in bf16" : "" }

  /// The table and the verdict.
  var text: String {
    var parts = [
      Text.table([
        ["reference", reference + "  (fp32 interpreter)"],
        ["candidate", candidate + "  (recipe \(recipe), runtime on \(report.isa)\(arithmetic))"],
        ["inputs", "\(report.exampleCount) examples" + (report.isSynthetic ? ", SYNTHETIC" : "")],
      ]),
      Text.table([outputHeader] + report.outputs.map(outputRow), rightAligned: [1, 2, 3, 4, 5]),
    ]
    if let accuracy = report.accuracy {
      let loss = (accuracy.reference - accuracy.candidate) * 100
      parts.append(
        "accuracy  reference \(Percent(accuracy.reference)), candidate \(Percent(accuracy.candidate)) on "
          + "\(accuracy.examples) labelled examples (loses \(fixed(loss, 2)) points)")
    }
    if !report.layers.isEmpty { parts.append(layerText) }
    if showsSuspect { parts.append(suspectText) }
    parts.append(report.verdict)
    return parts.joined(separator: "\n\n")
  }

  /// The report as JSON.
  var json: JSONValue {
    var object: JSONObject = [
      "reference": .string(name(reference)), "candidate": .string(name(candidate)), "recipe": .string(recipe),
      "tool_version": .string(MultiwayVersion.current),
    ]
    for (key, value) in report.json.members { object[key] = value }
    return .object(object)
  }

  private func name(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

  private var outputHeader: [String] { ["output", "SQNR", "cosine", "max |Δ|", "mean |Δ|", "same answer"] }

  private func outputRow(_ output: Comparison) -> [String] {
    [
      output.name, Decibels(output.sqnr).description, fixed(output.cosine, 7), scientific(output.maximumDifference),
      scientific(output.meanDifference), output.topOneAgreement.map { Percent($0).description } ?? "–",
    ]
  }

  private var layerRows: [[String]] {
    report.layers.map { layer in
      [
        layer.name, Decibels(layer.local.sqnr).description, Decibels(layer.cumulative.sqnr).description,
        fixed(layer.inputPeak, 1),
      ]
    }
  }

  private var layerText: String {
    let worst = report.layers.map(\.local.sqnr).min() ?? .infinity
    let summary = "layers    \(report.layers.count) linear layers, the least local SQNR is \(Decibels(worst))"
    guard showsLayers else { return summary }
    let header = ["layer", "local", "cumulative", "input max/rms"]
    return Text.table([header] + layerRows, rightAligned: [1, 2, 3]) + "\n" + summary
  }

  private var suspectText: String {
    guard let (layer, reason) = report.firstSuspect else {
      return "bisect    no layer adds more error than the recipe allows"
    }
    return
      "bisect    the first layer below its gate is \(layer.name) (\(Decibels(layer.local.sqnr)) locally): \(reason)"
  }

  /// The report as a page that needs nothing else.
  var html: String {
    let verdictClass = report.hasPassed ? "passed" : "failed"
    var body = "<h1>Parity of \(escape(name(candidate)))</h1>\n"
    body += "<p class=\"\(verdictClass)\">\(escape(report.verdict))</p>\n"
    body += HTML.table(
      ["", ""],
      [
        ["reference", name(reference)], ["candidate", name(candidate)], ["recipe", recipe],
        ["examples", "\(report.exampleCount)" + (report.isSynthetic ? " (synthetic)" : "")],
        ["instruction set", report.isa + arithmetic], ["multiway", MultiwayVersion.current],
      ])
    body += "<h2>Outputs</h2>\n" + HTML.table(outputHeader, report.outputs.map(outputRow))
    if let accuracy = report.accuracy {
      body += "<p>Accuracy on \(accuracy.examples) labelled examples: reference \(Percent(accuracy.reference)), "
      body += "candidate \(Percent(accuracy.candidate)).</p>\n"
    }
    if showsSuspect { body += "<p>\(escape(suspectText))</p>\n" }
    if !report.layers.isEmpty {
      body += "<h2>Layers</h2>\n" + HTML.table(["layer", "local", "cumulative", "input max/rms"], layerRows)
    }
    return HTML.page(title: "Parity of \(escape(name(candidate)))", body: body)
  }

  private func escape(_ text: String) -> String { HTML.escape(text) }
}

/// Small pieces of HTML.
enum HTML {
  static func escape(_ text: String) -> String {
    text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
      .replacing("\"", with: "&quot;")
  }

  static func table(_ header: [String], _ rows: [[String]]) -> String {
    func row(_ cells: [String], _ tag: String) -> String {
      "<tr>" + cells.map { "<\(tag)>\(escape($0))</\(tag)>" }.joined() + "</tr>\n"
    }
    let head = header.contains { !$0.isEmpty } ? row(header, "th") : ""
    return "<table>\n" + head + rows.map { row($0, "td") }.joined() + "</table>\n"
  }

  static func page(title: String, body: String) -> String {
    """
    <!doctype html>
    <html lang="en"><head><meta charset="utf-8"><title>\(title)</title>
    <style>
    body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1a1a1a; background: #fff; }
    table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: right; }
    td:first-child, th:first-child { text-align: left; } td { font-variant-numeric: tabular-nums; }
    .passed, .failed { padding: .75rem 1rem; border-left: 6px solid; } .passed { border-color: #1a7f37; background: #e9f7ec; }
    .failed { border-color: #b42318; background: #fdecea; }
    </style></head><body>
    \(body)</body></html>

    """
  }
}
