import MultiwayCore
import MultiwayONNX
import Testing

@Suite struct CodecTests {
  private static func sample() -> ONNXModel {
    var graph = ONNXGraph(name: "sample")
    graph.nodes = [
      ONNXNode(
        "Resize", name: "first", inputs: ["x", "", "", "sizes"], outputs: ["y", "z"],
        attributes: [
          ONNXAttribute("integer", .integer(-3)), ONNXAttribute("real", .real(0.5)), ONNXAttribute("text", .text("é")),
          ONNXAttribute("integers", .integers([1, -1, Int.max])), ONNXAttribute("reals", .reals([1, -.infinity])),
        ]),
      ONNXNode("Relu", name: "", inputs: ["y"], outputs: ["w"]),
    ]
    graph.initializers = [
      ONNXTensor(name: "sizes", elementType: .int64, dimensions: [0], content: .inline([])),
      ONNXTensor(name: "scalar", elementType: .float, dimensions: [], content: .inline([0, 0, 128, 63])),
      ONNXTensor(
        name: "weights", elementType: .float16, dimensions: [2, 3],
        content: .external(location: "a.onnx.data", offset: 4096, byteCount: 12)),
    ]
    graph.inputs = [ONNXValueInfo(name: "x", elementType: 1, dimensions: [.symbol("batch"), .size(3), .size(0)])]
    graph.outputs = [ONNXValueInfo(name: "w", elementType: 7, dimensions: [])]
    graph.values = [ONNXValueInfo(name: "y", elementType: 9, dimensions: [.symbol("text_tokens+2")])]
    return ONNXModel(
      irVersion: 8, opset: 17, producerName: "multiway", producerVersion: "1", description: "a text", graph: graph,
      properties: [ONNXProperty("key", "value"), ONNXProperty("", "")])
  }

  @Test func whatIsWrittenIsRead() throws {
    let bytes = try CodecTests.sample().encoded()
    let read = try ONNXModel(decoding: bytes.span)
    #expect(read == CodecTests.sample())
  }

  /// The bytes by hand, after the standard's field numbers: what any protobuf reader finds.
  @Test func fieldsHaveTheNumbersOfTheStandard() throws {
    var graph = ONNXGraph(name: "g")
    graph.nodes = [
      ONNXNode("Add", name: "n", inputs: ["a", "b"], outputs: ["c"], attributes: [ONNXAttribute("k", .integer(5))])
    ]
    graph.initializers = [ONNXTensor(name: "b", elementType: .int8, dimensions: [2], content: .inline([7, 8]))]
    graph.outputs = [ONNXValueInfo(name: "c", elementType: 1, dimensions: [.size(4), .symbol("N")])]
    let model = ONNXModel(
      irVersion: 8, opset: 17, producerName: "p", producerVersion: "v", description: "d", graph: graph,
      properties: [ONNXProperty("q", "w")])
    func field(_ number: UInt8, _ content: [UInt8]) -> [UInt8] { [number << 3 | 2, UInt8(content.count)] + content }
    func number(_ field: Int, _ value: UInt8) -> [UInt8] {
      field < 16 ? [UInt8(field) << 3, value] : [UInt8(field << 3 & 0x7F) | 0x80, UInt8(field >> 4), value]
    }
    func text(_ field: UInt8, _ text: String) -> [UInt8] { [field << 3 | 2, UInt8(text.utf8.count)] + text.utf8 }
    let attribute = text(1, "k") + number(3, 5) + number(20, 2)
    let node = text(1, "a") + text(1, "b") + text(2, "c") + text(3, "n") + text(4, "Add") + field(5, attribute)
    let tensor = number(1, 2) + number(2, 3) + text(8, "b") + field(9, [7, 8])
    let shape = field(1, number(1, 4)) + field(1, text(2, "N"))
    let output = text(1, "c") + field(2, field(1, number(1, 1) + field(2, shape)))
    let wanted =
      number(1, 8) + text(2, "p") + text(3, "v") + text(6, "d")
      + field(7, field(1, node) + text(2, "g") + field(5, tensor) + field(12, output))
      + field(8, text(1, "") + number(2, 17)) + field(14, text(1, "q") + text(2, "w"))
    let bytes = try model.encoded()
    #expect(bytes.array(of: UInt8.self) == wanted)
  }

  /// Whatever is cut off or changed: an error or another model, never a trap.
  @Test func damagedBytesAreReadOrRefused() throws {
    let whole = try CodecTests.sample().encoded().array(of: UInt8.self)
    func isRead(_ bytes: [UInt8]) -> Bool {
      let copy = TensorBytes(copying: bytes)
      do {
        _ = try ONNXModel(decoding: copy.span)
        return true
      } catch {
        #expect(error.code == .malformed)
        return false
      }
    }
    var refused = 0
    for length in 0..<whole.count { if !isRead(Array(whole[..<length])) { refused += 1 } }
    #expect(refused > whole.count / 2)
    for place in whole.indices {
      for change in [UInt8(1), 0x80, 0xFF] {
        var damaged = whole
        damaged[place] ^= change
        _ = isRead(damaged)
      }
    }
  }

  @Test func aModelNeedsAGraphAndAnOpset() throws {
    for bytes in [[UInt8](), [8, 8], Array("not a model".utf8)] {
      let copy = TensorBytes(copying: bytes)
      let error = #expect(throws: ONNXError.self) { try ONNXModel(decoding: copy.span, file: "x.onnx") }
      #expect(error?.code == .malformed)
      #expect(error?.diagnosis.file == "x.onnx")
    }
  }

  @Test func everyOpsetHasItsFormatVersion() throws {
    #expect(try [13, 15, 17, 19, 21].map { try ONNXOpset($0).irVersion } == [7, 8, 8, 9, 10])
    for version in [12, 22] {
      #expect(throws: ONNXError.self) { try ONNXOpset(version) }
    }
  }
}
