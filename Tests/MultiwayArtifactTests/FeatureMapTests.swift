import MultiwayArtifact
import MultiwayCore
import MultiwayGraph
import Testing

/// Ops on feature maps in the text of a graph.
@Suite struct FeatureMapTests {
  private static let data: [String: TensorExpression] = [
    "w": .stored(StoredTensor(name: "w", dtype: .f32, shape: [4, 18], elements: [Float](repeating: 1, count: 72))),
    "b": .stored(StoredTensor(name: "b", dtype: .f32, shape: [4], elements: [Float](repeating: 1, count: 4))),
  ]

  private static let nodes = [
    #"{"op":"convolution","inputs":["x"],"outputs":["c"],"constants":{"weight":"w","bias":"b"},"attributes":{"height":3,"width":4,"kernel":3},"modality":"vision"}"#,
    #"{"op":"pixel_shuffle","inputs":["c"],"outputs":["s"],"attributes":{"height":3,"width":4},"modality":"vision"}"#,
    #"{"op":"max_pool","inputs":["s"],"outputs":["m"],"attributes":{"height":6,"width":8},"modality":"vision"}"#,
    #"{"op":"average_pool","inputs":["x"],"outputs":["a"],"attributes":{"height":3,"width":4,"bins":6},"modality":"vision"}"#,
    #"{"op":"resize_bilinear","inputs":["a"],"outputs":["r"],"attributes":{"height":6,"width":6,"to_height":3,"to_width":4},"modality":"vision"}"#,
    #"{"op":"join_channels","inputs":["m","r"],"outputs":["j"],"modality":"vision"}"#,
    #"{"op":"to_image","inputs":["j"],"outputs":["y"],"attributes":{"height":3,"width":4},"modality":"vision"}"#,
  ]

  private static func text(_ nodes: [String]) -> String {
    """
    {
      "inputs": [
        {"name":"x","dtype":"f32","shape":["batch",12,2]}
      ],
      "outputs": [
        {"name":"logits","value":"y"}
      ],
      "constants": [
        {"name":"w","role":"head","modality":"shared"},
        {"name":"b","role":"head","modality":"shared"}
      ],
      "nodes": [
        \(nodes.joined(separator: ",\n    "))
      ]
    }

    """
  }

  @Test func theTextComesBackAsItWas() throws {
    let text = FeatureMapTests.text(FeatureMapTests.nodes)
    let graph = try GraphJSON.decode(text, data: FeatureMapTests.data)
    #expect(GraphJSON.encode(graph) == text)
    #expect(graph[graph.outputs[0].value].type.description == "f32[batch, 3, 3, 4]")
    #expect(
      graph.description.contains("%c = convolution %x, weight=w:f32[4, 18], bias=b:f32[4], height=3, width=4, kernel=3")
    )
  }

  /// The place of a node, a part of it, what it is replaced with, and a part of the error.
  private static let faults: [(Int, String, String, String)] = [
    (0, "\"width\":4", "\"width\":5", "a map of 3×5 from f32[batch, 12, 2]"),
    (0, "\"height\":3,\"width\":4", "\"height\":0,\"width\":4", "a map of 0×4"),
    (0, "\"height\":3,\"width\":4", "\"height\":2147483647,\"width\":2147483647", "a map of 2147483647×2147483647"),
    (0, "\"height\":3", "\"height\":-3", "'height' is of another type or out of range"),
    (0, "\"height\":3", "\"height\":9223372036854775807", "'height' is of another type or out of range"),
    (0, "\"height\":3,", "", "'height' is missing"), (0, "\"kernel\":3", "\"kernel\":2", "a kernel of 2×2"),
    (0, "\"kernel\":3", "\"kernel\":5", "weights [4, 18]; expected 5 · 5 · 2 inputs"),
    (0, "\"kernel\":3", "\"kernel\":0", "a kernel of 0×0"),
    (0, "\"kernel\":3", "\"kernel\":2147483647", "a kernel of 2147483647×2147483647"),
    (0, "\"bias\":\"b\"", "\"bias\":\"w\"", "constant 'w' is f32[4, 18]"),
    (0, "\"weight\":\"w\"", "\"weight\":\"b\"", "constant 'b' is f32[4]"),
    (0, "\"kernel\":3", "\"kernel\":3,\"stride\":2", "the member 'stride'"),
    (1, "[\"c\"]", "[\"x\"]", "2 channels; expected a multiple of 4"),
    (2, "\"height\":6,\"width\":8", "\"height\":48,\"width\":1", "a map of 24×0"),
    (3, "\"bins\":6", "\"bins\":0", "a map of 0×0"), (3, "\"bins\":6", "\"bins\":2147483647", "a map of"),
    (4, "\"to_width\":4", "\"to_width\":0", "a map of 3×0"),
    (4, "\"to_height\":3", "\"to_height\":2147483647", "a map of 2147483647×4"),
    (5, "[\"m\",\"r\"]", "[\"m\",\"c\",\"s\"]", "streams of the same batch and tokens"),
    (5, "[\"m\",\"r\"]", "[\"m\"]", "1 inputs"),
    (6, "\"height\":3,\"width\":4", "\"height\":12,\"width\":2", "a map of 12×2"),
  ]

  @Test(arguments: faults.indices)
  func everyFaultIsAnError(index: Int) throws {
    let (place, part, replacement, expected) = FeatureMapTests.faults[index]
    var nodes = FeatureMapTests.nodes
    nodes[place] = nodes[place].replacing(part, with: replacement, maxReplacements: 1)
    #expect(nodes[place] != FeatureMapTests.nodes[place])
    do {
      _ = try GraphJSON.decode(FeatureMapTests.text(nodes), data: FeatureMapTests.data)
      Issue.record("no error for \(replacement)")
    } catch { #expect(error.description.contains(expected), "\(error)") }
  }

  /// Maps that grow at every step end at the limit of a dimension.
  @Test func mapsThatGrowWithoutEndAreRefused() {
    var nodes = [
      #"{"op":"resize_bilinear","inputs":["x"],"outputs":["y"],"attributes":{"height":3,"width":4,"to_height":46340,"to_width":46340},"modality":"vision"}"#
    ]
    var (last, channels) = ("x", 2)
    while channels <= Int(Int32.max) {
      let inputs = Array(repeating: "\"\(last)\"", count: 8).joined(separator: ",")
      channels *= 8
      last = "j\(channels)"
      nodes.append(
        "{\"op\":\"join_channels\",\"inputs\":[\(inputs)],\"outputs\":[\"\(last)\"],\"modality\":\"vision\"}")
    }
    #expect(throws: ArtifactError.self) {
      _ = try GraphJSON.decode(FeatureMapTests.text(nodes), data: FeatureMapTests.data)
    }
  }
}
