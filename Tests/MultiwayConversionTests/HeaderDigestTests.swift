import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayONNX
import MultiwayTestSupport
import Testing

/// The digest of what of a file belongs to no tensor: header, metadata, graph and fillers.
@Suite struct HeaderDigestTests {
  private let bench: Workbench
  private static let golden = Fixtures.package + "/Formats/gguf/golden/"

  init() throws { bench = try Workbench() }

  /// Writes a file of the name's kind.
  private func write(_ name: String) throws {
    if name == "artifact.gguf" {
      let golden = try MappedFile(path: HeaderDigestTests.golden + name)
      try bench.folder.write(golden.bytes.array(of: UInt8.self), to: name)
      return
    }
    if name.hasSuffix(".onnx") {
      try bench.convert(Fixtures.path("tiny/classification.pth"), to: name)
      return
    }
    let tensors = [
      StoredTensor(name: "a", dtype: .f32, shape: [3], elements: [1, 2, 3] as [Float]),
      StoredTensor(name: "b", dtype: .i8, shape: [2, 2], elements: [1, 2, 3, 4] as [Int8]),
    ]
    try SafetensorsWriter.write(tensors, metadata: ["license": "MIT"], to: bench.folder.path("source.safetensors"))
    try bench.convert(bench.folder.path("source.safetensors"), to: name)
  }

  /// One flipped bit of any byte, in a tensor or not, is an error about the input: of the reader, or of the digests.
  @Test(arguments: [("artifact.gguf", 1), ("a.gguf", 1), ("a.safetensors", 1), ("a.pth", 1), ("a.onnx", 97)])
  func everyFlippedByteIsNoticed(name: String, stride: Int) throws {
    try write(name)
    let path = bench.folder.path(name)
    #expect(try DigestVerification.verify(path).coversHeader)
    var bytes = try bench.folder.bytes(name)
    var unnoticed: [Int] = []
    for place in Swift.stride(from: 0, to: bytes.count, by: stride) {
      let bit = UInt8(1) << UInt8(place / stride % 8)
      bytes[place] ^= bit
      try bench.folder.write(bytes, to: name)
      do {
        _ = try DigestVerification.verify(path)
        unnoticed.append(place)
      } catch let error as any DiagnosedError {
        #expect(error.category == .data, "byte \(place): \(error)")
      }
      bytes[place] ^= bit
    }
    #expect(unnoticed.isEmpty)
    try bench.folder.write(bytes, to: name)
    _ = try DigestVerification.verify(path)
  }

  /// The weights of an ONNX model beside it: what lies between them, too.
  @Test func fillersOfWeightsAreCompared() throws {
    let model = try LoadedModel(path: Fixtures.path("tiny/classification.pth"))
    let path = bench.folder.path("model.onnx")
    let provenance = Provenance(tool: "test", recipe: [:], files: [])
    try ONNXWriter.write(
      model.graph,
      metadata: ONNXMetadata(name: "m", description: "", producerVersion: "0", provenance: provenance), to: path,
      overwrite: false, inlineLimit: 0)
    #expect(try DigestVerification.verify(path).coversHeader)
    let data = try #require(try bench.folder.names().first { $0.hasSuffix(".data") })
    var bytes = try bench.folder.bytes(data)
    // The last tensor but one ends before the last page begins.
    let filler = bytes.count / 4096 * 4096 - 1
    #expect(bytes[filler] == 0)
    bytes[filler] = 1
    try bench.folder.write(bytes, to: data)
    let found = expect(ConversionErrorCode.damaged) { _ = try DigestVerification.verify(path) }
    #expect(found?.found.contains("no tensor") == true && found?.file?.hasSuffix(".data") == true)
  }

  /// A certificate is written into the header, whose digest is then another.
  @Test func certificatesAreCovered() throws {
    try write("artifact.gguf")
    let path = bench.folder.path("artifact.gguf")
    for certificate in ["first", "second, which is longer"] {
      try ArtifactWriter.certify(
        try MappedFile(path: path), with: .string(certificate), to: path, overwrite: true)
      #expect(try DigestVerification.verify(path).coversHeader)
    }
    var bytes = try bench.folder.bytes("artifact.gguf")
    let place = try #require(bytes.indices.first { bytes[$0...].starts(with: Array("longer".utf8)) })
    bytes[place] ^= 1
    try bench.folder.write(bytes, to: "artifact.gguf")
    expect(ConversionErrorCode.damaged) { _ = try DigestVerification.verify(path) }
  }

  /// What is damaged gets no certificate: it would be right from then on.
  @Test func whatIsDamagedIsNotCertified() throws {
    try write("artifact.gguf")
    let whole = try bench.folder.bytes("artifact.gguf")
    let word = Array("multiway.recipe".utf8)
    let place = try #require(whole.indices.first { whole[$0...].starts(with: word) }) + word.count + 14
    for damaged in [place, whole.count - 64] {
      var bytes = whole
      bytes[damaged] ^= 1
      try bench.folder.write(bytes, to: "artifact.gguf")
      let path = bench.folder.path("artifact.gguf")
      expect(ArtifactErrorCode.damaged) {
        try ArtifactWriter.certify(try MappedFile(path: path), with: .string("yes"), to: path, overwrite: true)
      }
      let isLeft = try bench.folder.bytes("artifact.gguf") == bytes
      #expect(isLeft)
    }
  }

  /// Files of earlier versions record digests of their tensors alone, and are verified as they were.
  @Test func earlierFilesAreStillVerified() throws {
    let old = HeaderDigestTests.golden + "artifact-without-header-digest.gguf"
    #expect(try !DigestVerification.verify(old).coversHeader)
    let path = bench.folder.path("old.gguf")
    try ArtifactWriter.certify(try MappedFile(path: old), with: .string("yes"), to: path, overwrite: false)
    #expect(try !DigestVerification.verify(path).coversHeader)
    let tensor = StoredTensor(name: "a", dtype: .u8, shape: [1], elements: [1] as [UInt8])
    let digest = try TensorDigest.of(tensor)
    try SafetensorsWriter.write(
      [tensor], metadata: ["multiway": #"{"digest":"xxh3-128","tensors":{"a":"\#(digest)"}}"#],
      to: bench.folder.path("old.safetensors"))
    #expect(try !DigestVerification.verify(bench.folder.path("old.safetensors")).coversHeader)
  }

  /// Wherever pieces begin and end, the digits count as zeros, and nothing else does.
  @Test func theDigestDoesNotDependOnPieces() throws {
    let digits = "xxh3-128:" + String(repeating: "a7", count: 16)
    func bytes(_ text: String) -> [UInt8] {
      [UInt8](repeating: 5, count: 70_000) + Array("xxh3-128:aaxxh3-128".utf8) + Array(text.utf8) + [1, 2, 3]
    }
    func digest(_ bytes: [UInt8], of text: String, pieces: Int) -> String {
      var digest = HeaderDigest(of: text)
      for start in stride(from: 0, to: bytes.count, by: pieces) {
        digest.update(Array(bytes[start..<min(bytes.count, start + pieces)]))
      }
      return digest.finish()
    }
    let expected = digest(bytes(HeaderDigest.placeholder), of: HeaderDigest.placeholder, pieces: 1 << 20)
    for pieces in [1, 7, 41, 42, 4096, 65_536, 70_030, 1 << 20] {
      let found = digest(bytes(digits), of: digits, pieces: pieces)
      #expect(found == expected)
    }
    #expect(digest(bytes(digits), of: HeaderDigest.placeholder, pieces: 999) != expected)
    #expect(HeaderDigest.isDigest(expected) && HeaderDigest.isDigest(HeaderDigest.placeholder))
    for text in ["xxh3-128", "xxh3-128:", String(digits.dropLast()), "xxh3-064" + digits.dropFirst(8)] {
      #expect(!HeaderDigest.isDigest(text))
    }
  }
}
