import Foundation
import MultiwayCheckpoint
import MultiwayCore
import Testing

/// What the corpus of ONNX files cannot hold: links, and what other formats make of ONNX's bytes.
@Suite struct ONNXTests {
  private let folder: TemporaryFolder
  private let golden = "\(repositoryRoot)/Formats/onnx/golden/"

  init() throws {
    folder = try TemporaryFolder()
    _ = try folder.write(try contents(of: golden + "external.onnx"), as: "model.onnx")
  }

  private func link(to target: String) throws {
    try? FileManager.default.removeItem(atPath: folder.file("external.data"))
    try FileManager.default.createSymbolicLink(
      atPath: folder.file("external.data"), withDestinationPath: target)
  }

  @Test func dataBesideTheModelIsOpened() throws {
    _ = try folder.write(try contents(of: golden + "external.data"), as: "external.data")
    let checkpoint = try CheckpointFormats.open(path: folder.file("model.onnx"))
    #expect(try checkpoint.stateDict().tensor(named: "w")?.floats() == [1, 2, 3, 4, 5, 6])
    // An output may replace neither.
    #expect(checkpoint.identities.count == 2)
    #expect(checkpoint.byteCount > 88)
  }

  @Test(arguments: ["/dev/zero", "../external.data", "/etc/passwd"])
  func linksThatLeadOutAreNotFollowed(target: String) throws {
    try link(to: target)
    let error = #expect(throws: CheckpointError.self) { try CheckpointFormats.open(path: folder.file("model.onnx")) }
    #expect(error?.code == .leavesFolder)
    #expect(error?.diagnosis.tensor == "w")
  }

  /// A pipe would keep a reader waiting for ever.
  @Test func whatIsNoFileIsRefused() throws {
    try? FileManager.default.removeItem(atPath: folder.file("external.data"))
    #expect(unsafe mkfifo(folder.file("external.data"), 0o600) == 0)
    let error = #expect(throws: CheckpointError.self) { try CheckpointFormats.open(path: folder.file("model.onnx")) }
    #expect(error?.code == .missingRecord)
  }

  /// A safetensors header whose length starts as a model's version does.
  @Test func aSafetensorsFileIsNotTakenForAModel() throws {
    let header = #"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#
    for length in [0x108, 0x3A08, 0x1208] {
      var bytes = (0..<8).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) }
      bytes += Array(header.utf8) + [UInt8](repeating: 0x20, count: length - header.utf8.count) + [0, 0, 128, 63]
      let checkpoint = try CheckpointFormats.open(path: try folder.write(bytes, as: "model.safetensors"))
      #expect(checkpoint.format == "safetensors")
    }
  }
}
