import MultiwayArtifact
import MultiwayCore
import MultiwayGraph
import Testing

@Suite struct GraphJSONTests {
  private static let weight = TensorExpression.stored(
    StoredTensor(name: "w", dtype: .f32, shape: [3, 2], elements: [Float](repeating: 1, count: 6)))

  private static let text = """
    {
      "inputs": [
        {"name":"x","dtype":"f32","shape":["batch","text_tokens+197",2]}
      ],
      "outputs": [
        {"name":"logits","value":"y"}
      ],
      "constants": [
        {"name":"w","role":"head","modality":"shared"}
      ],
      "nodes": [
        {"op":"layer_norm","inputs":["x"],"outputs":["n"],"attributes":{"epsilon":1e-05},"role":"headNorm","modality":"text"},
        {"op":"linear","inputs":["n"],"outputs":["y"],"constants":{"weight":"w"},"modality":"shared"}
      ]
    }

    """

  private func decode(_ text: String) throws(ArtifactError) -> Graph {
    try GraphJSON.decode(text, data: ["w": GraphJSONTests.weight])
  }

  @Test func theTextIsReadableAndStable() throws {
    let graph = try decode(GraphJSONTests.text)
    #expect(GraphJSON.encode(graph) == GraphJSONTests.text)
    #expect(
      graph.description == """
        graph(x: f32[batch, text_tokens+197, 2]) -> (logits)
          %n = layer_norm %x, epsilon=1e-05 : f32[batch, text_tokens+197, 2]
          %y = linear %n, weight=w:f32[3, 2] : f32[batch, text_tokens+197, 3]
          return logits = %y

        """)
  }

  @Test(arguments: [1e-5, 1e-12, 0.125, 0.35355338, 0x1p-126, 3.4028235e38, 0x1p-149, -0.0] as [Float])
  func numbersComeBackExactly(value: Float) throws {
    var graph = Graph()
    let x = graph.addInput("x", ValueType(.f32, [1, 2]))
    let y = try graph.add(.scale(by: value), x, name: "y", modality: .shared)
    graph.outputs = [GraphOutput(name: "y", value: y)]
    let decoded = try GraphJSON.decode(GraphJSON.encode(graph), data: [:])
    guard case .scale(let factor) = decoded.nodes[0].op else {
      Issue.record("another op")
      return
    }
    #expect(factor.bitPattern == value.bitPattern)
  }

  /// A part of the text, what it is replaced with, and a part of the error.
  private static let faults: [(String, String, String)] = [
    ("\"inputs\": [\n", "\"inputs\": [[],\n", "not a JSON object"),
    ("\"inputs\": [", "\"more\": [], \"inputs\": [", "the member 'more'"),
    ("\"outputs\": [", "\"outpots\": [", "the member 'outpots'"),
    ("\"f32\"", "\"f16\"", "the dtype 'f16'; expected f32, i64 or u8"),
    ("\"f32\"", "3", "'dtype' is of another type"),
    ("[\"batch\",\"text_tokens+197\",2]", "[]", "0 dimensions"),
    ("[\"batch\",\"text_tokens+197\",2]", "[1,1,1,1,1,1,1,1,1]", "9 dimensions"),
    ("\"text_tokens+197\"", "-1", "the dimension -1"), ("\"text_tokens+197\"", "0", "the dimension 0"),
    ("\"text_tokens+197\"", "9223372036854775807", "the dimension 9223372036854775807"),
    ("text_tokens+197", "text_tokens+9223372036854775807", "the dimension"),
    ("text_tokens+197", "text_tokens+", "the dimension"), ("text_tokens+197", "+3", "the dimension"),
    ("text_tokens+197", "text_tokens+-1", "the dimension"), ("text_tokens+197", "Text", "the dimension"),
    ("\"text_tokens+197\"", "1.5", "the dimension 1.5"), ("\"text_tokens+197\"", "null", "the dimension null"),
    ("\"name\":\"x\"", "\"name\":\"\"", "a name of 0 bytes"),
    ("\"op\":\"linear\"", "\"op\":\"liner\"", "the op 'liner'"), ("\"op\":\"linear\",", "", "'op' is missing"),
    ("{\"weight\":\"w\"}", "{\"weight\":\"v\"}", "reads 'v'"), ("{\"weight\":\"w\"}", "{}", "'weight' is missing"),
    ("{\"weight\":\"w\"}", "{\"weight\":\"w\",\"scale\":\"w\"}", "the member 'scale'"),
    ("{\"weight\":\"w\"}", "{\"weight\":\"w\",\"bias\":\"w\"}", "constant 'w' is f32[3, 2]"),
    ("{\"weight\":\"w\"}", "[]", "not a JSON object"),
    ("[\"n\"],\"outputs\":[\"y\"]", "[\"y\"],\"outputs\":[\"n\"]", "reads 'y'"),
    ("\"outputs\":[\"y\"]", "\"outputs\":[\"n\"]", "makes 'n'"),
    ("\"outputs\":[\"y\"]", "\"outputs\":[\"y\",\"z\"]", "linear with 2 outputs"),
    ("\"outputs\":[\"y\"]", "\"outputs\":[]", "linear with 0 outputs"),
    ("\"inputs\":[\"n\"]", "\"inputs\":[]", "0 inputs"),
    ("\"inputs\":[\"n\"]", "\"inputs\":[1]", "'inputs' is of another"),
    ("1e-05", "1e300", "'epsilon' is of another type or out of range"), ("1e-05", "-1.0", "an epsilon of -1.0"),
    ("1e-05", "\"small\"", "'epsilon'"), ("{\"epsilon\":1e-05}", "{}", "'epsilon' is missing"),
    ("{\"epsilon\":1e-05}", "{\"epsilon\":1e-05,\"mode\":1}", "the member 'mode'"),
    ("\"headNorm\"", "\"headNorn\"", "'role' is of another"), ("\"text\"", "\"sound\"", "'modality'"),
    ("\"value\":\"y\"", "\"value\":\"q\"", "reads 'q'"),
    (
      "{\"name\":\"logits\",\"value\":\"y\"}", "{\"name\":\"a\",\"value\":\"y\"},{\"name\":\"a\",\"value\":\"n\"}",
      "two outputs"
    ),
    ("{\"name\":\"w\",\"role\":\"head\",\"modality\":\"shared\"}", "", "unexpected: w"),
    ("{\"name\":\"w\"", "{\"name\":\"w2\"", "missing: w2; unexpected: w"),
    (
      "{\"name\":\"w\",", "{\"name\":\"w\",\"role\":\"head\",\"modality\":\"text\"},{\"name\":\"w\",",
      "a second constant 'w'"
    ), ("\"text_tokens+197\",2]", "\"text_tokens+197\",3]", "a last dimension of 2"),
    ("\"nodes\": [", "\"nodes\": [,", "not JSON"),
    ("\"nodes\": [", "\"nodes\": {", "not JSON"),
  ]

  @Test(arguments: faults.indices)
  func everyFaultIsAnError(index: Int) throws {
    let (part, replacement, expected) = GraphJSONTests.faults[index]
    let text = GraphJSONTests.text.replacing(part, with: replacement, maxReplacements: 1)
    #expect(text != GraphJSONTests.text)
    do {
      _ = try decode(text)
      Issue.record("no error for \(replacement)")
    } catch { #expect(error.description.contains(expected), "\(error)") }
  }

  /// Ops whose attributes lead arithmetic to its limits.
  @Test(arguments: [
    "{\"op\":\"patchify\",\"attributes\":{\"size\":0}",
    "{\"op\":\"patchify\",\"attributes\":{\"size\":2147483647}",
    "{\"op\":\"select_token\",\"attributes\":{\"index\":-1}",
    "{\"op\":\"select_token\",\"attributes\":{\"index\":9223372036854775807}",
    "{\"op\":\"mean_tokens\",\"attributes\":{\"first\":-9223372036854775808}",
    "{\"op\":\"attention\",\"attributes\":{\"heads\":0,\"padded\":false}",
    "{\"op\":\"attention\",\"attributes\":{\"heads\":1,\"padded\":true}",
    "{\"op\":\"add_positions\",\"constants\":{\"table\":\"w\"},\"attributes\":{\"first_row\":2147483647}",
    "{\"op\":\"add_positions\",\"constants\":{\"table\":\"w\"},\"attributes\":{\"first_row\":-9223372036854775808}",
    "{\"op\":\"quantized_linear\",\"constants\":{\"panels\":\"w\",\"scales\":\"w\",\"sums\":\"w\"},"
      + "\"attributes\":{\"inputs\":2147483647,\"outputs\":2147483647}",
    "{\"op\":\"zero_padding\"", "{\"op\":\"embedding\",\"constants\":{\"table\":\"w\"}",
  ])
  func extremeAttributesAreErrors(op: String) {
    let node = op + ",\"inputs\":[\"x\"],\"outputs\":[\"z\"],\"modality\":\"shared\"},"
    let text = GraphJSONTests.text.replacing("\"nodes\": [", with: "\"nodes\": [" + node)
    #expect(throws: ArtifactError.self) { _ = try decode(text) }
  }

  @Test func dimensionsThatGrowWithoutEndAreRefused() {
    var nodes = ""
    var last = "x"
    for level in 0..<40 {
      let inputs = Array(repeating: "\"\(last)\"", count: 8).joined(separator: ",")
      last = "j\(level)"
      nodes += "{\"op\":\"join_tokens\",\"inputs\":[\(inputs)],\"outputs\":[\"\(last)\"],\"modality\":\"shared\"},"
    }
    let text = GraphJSONTests.text.replacing("\"text_tokens+197\"", with: "7")
      .replacing("\"nodes\": [", with: "\"nodes\": [" + nodes)
    do {
      _ = try decode(text)
      Issue.record("no error")
    } catch { #expect(error.description.contains("an output dimension of"), "\(error)") }
  }
}
