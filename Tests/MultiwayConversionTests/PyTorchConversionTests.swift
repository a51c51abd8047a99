import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayTestSupport
import Testing

/// `.pth` outputs: nested as the training code of their layout looks for them.
@Suite struct PyTorchConversionTests {
  private let bench: Workbench

  init() throws { bench = try Workbench() }

  private func convert(
    _ source: String, layout: String? = nil, dtype: DType? = nil, to name: String = "out.pth"
  ) throws -> Checkpoint {
    let path = bench.folder.path(name)
    _ = try Conversions.convert(
      try ModelFile.open(source), options: InputOptions(), layout: layout, dtype: dtype, to: path, overwrite: true)
    return try CheckpointFormats.open(path: path)
  }

  @Test(arguments: [
    ("tiny/classification.pth", nil, "model"), ("tiny/containers/bare.pth", nil, ""),
    ("family/beit_classification/unilm_module.pth", nil, "module"),
    ("family/beit_classification/unilm_module.pth", "unilm", "module"),
    ("family/beit_classification/timm.safetensors", "unilm", "model"),
    ("family/beit_classification/unilm.pth", "timm", ""), ("family/beit_classification/unilm.pth", "huggingface", ""),
  ])
  func theStateDictStandsWhereTheCodeLooks(source: String, layout: String?, name: String) throws {
    #expect(try convert(Fixtures.path(source), layout: layout).stateDicts.map(\.name) == [name])
  }

  /// Into another layout and back, every tensor has the bytes that it had.
  @Test func thereAndBack() throws {
    let source = Fixtures.path("family/beit_classification/unilm.pth")
    _ = try convert(source, layout: "timm")
    let back = try convert(bench.folder.path("out.pth"), layout: "unilm", to: "back.pth")
    let expected = try Workbench.tensors(source)
    let found = try back.stateDict().tensors
    #expect(Set(found.map(\.name)) == Set(expected.keys))
    for tensor in found { #expect(try tensor.plainBytes == expected[tensor.name]?.plainBytes, "\(tensor.name)") }
  }

  /// Weights that are tied in the source are computed once and stay tied.
  @Test(arguments: [nil, DType.f16])
  func tiedWeightsStayTied(dtype: DType?) throws {
    let found = try convert(Fixtures.package + "/Formats/pytorch/golden/tied.pth", dtype: dtype).stateDict()
    let (first, second) = (try #require(found.tensor(named: "0.weight")), found.tensor(named: "1.weight"))
    #expect(first.storage === second?.storage)
    #expect(first.storage !== found.tensor(named: "0.bias")?.storage)
    #expect(first.dtype == dtype ?? .f32)
  }

  @Test func theFileProvesItself() throws {
    let checkpoint = try convert(Fixtures.path("tiny/classification.pth"), dtype: .f16)
    #expect(checkpoint.recordedFiles.map(\.name) == ["classification.pth"])
    let report = try DigestVerification.verify(bench.folder.path("out.pth"))
    #expect(report.tensorCount == (try checkpoint.stateDict().tensors.count))
  }

  @Test func whatPyTorchHasNoDTypeForIsNamed() throws {
    let source = bench.folder.path("in.safetensors")
    try SafetensorsWriter.write(
      [StoredTensor(name: "packed", dtype: .f4, shape: [4], elements: [1, 2] as [UInt8])], to: source)
    let found = expect(CheckpointErrorCode.unrepresentable) { _ = try convert(source) }
    #expect(found?.found.contains("packed (F4)") == true)
    #expect(try bench.folder.names() == ["in.safetensors"])
  }
}
