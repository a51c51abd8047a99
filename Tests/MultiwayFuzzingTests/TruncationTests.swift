import Foundation
import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayDelivery
import MultiwayFuzzing
import MultiwayGGUF
import MultiwayONNX
import MultiwayTestSupport
import Testing

/// A file that was cut short is an error, wherever it was cut: at every byte of its header, and at 200 places of its body.
///
/// Where a format allows a cut that takes nothing away (the padding of a tar archive, an empty zstd frame), what is read must be the same.
@Suite struct TruncationTests {
  private static let formats = [
    "safetensors", "pytorch", "pytorch-legacy", "numpy", "gguf", "zstd", "onnx",
  ]
  /// Directories of zip archives stand at the end; GGUF and safetensors headers are measured.
  private static let edge = 640
  /// What may be cut off there: the padding of a tar archive, what follows the tensors of a GGUF file, empty frames, what
  /// follows the graph of an ONNX model.
  private static let paddedFormats = ["pytorch-legacy", "gguf", "zstd", "onnx"]

  /// Where to cut: every byte of the first `header` and of the last `edge`, and 200 places between.
  func cuts(_ count: Int, header: Int, edge: Int = edge) -> [Int] {
    let body = (0..<200).map { header + (count - header) / 200 * $0 + $0 % 7 }
    return Set(Array(0..<min(header, count)) + body + Array(max(0, count - edge)..<count))
      .filter { $0 < count }.sorted()
  }

  /// What a checkpoint holds, tensor by tensor.
  private func contents(_ bytes: [UInt8], path: String) throws -> [String] {
    try contents(try CheckpointFormats.read(MemorySource(TensorBytes(copying: bytes), path: path)))
  }

  func contents(_ checkpoint: Checkpoint) throws -> [String] {
    try checkpoint.stateDicts.flatMap { dict in
      try dict.tensors.map { tensor in
        let bytes = try tensor.contiguousBytes()
        var digest = TensorDigest()
        digest.update(bytes.span)
        return "\(dict.name) \(tensor.name) \(tensor.dtype) \(tensor.shape) \(digest.finish())"
      }
    }
  }

  func headerSize(_ bytes: [UInt8]) -> Int {
    let file = MemorySource(TensorBytes(copying: bytes), path: "whole")
    if let container = try? GGUFContainer.read(file) { return container.dataOffset }
    let count = TensorBytes(copying: bytes).array(of: UInt64.self).first ?? 0
    return count < UInt64(bytes.count) ? 8 + Int(count) : TruncationTests.edge
  }

  @Test(arguments: formats) func checkpoints(format: String) throws {
    var count = 0
    for file in try CorpusTests.files(under: "Formats/\(format)/golden") {
      let whole: [String]
      do { whole = try contents(file.bytes, path: "whole") } catch {
        // Files that hold something which is listed and refused.
        continue
      }
      count += 1
      for cut in cuts(file.bytes.count, header: headerSize(file.bytes)) {
        let rest = try? contents(Array(file.bytes[..<cut]), path: "cut")
        let isSame = rest == whole && TruncationTests.paddedFormats.contains(format)
        #expect(rest == nil || isSame, "\(file.name) cut to \(cut) of \(file.bytes.count) bytes")
      }
    }
    #expect(count >= 5)
  }

  @Test func indexesOfShards() throws {
    for folder in ["plain", "total_size", "inner"] {
      let path = "\(FuzzedFixtures.package)/Formats/sharded/golden/\(folder)/model.safetensors.index.json"
      let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
      let whole = try contents(bytes, path: path)
      for cut in 0..<bytes.count {
        let rest = try? contents(Array(bytes[..<cut]), path: path)
        #expect(rest == nil || rest == whole, "\(folder) cut to \(cut) of \(bytes.count) bytes")
      }
    }
  }

  @Test func configurations() throws {
    let folder = try TemporaryFolder()
    let golden = "\(FuzzedFixtures.package)/Formats/sharded/golden/single/"
    for name in ["config.json", "model.safetensors", "preprocessor_config.json"] {
      try folder.write([UInt8](try Data(contentsOf: URL(fileURLWithPath: golden + name))), to: name)
    }
    for name in ["config.json", "preprocessor_config.json"] {
      let bytes = try folder.bytes(name)
      let whole = try CheckpointFormats.open(path: folder.path).metadata
      for cut in 0..<bytes.count {
        try folder.write(Array(bytes[..<cut]), to: name)
        let rest = try? CheckpointFormats.open(path: folder.path).metadata
        #expect(rest == nil || rest == whole, "\(name) cut to \(cut) of \(bytes.count) bytes")
      }
      try folder.write(bytes, to: name)
    }
  }

  @Test func artifacts() throws {
    for name in [
      "gguf/golden/artifact.gguf", "gguf/golden/artifact-without-digests.gguf",
      "gguf/golden/artifact-without-header-digest.gguf", "onnx/golden/operators.gguf",
    ] {
      let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(FuzzedFixtures.package)/Formats/\(name)")))
      func read(_ bytes: [UInt8]) throws -> Artifact {
        try Artifact.read(MemorySource(TensorBytes(copying: bytes), path: name))
      }
      _ = try read(bytes)
      for cut in cuts(bytes.count, header: headerSize(bytes)) {
        #expect(throws: (any Error).self, "\(name) cut to \(cut)") { try read(Array(bytes[..<cut])) }
      }
    }
  }

  /// Protobuf does not say where a message ends. A cut between the fields that follow the graph is no error, and takes nothing from it.
  @Test func onnx() throws {
    let path = "\(FuzzedFixtures.package)/Formats/onnx/golden/operators.onnx"
    let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    func read(_ bytes: [UInt8]) throws -> ONNXModel {
      let copy = TensorBytes(copying: bytes)
      return try ONNXModel(decoding: copy.span, file: "cut")
    }
    let whole = try read(bytes)
    var accepted = 0
    for cut in cuts(bytes.count, header: TruncationTests.edge) {
      guard let rest = try? read(Array(bytes[..<cut])) else { continue }
      accepted += 1
      #expect(rest.graph == whole.graph && rest.opset == whole.opset, "cut to \(cut) of \(bytes.count) bytes")
    }
    #expect(accepted <= whole.properties.count)
  }

  @Test func recipes() throws {
    for file in try CorpusTests.files(under: "Tests/Fixtures/fuzz/recipe") where !file.name.hasPrefix("bad_") {
      let text = Array(String(decoding: file.bytes, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines).utf8)
      for cut in 0..<text.count {
        #expect(FuzzedReader.recipe.read(TensorBytes(copying: Array(text[..<cut]))) != nil, "cut to \(cut)")
      }
    }
  }

  /// Packed files and deltas. Whatever is written is whole.
  @Test func deliveries() throws {
    let folder = try TemporaryFolder()
    let (input, output) = (folder.path("in"), folder.path("out"))
    func deliver(_ bytes: [UInt8], isDelta: Bool) throws -> [UInt8] {
      try folder.write(bytes, to: "in")
      if isDelta {
        _ = try Delivery.apply(input, to: FuzzedFixtures.base, output: output, overwrite: true)
      } else {
        _ = try Delivery.unpack(input, to: output, overwrite: true)
      }
      return try folder.bytes("out")
    }
    for name in [
      "Formats/zstd/golden/plain.gguf.zst", "Formats/zstd/golden/no_checksum.pth.zst",
      "Formats/zstd/golden/unknown_size.pth.zst", "Tests/Fixtures/fuzz/delta/two_bytes.zst",
    ] {
      let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: FuzzedFixtures.package + "/" + name)))
      let isDelta = name.contains("delta")
      let whole = try deliver(bytes, isDelta: isDelta)
      for cut in 0..<bytes.count {
        #expect(throws: (any Error).self, "\(name) cut to \(cut)") {
          try deliver(Array(bytes[..<cut]), isDelta: isDelta)
        }
      }
      #expect(try folder.bytes("out") == whole)
    }
  }
}
