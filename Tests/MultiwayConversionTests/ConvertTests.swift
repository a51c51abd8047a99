import Foundation
import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayTestSupport
import Testing

@Suite struct ConvertTests {
  private let bench: Workbench
  private static let checkpoints =
    ["digits", "tiny/views"] + Fixtures.models
    + ["bare", "ema", "half", "protocol4"].map { "tiny/containers/" + $0 }

  init() throws { bench = try Workbench() }

  /// Nothing is renamed, reshaped, cast or dropped, whatever the tensors are for and however they are strided.
  @Test(arguments: checkpoints, ["out.safetensors", "out.pth"])
  func everyNameAndByteIsKept(fixture: String, output: String) throws {
    let source = Fixtures.path(fixture + ".pth")
    try bench.convert(source, to: output)
    let expected = try Workbench.tensors(source)
    let found = try bench.tensors(output)
    #expect(!expected.isEmpty)
    #expect(found.keys.sorted() == expected.keys.sorted())
    for (name, tensor) in expected {
      let copy = try #require(found[name])
      #expect(copy.dtype == tensor.dtype, "\(name)")
      #expect(copy.shape == tensor.shape, "\(name)")
      #expect(try copy.plainBytes == tensor.plainBytes, "\(name)")
    }
  }

  /// The number of heads is in no shape; it must survive, or the copy computes something else.
  @Test(arguments: Fixtures.models + ["digits"])
  func theCopyComputesTheSameBits(fixture: String) throws {
    let source = Fixtures.path(fixture + ".pth")
    let original = try bench.load(fixture)
    let inputs = randomInputs(for: original.graph, batch: 2)
    let expected = try Engine.runtime.run(original.graph, inputs).bits
    try bench.convert(source, to: "out.safetensors")
    try bench.convert(source, to: "out.gguf")
    try bench.convert(bench.folder.path("out.safetensors"), to: "again.pth")
    try bench.convert(bench.folder.path("again.pth"), to: "again.gguf")
    for name in ["out.safetensors", "out.gguf", "again.pth", "again.gguf"] {
      let copy = try LoadedModel(path: bench.folder.path(name))
      #expect(copy.task == original.task)
      var reached = original.graph
      reached.removeDeadCode()
      var found = copy.graph
      found.removeDeadCode()
      #expect(found.description == reached.description)
      #expect(try Engine.runtime.run(copy.graph, inputs).bits == expected, "\(name)")
    }
  }

  @Test func anArtifactOfAKnownArchitectureRuns() throws {
    let report = try bench.convert(Fixtures.path("digits.pth"), to: "out.gguf")
    let artifact = try LoadedModel(path: bench.folder.path("out.gguf"))
    guard case .artifact = artifact.file else {
      Issue.record("a plain container")
      return
    }
    #expect(report.outputBytes == artifact.file.byteCount)
    #expect(report.inputBytes == (try bench.load("digits")).file.byteCount)
    let inputs = ["image": try Fixtures.digits(0..<4).image]
    let golden = try Fixtures.digits(0..<4).logits
    #expect(decibels(golden, try #require(try Engine.runtime.run(artifact.graph, inputs)["logits"])) >= 95)
  }

  /// A state dict of no known architecture.
  private func stranger() throws -> String {
    let path = bench.folder.path("stranger.safetensors")
    let tensors = [
      StoredTensor(name: "conv.weight", dtype: .f32, shape: [2, 3], elements: [1, 2, 3, 4, 5, 6.5] as [Float]),
      StoredTensor(name: "conv.half", dtype: .f16, shape: [2], elements: [0x3C00, 0xC000] as [UInt16]),
      StoredTensor(name: "steps", dtype: .i64, shape: [], elements: [Int64(7)]),
    ]
    try SafetensorsWriter.write(tensors, metadata: ["author": "nobody"], to: path)
    return path
  }

  @Test func anUnknownArchitectureKeepsItsTensors() throws {
    let source = try stranger()
    let expected = try Workbench.tensors(source)
    for name in ["out.safetensors", "out.pth", "out.gguf"] {
      try bench.convert(source, to: name)
      let found = try bench.tensors(name)
      #expect(found.keys.sorted() == expected.keys.sorted())
      for (key, tensor) in expected {
        #expect(found[key]?.dtype == tensor.dtype)
        #expect(try found[key]?.plainBytes == tensor.plainBytes)
        // GGUF has no scalars: one dimension of 1 says the same.
        #expect(found[key]?.shape == tensor.shape || name == "out.gguf" && tensor.shape.rank == 0)
      }
    }
    for name in ["out.safetensors", "out.pth"] {
      #expect(try CheckpointFormats.open(path: bench.folder.path(name)).metadata["author"]?.string == "nobody")
    }
    expect(ModelErrorCode.unknownArchitecture) {
      _ = try LoadedModel(path: bench.folder.path("out.gguf"))
    }
  }

  /// A foreign `.pth` with every dtype: GGUF has no bool, unsigned or complex numbers, and says so for all of them at once.
  @Test func ggufNamesEverythingThatItCannotHold() throws {
    let found = expect(CheckpointErrorCode.unrepresentable) {
      try bench.convert(Fixtures.path("tiny/views.pth"), to: "out.gguf")
    }
    for name in ["dtype.bool", "dtype.uint8", "dtype.complex64", "dtype.uint64"] {
      #expect(found?.found.contains(name) == true, "\(name)")
    }
    #expect(try bench.folder.names() == [])
  }

  @Test(arguments: [DType.f16, .bf16, .f32], ["out.safetensors", "out.pth", "out.gguf"])
  func theDtypeOfFloatsChangesOnRequest(dtype: DType, output: String) throws {
    let source = Fixtures.path("tiny/features.pth")
    try bench.convert(source, to: output, dtype: dtype)
    let expected = try Workbench.tensors(source)
    if output != "out.gguf" {
      let found = try bench.tensors(output)
      #expect(found.keys.sorted() == expected.keys.sorted())
      for (name, tensor) in expected {
        let copy = try #require(found[name])
        #expect(copy.dtype == dtype)
        let rounded = try tensor.floats().map { value in
          switch dtype {
          case .f16: HalfPrecision.float(fromF16: HalfPrecision.f16(from: value))
          case .bf16: HalfPrecision.float(fromBF16: HalfPrecision.bf16(from: value))
          default: value
          }
        }
        #expect(try copy.floats() == rounded, "\(name)")
      }
    }
    let copy = try LoadedModel(path: bench.folder.path(output))
    let matrices = copy.graph.constants.filter { $0.data.shape.rank == 2 }
    #expect(!matrices.isEmpty && matrices.allSatisfy { $0.data.dtype == dtype })
    #expect(try copy.recipe.name == dtype.shortName)
    let inputs = try Fixtures.inputs("tiny/features")
    let golden = try #require(try Fixtures.goldens("tiny/features")["features"])
    let quality = decibels(golden, try #require(try Engine.runtime.run(copy.graph, inputs)["features"]))
    // 11 bits of f16 are an error of 2⁻¹² at most, ≈ −72 dB, 8 bits of bf16 18 dB more; layers add up to 20 dB.
    #expect(quality >= [.f16: 52, .bf16: 34, .f32: 100][dtype] ?? .infinity, "\(quality)")
    #expect(dtype == .f32 || quality < 90, "the weights were not rounded")
  }

  @Test func integersAreNotCast() throws {
    try bench.convert(try stranger(), to: "out.safetensors", dtype: .f16)
    let found = try bench.tensors("out.safetensors")
    #expect(found["steps"]?.dtype == .i64)
    #expect(found["conv.weight"]?.dtype == .f16)
    #expect(try found["steps"]?.integers() == [7])
  }

  /// What is int8 stays int8, and its scales stay fp32; the other matrices change.
  @Test func theDtypeOfAnInt8ArtifactChanges() throws {
    let artifact = try bench.artifact("tiny/classification", Recipes.int8)
    try bench.convert(bench.folder.path("out.gguf"), to: "wide.gguf", dtype: .f32)
    let wide = try LoadedModel(path: bench.folder.path("wide.gguf"))
    #expect(!wide.graph.constants.contains { $0.data.dtype == .f16 })
    #expect(
      wide.graph.constants.count { $0.data.dtype == .i8 } == artifact.graph.constants.count { $0.data.dtype == .i8 })
    // f16 widens exactly, so the bits stay.
    let inputs = randomInputs(for: wide.graph, batch: 2)
    #expect(try Engine.runtime.run(wide.graph, inputs).bits == Engine.runtime.run(artifact.graph, inputs).bits)
    #expect(try wide.recipe.name == "int8")
  }

  @Test func anInt8ArtifactHasNoStateDict() throws {
    _ = try bench.artifact("tiny/classification", Recipes.int8)
    try bench.convert(bench.folder.path("out.gguf"), to: "out.safetensors")
    let names = try bench.tensors("out.safetensors").keys
    #expect(names.contains { $0.hasSuffix(".int8") })
    #expect(!names.contains("layers.0.vision.query.weight"))
  }

  @Test(arguments: ["out.gguf", "out.safetensors"])
  func anExistingOutputStays(name: String) throws {
    let before = Array("precious".utf8)
    try bench.folder.write(before, to: name)
    let source = Fixtures.path("tiny/classification.pth")
    let found = expect(FileErrorCode.exists) { try bench.convert(source, to: name) }
    #expect(found?.remedy?.contains("--force") == true)
    #expect(found?.file == bench.folder.path(name))
    #expect(try bench.folder.bytes(name) == before)
    try bench.convert(source, to: name, overwrite: true)
    #expect(try LoadedModel(path: bench.folder.path(name)).task == "classification")
    #expect(try bench.folder.names() == [name])
  }

  /// An output that is an input would be read while it is written; no flag allows it, and no other name of the file hides it.
  @Test func theInputIsNeverTheOutput() throws {
    try bench.convert(Fixtures.path("tiny/classification.pth"), to: "in.safetensors")
    try bench.convert(Fixtures.path("tiny/classification.pth"), to: "in.gguf")
    try FileManager.default.linkItem(
      atPath: bench.folder.path("in.safetensors"), toPath: bench.folder.path("hard.safetensors"))
    let outputs = [
      ("in.safetensors", "in.safetensors"), ("in.safetensors", "./in.safetensors"),
      ("in.safetensors", "hard.safetensors"), ("in.gguf", "in.gguf"),
    ]
    for (input, output) in outputs {
      let before = try bench.folder.bytes(input)
      let found = expect(FileErrorCode.cannotCreate) {
        try bench.convert(bench.folder.path(input), to: output, overwrite: true)
      }
      #expect(found?.found == "the output is also an input")
      let isEqual = try bench.folder.bytes(input) == before
      #expect(isEqual)
    }
    #expect(try bench.folder.names() == ["hard.safetensors", "in.gguf", "in.safetensors"])
  }

  /// Through a symbolic link the link is replaced, never the input that it points to.
  @Test func aLinkToTheInputIsReplacedItself() throws {
    try bench.convert(Fixtures.path("tiny/classification.pth"), to: "in.safetensors")
    try FileManager.default.createSymbolicLink(
      atPath: bench.folder.path("link.safetensors"), withDestinationPath: bench.folder.path("in.safetensors"))
    let before = try bench.folder.bytes("in.safetensors")
    try bench.convert(bench.folder.path("in.safetensors"), to: "link.safetensors", dtype: .f16, overwrite: true)
    let isEqual = try bench.folder.bytes("in.safetensors") == before
    #expect(isEqual)
    #expect(try bench.tensors("link.safetensors").values.allSatisfy { $0.dtype == .f16 })
  }

  @Test func outputsOfOtherKindsAreNamed() throws {
    for name in ["out.pt", "out.folder", "out.onnx.data", "out.txt", "out", "out.gguf.bak"] {
      let found = expect(ConversionErrorCode.usage) {
        try bench.convert(Fixtures.path("tiny/classification.pth"), to: name)
      }
      #expect(found?.expected == ".gguf, .safetensors, .onnx, .pth, a folder's name with / at its end")
    }
    try bench.convert(Fixtures.path("tiny/classification.pth"), to: "OUT.GGUF")
    #expect(try bench.folder.names() == ["OUT.GGUF"])
  }

  @Test func theStateDictCanBeChosen() throws {
    let path = Fixtures.path("tiny/containers/ema.pth")
    let options = InputOptions(stateDict: "model_ema")
    _ = try Conversions.convert(
      try ModelFile.open(path), options: options, dtype: nil, to: bench.folder.path("ema.safetensors"), overwrite: false
    )
    try bench.convert(path, to: "model.safetensors")
    let key = "beit3.encoder.layers.0.ffn.A.fc1.weight"
    let average = try #require(try bench.tensors("ema.safetensors")[key]).floats()
    let model = try #require(try bench.tensors("model.safetensors")[key]).floats()
    #expect(average == model.map { $0 / 2 })
    expect(CheckpointErrorCode.noSuchStateDict) {
      _ = try Conversions.convert(
        try ModelFile.open(path), options: InputOptions(stateDict: "nope"), dtype: nil,
        to: bench.folder.path("no.gguf"), overwrite: false)
    }
  }

  @Test func progressCountsUpToTheEnd() throws {
    var seen: [(Int, Int)] = []
    _ = try Conversions.convert(
      try ModelFile.open(Fixtures.path("digits.pth")), options: InputOptions(), dtype: nil,
      to: bench.folder.path("out.safetensors"), overwrite: false
    ) { seen.append(($0, $1)) }
    #expect(seen.map(\.0) == seen.map(\.0).sorted())
    #expect(Set(seen.map(\.1)).count == 1)
    #expect(seen.last?.0 == seen.last?.1)
  }
}
