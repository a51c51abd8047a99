import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayTestSupport
import Testing

/// Models against what PyTorch computes for the same checkpoint and inputs.
///
/// 100 dB: both sides work in fp32, whose rounding is 2⁻²⁴ ≈ −144 dB for an operation; some hundred operations in a row that
/// add up, and norms that magnify what differs, have been seen to cost up to 35 dB. A wrong ε (1e-6 for 1e-5), a tanh-GELU or
/// a scale at the wrong place stands out at 40 to 80 dB.
@Suite struct GoldenTests {
  private static let floor = 100.0

  @Test(arguments: Fixtures.models, Engine.allCases)
  func outputsAreThoseOfPyTorch(model name: String, engine: Engine) throws {
    let goldens = try Fixtures.goldens(name)
    let outputs = try engine.run(try Fixtures.model(name).graph, try Fixtures.inputs(name))
    #expect(!outputs.isEmpty)
    for (output, value) in outputs {
      let golden = try #require(goldens[output], "no golden for \(output)")
      let quality = decibels(golden, value)
      #expect(quality >= GoldenTests.floor, "\(output): \(quality) dB")
    }
  }

  @Test(arguments: ["tiny/classification", "tiny/features"])
  func everyValueOnTheWayIsThatOfPyTorch(model name: String) throws {
    let goldens = try Fixtures.goldens(name)
    let values = try referenceValues(try Fixtures.model(name).graph, try Fixtures.inputs(name))
    // A renamed value would silently go uncompared.
    #expect(goldens.keys.filter { values[$0] == nil }.sorted() == [])
    for (value, golden) in goldens {
      let quality = decibels(golden, try #require(values[value]))
      #expect(quality >= GoldenTests.floor, "\(value): \(quality) dB")
    }
  }

  /// A padding mask that is all zero, or left out, says the same thing.
  @Test(arguments: Engine.allCases)
  func aMaskThatIsLeftOutPadsNothing(engine: Engine) throws {
    let graph = try Fixtures.model("tiny/features").graph
    var inputs = try Fixtures.inputs("tiny/features")
    let text = try #require(inputs["text"])
    inputs["padding_mask"] = TensorValue(text.shape, integers: [Int](repeating: 0, count: text.shape.elementCount))
    let explicit = try engine.run(graph, try graph.bind(inputs).named(in: graph))
    inputs["padding_mask"] = nil
    let implicit = try engine.run(graph, try graph.bind(inputs).named(in: graph))
    #expect(explicit.bits == implicit.bits)
    let padded = try engine.run(graph, try Fixtures.inputs("tiny/features"))
    #expect(padded.bits != implicit.bits, "the fixture pads its second text, which must matter")
  }
}

extension BoundInputs {
  fileprivate func named(in graph: Graph) -> [String: TensorValue] {
    Dictionary(uniqueKeysWithValues: zip(graph.inputs, tensors).map { (graph[$0].name, $1) })
  }
}

/// The trained model, on images that it has not seen.
@Suite struct DigitsTests {
  /// 95 dB: four trained layers, whose few large channels magnify differences more than the tiny models' weights do.
  private static let floor = 95.0

  @Test func theRuntimeGivesPyTorchsLogits() throws {
    let (image, labels, golden) = try Fixtures.digits()
    let logits = try #require(
      try Engine.runtime.run(try Fixtures.model("digits").graph, ["image": image])["logits"])
    #expect(decibels(golden, logits) >= DigitsTests.floor)
    #expect(answers(logits) == answers(golden))
    // The accuracy that the fixture's metadata records.
    #expect(abs(agreement(answers(logits), labels) - 0.991667) < 1e-6)
  }

  @Test func theReferenceGivesPyTorchsLogits() throws {
    let (image, _, golden) = try Fixtures.digits(0..<24)
    let logits = try #require(
      try Engine.reference.run(try Fixtures.model("digits").graph, ["image": image])["logits"])
    #expect(decibels(golden, logits) >= DigitsTests.floor)
  }
}
