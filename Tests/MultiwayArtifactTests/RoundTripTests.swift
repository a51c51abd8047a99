import MultiwayArtifact
import MultiwayCore
import MultiwayGGUF
import MultiwayGraph
import MultiwayQuantization
import Testing

@Suite struct RoundTripTests {
  @Test func theGraphComesBackAsItWas() throws {
    let folder = try ScratchFolder()
    let file = try MappedFile(path: try SampleArtifact.write(in: folder))
    let artifact = try Artifact.read(file)
    let graph = try SampleArtifact.graph()
    #expect(artifact.graph.description == graph.description)
    #expect(artifact.graph.constants.map(\.name) == graph.constants.map(\.name))
    #expect(artifact.graph.constants.map(\.role) == graph.constants.map(\.role))
    #expect(artifact.graph.constants.map(\.modality) == graph.constants.map(\.modality))
    #expect(artifact.graph.nodes.map(\.role) == graph.nodes.map(\.role))
    #expect(artifact.graph.nodes.map(\.modality) == graph.nodes.map(\.modality))
    #expect(artifact.metadata == SampleArtifact.metadata)
    #expect(artifact.identity == file.identity && artifact.byteCount == file.byteCount)
    #expect(try GGUFContainer.read(file)["general.alignment"]?.integer == 64)
  }

  @Test func everyTensorHoldsWhatTheMaterializerMakes() throws {
    let folder = try ScratchFolder()
    let artifact = try Artifact.read(try MappedFile(path: try SampleArtifact.write(in: folder)))
    let graph = try SampleArtifact.graph()
    var materializer = Materializer(discardsSources: false)
    for (stored, computed) in zip(artifact.graph.constants, graph.constants) {
      let bytes = try materializer.bytes(of: stored.data)
      let expected = try materializer.bytes(of: computed.data)
      let isEqual = bytes.array(of: UInt8.self) == expected.array(of: UInt8.self)
      #expect(isEqual && bytes.isAligned(to: 64), "\(stored.name)")
    }
  }

  @Test func twoRunsGiveTheSameBytes() throws {
    let folder = try ScratchFolder()
    _ = try SampleArtifact.write(in: folder, name: "a.gguf")
    var seen: [Int] = []
    let graph = try SampleArtifact.graph()
    try ArtifactWriter.write(
      graph, metadata: SampleArtifact.metadata, to: folder.path("b.gguf"), overwrite: false
    ) { done, total in
      #expect(total == graph.constants.count)
      seen.append(done)
    }
    #expect(try folder.bytes("a.gguf") == folder.bytes("b.gguf"))
    #expect(seen == Array(1...graph.constants.count))
  }

  /// But for the digests of what was read: the first artifact is made of tensors in memory.
  @Test func writingAReadArtifactAgainChangesNothing() throws {
    let folder = try ScratchFolder()
    let artifact = try Artifact.read(try MappedFile(path: try SampleArtifact.write(in: folder)))
    try ArtifactWriter.write(
      artifact.graph, metadata: artifact.metadata, to: folder.path("again.gguf"), overwrite: false,
      inputs: [artifact.identity])
    let again = try Artifact.read(try MappedFile(path: folder.path("again.gguf")))
    #expect(again.metadata == artifact.metadata)
    #expect(again.graph.description == artifact.graph.description)
    let size = artifact.graph.constants.reduce(0) { $0 + ($1.data.shape.byteCount(of: $1.data.dtype) ?? 0) }
    #expect(try folder.bytes("again.gguf").suffix(size) == folder.bytes("sample.gguf").suffix(size))
    try ArtifactWriter.write(
      again.graph, metadata: again.metadata, to: folder.path("third.gguf"), overwrite: false, inputs: [again.identity])
    #expect(try folder.bytes("third.gguf") == folder.bytes("again.gguf"))
    #expect(throws: FileError.self) {
      try ArtifactWriter.write(
        artifact.graph, metadata: artifact.metadata, to: folder.path("sample.gguf"), overwrite: true,
        inputs: [artifact.identity])
    }
  }

  @Test func aCertificateIsAddedAndReplaced() throws {
    let folder = try ScratchFolder()
    let path = try SampleArtifact.write(in: folder)
    let plain = try folder.bytes("sample.gguf")
    let first = JSONValue.object(["sqnr": .real(41.5)])
    try ArtifactWriter.certify(try MappedFile(path: path), with: first, to: folder.path("new.gguf"), overwrite: false)
    #expect(try folder.bytes("sample.gguf") == plain)
    let second = JSONValue.object(["sqnr": .real(40.5)])
    let other = folder.path("new.gguf")
    try ArtifactWriter.certify(try MappedFile(path: other), with: second, to: other, overwrite: true)
    let artifact = try Artifact.read(try MappedFile(path: other))
    var expected = SampleArtifact.metadata
    expected.certificate = second
    #expect(artifact.metadata == expected)
    #expect(artifact.graph.description == (try SampleArtifact.graph().description))
    // The same as if the certificate had been known from the start.
    try ArtifactWriter.write(
      try SampleArtifact.graph(), metadata: expected, to: folder.path("direct.gguf"), overwrite: false)
    #expect(try folder.bytes("direct.gguf") == folder.bytes("new.gguf"))
    #expect(try folder.names() == ["direct.gguf", "new.gguf", "sample.gguf"])
  }

  @Test func hyperparametersAreReadByKind() {
    let metadata = SampleArtifact.metadata
    #expect(metadata.integer("block_count") == 1)
    #expect(metadata.number("attention.layer_norm_epsilon") == Double(Float(1e-5)))
    #expect(metadata.numbers("vision.image_mean") == [0.5, 0.5, 0.5])
    #expect(metadata.string("block_count") == nil && metadata.integer("nothing") == nil)
    #expect(metadata.sources[0].name == "model.pth")
  }

  @Test func whatArtifactsCannotHoldIsListed() throws {
    var graph = try SampleArtifact.graph()
    let long = String(repeating: "n", count: 64)
    graph.constants[1].name = long
    graph.addConstantOfDoubles()
    let folder = try ScratchFolder()
    do {
      try ArtifactWriter.write(graph, metadata: SampleArtifact.metadata, to: folder.path("x.gguf"), overwrite: false)
      Issue.record("no error")
    } catch let error as ArtifactError {
      #expect(error.code == .unstorable)
      #expect(error.description.contains(long) && error.description.contains("'doubles' f64[1]"))
    }
    #expect(try folder.names().isEmpty)
  }

  @Test func theFileTypeFollowsTheWeights() throws {
    for (dtype, expected) in [(DType.f32, 0), (.f16, 1), (.bf16, 32)] {
      var graph = Graph()
      let x = graph.addInput("x", ValueType(.f32, [.symbol("batch"), 2]))
      let weight = TensorExpression.stored(
        StoredTensor(name: "w", dtype: .f32, shape: [2, 2], elements: [1, 2, 3, 4] as [Float]))
      let id = graph.addConstant(
        Constant(name: "w", role: .head, modality: .shared, data: .cast(weight, dtype)))
      let y = try graph.add(.linear(weight: id, bias: nil), x, name: "y", modality: .shared)
      graph.outputs = [GraphOutput(name: "logits", value: y)]
      let folder = try ScratchFolder()
      let path = folder.path("a.gguf")
      try ArtifactWriter.write(
        graph, metadata: ArtifactMetadata(architecture: "vit", name: "", toolVersion: "1"), to: path, overwrite: false)
      let container = try GGUFContainer.read(try MappedFile(path: path))
      #expect(container["general.file_type"]?.integer == expected)
      #expect(container["multiway.panel_layout"] == nil)
      #expect(try Artifact.read(container).metadata.recipe == [:])
    }
  }
}

extension Graph {
  fileprivate mutating func addConstantOfDoubles() {
    _ = addConstant(
      Constant(
        name: "doubles", role: .head, modality: .shared,
        data: .stored(StoredTensor(name: "doubles", dtype: .f64, shape: [1], elements: [1.0]))))
  }
}
