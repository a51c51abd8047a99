import MultiwayCore
import MultiwayGraph
import MultiwayKernels
import MultiwayRuntime
import MultiwayTestSupport
import Testing

/// Whole models whose floating-point layers are computed in bfloat16.
@Suite struct BFloat16Tests {
  private static let isPossible = ISA.avx512.isSupported && ISA.avx512.multipliesBFloat16

  /// Close to fp32, and the same for any number of threads and any batch that an example is in.
  @Test(.enabled(if: isPossible), arguments: ["tiny/features", "tiny/heads/vqa", "tiny/heads/retrieval"])
  func modelsComputeTheSame(name: String) throws {
    let graph = try Fixtures.graph(name)
    let inputs = randomInputs(for: graph, batch: 3)
    let exact = try Session(graph, threads: 2).run(inputs)
    let results = try [1, 2, 3, 8].map { threads in
      try Session(graph, isa: .avx512, threads: threads, compute: .bf16).run(inputs, atMost: threads)
    }
    for (index, (name, expected)) in exact.enumerated() {
      let value = results[0][index].value
      let quality = decibels(expected, value)
      // Two roundings to 8 bits a product, −49 dB each, in a dozen layers whose errors gather.
      #expect(quality > 30 && quality < 90, "\(name): \(quality) dB")
      for other in results { #expect(other[index].value.bits == value.bits) }
    }
  }

  /// int8 layers stay what they are: the logits of a model differ only by its other layers.
  @Test(.enabled(if: isPossible)) func int8LayersStay() throws {
    let graph = try RandomGraph(seed: 3, hasInt8: true).graph
    let inputs = randomInputs(for: graph, batch: 2, textTokens: 4, seed: 3)
    let exact = try Session(graph, isa: .avx512, threads: 1).run(inputs)
    let rounded = try Session(graph, isa: .avx512, threads: 1, compute: .bf16).run(inputs)
    for (left, right) in zip(exact, rounded) { #expect(decibels(left.value, right.value) > 25) }
  }

  @Test func kernelsThatCannotAreRefused() throws {
    let graph = try Fixtures.graph("tiny/features")
    let error = #expect(throws: RuntimeError.self) { _ = try Session(graph, isa: .scalar, compute: .bf16) }
    #expect(error?.code == .configuration)
    let found = error?.diagnosis.found ?? ""
    #expect(found.contains(ISA.cpuMultipliesBFloat16 ? "'scalar'" : "avx512_bf16"))
  }

  @Test(.enabled(if: isPossible)) func weightsThatAreTooLargeAreNamed() throws {
    var sketch = GraphSketch(seed: 1)
    let x = sketch.graph.addInput("image", ValueType(.f32, [.symbol("batch"), .fixed(1)]))
    let large = StoredTensor(
      name: "big", dtype: .f32, shape: [2, 1], elements: [1, Float.greatestFiniteMagnitude])
    let weight = sketch.graph.addConstant(
      Constant(name: "y.weight", role: .head, modality: .shared, data: .stored(large)))
    sketch.output("y", try sketch.add(.linear(weight: weight, bias: nil), x, name: "y"))
    let error = #expect(throws: RuntimeError.self) { _ = try Session(sketch.graph, isa: .avx512, compute: .bf16) }
    #expect(error?.code == .unsupported)
    #expect(error?.diagnosis.tensor == "big")
  }
}
