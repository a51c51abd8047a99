import Foundation
import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayGGUF
import MultiwayGraph
import MultiwayTestSupport
import Testing

/// What outputs say about where they come from, and the digests of their tensors.
@Suite struct ProvenanceTests {
  private let source = Fixtures.path("tiny/classification.pth")
  private let bench: Workbench

  init() throws { bench = try Workbench() }

  private func write(_ name: String, hashesSource: Bool = false) throws {
    let file = try ModelFile.open(source)
    let input = hashesSource ? try file.hashed() : file
    let path = bench.folder.path(name)
    switch name {
    case "int8.gguf":
      _ = try Conversions.quantize(try LoadedModel(input), recipe: Recipes.int8, to: path, overwrite: false)
    case "pruned.safetensors":
      _ = try Conversions.prune(try LoadedModel(input), keep: .vision, to: path, overwrite: false)
    case "timm.safetensors":
      _ = try Conversions.convert(
        input, options: InputOptions(), layout: "timm", dtype: .f16, to: path, overwrite: false)
    default:
      _ = try Conversions.convert(input, options: InputOptions(), dtype: nil, to: path, overwrite: false)
    }
  }

  private static let outputs = [
    "plain.safetensors", "pruned.safetensors", "timm.safetensors", "plain.gguf", "int8.gguf",
  ]

  @Test(arguments: outputs) func whatWasWrittenIsVerified(name: String) throws {
    try write(name)
    let report = try DigestVerification.verify(bench.folder.path(name))
    let file = try ModelFile.open(bench.folder.path(name))
    #expect(report.tensorCount > 20)
    #expect(report.algorithm == "xxh3-128")
    #expect(file.recordedFiles == [SourceFile(path: "classification.pth", byteCount: 172_357)])
    if case .checkpoint(let checkpoint) = file {
      #expect(report.byteCount == (try checkpoint.stateDict().byteCount))
    }
  }

  /// One bit of any tensor, at its beginning, middle or end.
  @Test(arguments: outputs) func theDamagedTensorIsNamed(name: String) throws {
    try write(name)
    let path = bench.folder.path(name)
    let whole = try bench.folder.bytes(name)
    let places = try tensorPlaces(path)
    for (index, place) in places.enumerated() where !place.range.isEmpty {
      let offsets = [
        place.range.lowerBound, place.range.lowerBound + place.range.count / 2, place.range.upperBound - 1,
      ]
      var bytes = whole
      bytes[offsets[index % 3]] ^= 0x10
      try bench.folder.write(bytes, to: name)
      let found = expect(ConversionErrorCode.damaged) { _ = try DigestVerification.verify(path) }
      #expect(found?.tensor == place.name && found?.file == path)
    }
    try bench.folder.write(whole, to: name)
    _ = try DigestVerification.verify(path)
  }

  /// Where the tensors lie, found without the code that is tested.
  private func tensorPlaces(_ path: String) throws -> [(name: String, range: Range<Int>)] {
    let file = try MappedFile(path: path)
    if path.hasSuffix(".gguf") {
      let container = try GGUFContainer.read(file)
      return try container.tensors.map { ($0.name, try container.range(of: $0)) }
    }
    let size = try #require(Int(exactly: file.bytes.extracting(0..<8).array(of: UInt64.self)[0]))
    let header = file.bytes.extracting(8..<8 + size).array(of: UInt8.self)
    let members = try #require(try JSONParser.parse(header).object?.members)
    return members.compactMap { member in
      guard let offsets = member.value["data_offsets"]?.array?.compactMap(\.integer), offsets.count == 2 else {
        return nil
      }
      return (member.key, 8 + size + offsets[0]..<8 + size + offsets[1])
    }
  }

  /// Every tensor that was read is recorded with the digest of its elements in the source.
  @Test(arguments: outputs) func theTensorsThatWereReadAreRecorded(name: String) throws {
    try write(name)
    let recorded = try sourceDigests(bench.folder.path(name))
    let tensors = try Workbench.tensors(source)
    for (key, digest) in recorded {
      let tensor = try #require(tensors[key], "\(key)")
      var expected = TensorDigest()
      let bytes = try tensor.contiguousBytes()
      expected.update(bytes.span)
      let text = expected.finish()
      #expect(digest == text, "\(key)")
    }
    if name == "plain.safetensors" { #expect(recorded.count == tensors.count) }
    // The text experts are not read where the task does not reach them.
    if name == "pruned.safetensors" || name.hasSuffix(".gguf") {
      #expect(recorded.count > 20 && recorded.count < tensors.count)
      #expect(!recorded.keys.contains { $0.contains(".B.") })
    }
  }

  private func sourceDigests(_ path: String) throws -> [String: String] {
    if path.hasSuffix(".gguf") {
      let container = try GGUFContainer.read(try MappedFile(path: path))
      let names = try #require(container["multiway.source.tensor_names"]?.strings)
      let digests = try #require(container["multiway.source.tensor_digests"]?.strings)
      #expect(names.count == digests.count)
      return Dictionary(uniqueKeysWithValues: zip(names, digests))
    }
    let text = try #require(try CheckpointFormats.open(path: path).metadata["multiway"]?.string)
    let object = try #require(try JSONParser.parse(Array(text.utf8))["source_tensors"]?.object)
    return try Dictionary(uniqueKeysWithValues: object.members.map { ($0.key, try #require($0.value.string)) })
  }

  /// The value is what `sha256sum` prints for the fixture.
  @Test(arguments: outputs) func theSourceIsHashedOnRequest(name: String) throws {
    try write(name, hashesSource: true)
    let file = try ModelFile.open(bench.folder.path(name))
    #expect(
      file.recordedFiles.map(\.sha256) == ["7e1eeb786909206118d6dba54eb0fdb1d981a3aaac2f022f5642c83a85e2c5e3"])
  }

  /// The file that is hashed is the one that was opened.
  @Test func aSourceThatWasReplacedIsNotHashed() throws {
    let copy = bench.folder.path("copy.pth")
    try FileManager.default.copyItem(atPath: source, toPath: copy)
    let file = try ModelFile.open(copy)
    try FileManager.default.copyItem(atPath: source, toPath: bench.folder.path("new.pth"))
    #expect(unsafe rename(bench.folder.path("new.pth"), copy) == 0)
    expect(FileErrorCode.changed) { _ = try file.hashed() }
  }

  /// What a file was made from is known to the files that are made from it.
  @Test func theChainIsKept() throws {
    try write("plain.safetensors", hashesSource: true)
    try bench.convert(bench.folder.path("plain.safetensors"), to: "a.gguf")
    try bench.convert(bench.folder.path("a.gguf"), to: "b.safetensors")
    try bench.convert(bench.folder.path("b.safetensors"), to: "c.safetensors", dtype: .bf16)
    let chain = try ModelFile.open(bench.folder.path("c.safetensors")).recordedFiles
    #expect(chain.map(\.name) == ["b.safetensors", "a.gguf", "plain.safetensors", "classification.pth"])
    #expect(chain.map { $0.sha256 == nil } == [true, true, true, false])
    // The source's digests are those that the source records of itself.
    let last = try sourceDigests(bench.folder.path("c.safetensors"))
    let own = try CheckpointFormats.open(path: bench.folder.path("b.safetensors")).recordedDigests()
    #expect(last == own)
  }

  /// The licence and the words of the source go with an artifact, and what we said about it goes no further.
  @Test func theSourcesOwnWordsAreCarried() throws {
    let tensors = try CheckpointFormats.open(path: source).stateDict().tensors
    try SafetensorsWriter.write(
      tensors, metadata: ["license": "MIT", "author": "nobody"], to: bench.folder.path("in.safetensors"))
    try bench.convert(bench.folder.path("in.safetensors"), to: "a.gguf")
    guard case .artifact(let artifact) = try ModelFile.open(bench.folder.path("a.gguf")) else {
      Issue.record("no artifact")
      return
    }
    #expect(artifact.metadata.license == "MIT")
    #expect(artifact.metadata.sourceMetadata["author"]?.string == "nobody")
    try bench.convert(bench.folder.path("in.safetensors"), to: "b.safetensors")
    try bench.convert(bench.folder.path("b.safetensors"), to: "b.gguf")
    guard case .artifact(let second) = try ModelFile.open(bench.folder.path("b.gguf")) else { return }
    #expect(second.metadata.sourceMetadata["author"]?.string == "nobody")
    #expect(second.metadata.sourceMetadata["multiway"] == nil)
    #expect(second.metadata.license == "MIT")
  }

  /// Every shard and the index are sources of their own.
  @Test func everyFileOfASetIsASource() throws {
    let index = Fixtures.package + "/Formats/sharded/golden"
    let folders = try FileManager.default.contentsOfDirectory(atPath: index).sorted()
    let path = try #require(
      folders.lazy.map { index + "/" + $0 }.first { path in
        Folder.exists(path) && ((try? CheckpointFormats.open(path: path))?.files.count ?? 0) > 1
      })
    let file = try ModelFile.open(path).hashed()
    _ = try Conversions.convert(
      file, options: InputOptions(), dtype: nil, to: bench.folder.path("out.safetensors"), overwrite: false)
    let recorded = try ModelFile.open(bench.folder.path("out.safetensors")).recordedFiles
    #expect(recorded.count > 2)
    #expect(recorded[0].name.hasSuffix(".json"))
    #expect(Set(recorded.map(\.sha256)).count == recorded.count && recorded.allSatisfy { $0.sha256?.count == 64 })
  }

  @Test func filesWithoutDigestsAreNotVerified() throws {
    let old = Fixtures.package + "/Formats/gguf/golden/artifact-without-digests.gguf"
    for path in [source, old, Fixtures.path("tiny/classification_inputs.safetensors")] {
      let found = expect(ConversionErrorCode.unsupportedInput) { _ = try DigestVerification.verify(path) }
      #expect(found?.found.contains("no digests") == true)
    }
    // What was written before there were digests is still read.
    guard case .artifact = try ModelFile.open(old) else {
      Issue.record("no artifact")
      return
    }
    expect(ConversionErrorCode.unsupportedInput) { _ = try DigestVerification.verify(Fixtures.package + "/Formats") }
    expect(FileErrorCode.notFound) { _ = try DigestVerification.verify(bench.folder.path("none")) }
  }

  /// Digests of other tensors, and values that are no digests, are errors and never traps.
  @Test func strangeDigests() throws {
    let tensor = StoredTensor(name: "a", dtype: .u8, shape: [1], elements: [1] as [UInt8])
    let other = String(repeating: "0", count: 32)
    for (text, code) in [
      (#"{"digest":"xxh3-128","tensors":{"b":"\#(other)"}}"#, nil),
      (#"{"digest":"xxh3-128","tensors":{}}"#, nil), (#"{"digest":"xxh3-128","tensors":{"a":"0"}}"#, true),
      (#"{"digest":"xxh3-128","tensors":{"a":1}}"#, true), (#"{"digest":"md5","tensors":{"a":"\#(other)"}}"#, true),
      (#"{"digest":"xxh3-128"}"#, true), ("[]", true), ("", true), ("{", true),
    ] as [(String, Bool?)] {
      let path = bench.folder.path("strange.safetensors")
      try SafetensorsWriter.write([tensor], metadata: ["multiway": text], to: path, overwrite: true)
      if code == nil {
        expect(ConversionErrorCode.damaged) { _ = try DigestVerification.verify(path) }
      } else {
        expect(CheckpointErrorCode.malformed) { _ = try DigestVerification.verify(path) }
      }
      // To everything else the file is as good as any.
      #expect(try ModelFile.open(path).recordedFiles.isEmpty)
    }
    for pairs in [
      [("multiway.digest", GGUFValue.string("md5"))], [("multiway.digest", .u32(1))],
      [("multiway.digest", .string("xxh3-128"))],
      [("multiway.digest", .string("xxh3-128")), ("multiway.tensor_digests", .string(other))],
      [("multiway.digest", .string("xxh3-128")), ("multiway.tensor_digests", .array(.string(["0"])))],
      [("multiway.digest", .string("xxh3-128")), ("multiway.tensor_digests", .array(.string([other, other])))],
    ] {
      let path = bench.folder.path("strange.gguf")
      let signed = StoredTensor(name: "a", dtype: .i8, shape: [1], elements: [1] as [Int8])
      try GGUFPlainWriter.write([signed], metadata: pairs.map { (key: $0.0, value: $0.1) }, to: path, overwrite: true)
      expect(GGUFErrorCode.malformed) { _ = try DigestVerification.verify(path) }
    }
  }

  /// A copy in another folder gives the same bytes: no path goes into an output.
  @Test(arguments: ["plain.safetensors", "int8.gguf"]) func noFolderIsRecorded(name: String) throws {
    try write(name)
    let first = try bench.folder.bytes(name)
    let elsewhere = try Workbench()
    let copy = elsewhere.folder.path("classification.pth")
    try FileManager.default.copyItem(atPath: source, toPath: copy)
    if name.hasSuffix(".gguf") {
      _ = try Conversions.quantize(
        try LoadedModel(path: copy), recipe: Recipes.int8, to: elsewhere.folder.path(name), overwrite: false)
    } else {
      try elsewhere.convert(copy, to: name)
    }
    let isEqual = try elsewhere.folder.bytes(name) == first
    #expect(isEqual)
  }
}
