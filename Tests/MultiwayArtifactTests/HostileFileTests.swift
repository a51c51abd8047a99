import MultiwayArtifact
import MultiwayCore
import MultiwayGGUF
import MultiwayGraph
import MultiwayTestSupport
import Testing

@Suite struct HostileFileTests {
  /// Reads and, if that works, runs a file; anything but a trap is fine. Returns whether it could be read.
  private func survives(_ file: MappedFile) -> Bool {
    do {
      let artifact = try Artifact.read(file)
      interpret(artifact.graph, SampleArtifact.inputs)
      return true
    } catch { return false }
  }

  @Test func everyTruncationIsAnError() throws {
    let folder = try ScratchFolder()
    _ = try SampleArtifact.write(in: folder)
    let bytes = try folder.bytes("sample.gguf")
    for length in stride(from: 0, to: bytes.count, by: 97) {
      let file = try folder.write(Array(bytes[..<length]), to: "cut.gguf")
      #expect(!survives(file), "\(length) bytes")
    }
  }

  @Test func flippedBytesNeverTrap() throws {
    let folder = try ScratchFolder()
    _ = try SampleArtifact.write(in: folder)
    let bytes = try folder.bytes("sample.gguf")
    let header = try GGUFContainer.read(try MappedFile(path: folder.path("sample.gguf"))).dataOffset
    var generator = SeededGenerator(seed: 5)
    var refused = 0
    for _ in 0..<2000 {
      var changed = bytes
      let place = generator.integers(1, in: 0..<header)[0]
      changed[place] = UInt8(truncatingIfNeeded: generator.next())
      if !survives(try folder.write(changed, to: "flipped.gguf")) { refused += 1 }
    }
    #expect(refused > 1000)
  }

  @Test func digitsOfTheGraphNeverTrap() throws {
    let folder = try ScratchFolder()
    _ = try SampleArtifact.write(in: folder)
    let container = try GGUFContainer.read(try MappedFile(path: folder.path("sample.gguf")))
    let text = try #require(container["multiway.graph"]?.string)
    let digits = text.indices.filter { text[$0].isNumber }
    for position in digits {
      for replacement in ["", "-", "0", "9", "99999999999", "9223372036854775807", "null", "[]"] {
        var changed = text
        changed.replaceSubrange(position...position, with: replacement)
        var data: [String: TensorExpression] = [:]
        for constant in try Artifact.read(container).graph.constants { data[constant.name] = constant.data }
        guard let graph = try? GraphJSON.decode(changed, data: data) else { continue }
        interpret(graph, SampleArtifact.inputs)
      }
    }
  }

  /// Writes the sample with its header changed: metadata and tensors pass through `change`.
  private func rewritten(
    _ change: (inout [(key: String, value: GGUFValue)], inout [(name: String, dimensions: [Int], type: GGUFType)]) ->
      Void
  ) throws -> ArtifactError? {
    let folder = try ScratchFolder()
    let container = try GGUFContainer.read(try MappedFile(path: try SampleArtifact.write(in: folder)))
    var metadata = container.metadata
    var tensors = container.tensors.map { (name: $0.name, dimensions: $0.dimensions, type: $0.type) }
    change(&metadata, &tensors)
    let alignment = metadata.first { $0.key == "general.alignment" }?.value.integer ?? 64
    var writer = try GGUFWriter(
      path: folder.path("changed.gguf"), metadata: metadata, tensors: tensors, alignment: alignment)
    for tensor in writer.placedTensors {
      let zeros = [UInt8](repeating: 0, count: tensor.byteCount)
      let bytes = TensorBytes(copying: zeros)
      try writer.writeTensor(bytes.span)
    }
    try writer.finish()
    do {
      _ = try Artifact.read(try MappedFile(path: folder.path("changed.gguf")))
      return nil
    } catch let error as ArtifactError {
      #expect(error.diagnosis.file?.hasSuffix("changed.gguf") == true)
      return error
    }
  }

  private func set(_ key: String, _ value: GGUFValue?) throws -> ArtifactError? {
    try rewritten { metadata, _ in
      metadata.removeAll { $0.key == key }
      if let value { metadata.append((key, value)) }
    }
  }

  @Test func metadataOfTheWrongKind() throws {
    #expect(try set("multiway.graph", nil)?.code == .notAnArtifact)
    #expect(try set("multiway.graph", .u32(1))?.code == .malformedMetadata)
    #expect(try set("multiway.format", nil)?.code == .unsupported)
    #expect(try set("multiway.format", .u32(2))?.code == .unsupported)
    #expect(try set("general.alignment", .u32(32))?.code == .unsupported)
    #expect(try set("multiway.panel_layout", nil)?.code == .malformedMetadata)
    #expect(try set("multiway.panel_layout", .string("16x4"))?.code == .unsupported)
    #expect(try set("general.architecture", .string("multiway"))?.code == .malformedMetadata)
    #expect(try set("general.architecture", nil)?.code == .malformedMetadata)
    #expect(try set("multiway.labels", .array(.u8([1])))?.code == .malformedMetadata)
    #expect(try set("multiway.recipe", .string("{"))?.code == .malformedMetadata)
    #expect(try set("multiway.recipe", .string("[]"))?.code == .malformedMetadata)
    #expect(try set("multiway.certificate", .string("no"))?.code == .malformedMetadata)
    #expect(try set("multiway.source.byte_counts", .array(.u64([])))?.code == .malformedMetadata)
    #expect(try set("multiway.source.byte_counts", .array(.u64([.max])))?.code == .malformedMetadata)
    #expect(try set("general.license", nil) == nil)
    #expect(try set("tokenizer.ggml.model", .string("kept by others")) == nil)
  }

  @Test func tensorsThatDoNotFitTheGraph() throws {
    let missing = try rewritten { $1.removeAll { $0.name == "norm.bias" } }
    #expect(missing?.code == .tensorMismatch)
    #expect(missing?.description.contains("missing: norm.bias") == true)
    let extra = try rewritten { $1.append(("extra", [1], .f32)) }
    #expect(extra?.description.contains("unexpected: extra") == true)
    let shape = try rewritten { _, tensors in
      for index in tensors.indices where tensors[index].name == "norm.bias" { tensors[index].dimensions = [9] }
    }
    #expect(shape?.code == .malformedGraph)
    let type = try rewritten { _, tensors in
      for index in tensors.indices where tensors[index].name == "norm.bias" { tensors[index].type = .f64 }
    }
    #expect(type?.code == .tensorMismatch)
    #expect(type?.description.contains("'norm.bias' F64[8]") == true)
    let empty = try rewritten { _, tensors in
      for index in tensors.indices where tensors[index].name == "text.table" { tensors[index].dimensions = [0, 8] }
    }
    #expect(empty?.code == .tensorMismatch)
    let panels = try rewritten { _, tensors in
      for index in tensors.indices where tensors[index].name == "hidden.panels" {
        tensors[index].dimensions = [1, 2, 64, 4]
      }
    }
    #expect(panels?.code == .malformedGraph)
  }

  /// Blocks that artifacts do not hold, or not so, and blocks in a place that takes none.
  @Test func blocksInWrongPlacesAreDeclaredErrors() throws {
    let folder = try ScratchFolder()
    _ = try SampleArtifact.write(in: folder)
    let sample = try GGUFContainer.read(try MappedFile(path: folder.path("sample.gguf")))
    let cases: [(tensor: String, dimensions: [Int], type: GGUFType)] = [
      ("norm.weight", [32], .q8_0), ("patch.weight", [2, 2, 32], .q8_0), ("patch.weight", [8, 32], .q5_0),
      ("patch.weight", [8, 256], .q4_k), ("patch.weight", [8, 32], .q4_1), ("hidden.panels", [70, 32], .q8_0),
      ("hidden.scales", [1, 96], .q4_0),
    ]
    for (name, dimensions, type) in cases {
      let tensors = sample.tensors.map { tensor -> (name: String, dimensions: [Int], type: GGUFType) in
        if tensor.name == name { return (name, dimensions, type) }
        return (tensor.name, tensor.dimensions, tensor.type)
      }
      var writer = try GGUFWriter(
        path: folder.path("wrong.gguf"), overwrite: true,
        metadata: sample.metadata.filter { !$0.key.contains("digest") }, tensors: tensors, alignment: 64)
      for tensor in tensors {
        let size = try #require(tensor.type.byteCount(of: tensor.dimensions))
        let bytes = TensorBytes(copying: [UInt8](repeating: 0x7C, count: size))
        try writer.writeTensor(bytes.span)
      }
      try writer.finish()
      do {
        _ = try Artifact.read(try MappedFile(path: folder.path("wrong.gguf")))
        Issue.record("\(name) \(dimensions) \(type) was read")
      } catch let error as any DiagnosedError {
        #expect(error.category == .data && !error.diagnosis.found.isEmpty)
      }
    }
  }
}
