import Foundation
import MultiwayCore
import MultiwayFuzzing
import Testing

/// What Tools/fuzz does for hours, for seconds: every file of the corpora, and everything that a fuzzer once found, through every reader.
@Suite struct CorpusTests {
  /// The files under a folder of the package, manifests left out, in the order of their names.
  static func files(under folder: String, largest: Int = 100_000) throws -> [(name: String, bytes: [UInt8])] {
    let root = FuzzedFixtures.package + "/" + folder
    let names = try FileManager.default.subpathsOfDirectory(atPath: root).sorted()
    return try names.compactMap { name in
      guard !Folder.exists(root + "/" + name), !name.hasSuffix("manifest.json") else { return nil }
      let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: root + "/" + name)))
      return bytes.count <= largest ? (name, bytes) : nil
    }
  }

  /// A reader either reads a file or gives an error of the project; `FuzzedReader.read` ends the process for anything else.
  @Test(arguments: ["golden", "malformed"]) func everyFileThroughEveryReader(part: String) throws {
    let formats = try FileManager.default.contentsOfDirectory(atPath: FuzzedFixtures.package + "/Formats").sorted()
    var read: Set<FuzzedReader> = []
    var count = 0
    for format in formats {
      guard let files = try? CorpusTests.files(under: "Formats/\(format)/\(part)") else { continue }
      for file in files {
        count += 1
        let bytes = TensorBytes(copying: file.bytes)
        for reader in FuzzedReader.allCases where reader.read(bytes) == nil { read.insert(reader) }
      }
    }
    #expect(count > 80)
    guard part == "golden" else { return }
    // Those that read a part of a file have their seeds below; Tools/fuzz cuts others out of these files.
    let parts: Set<FuzzedReader> = [.pytorchPickle, .configuration, .model, .graph, .recipe]
    #expect(read.isSuperset(of: Set(FuzzedReader.allCases).subtracting(parts)))
  }

  @Test func seedsAndFindings() throws {
    let folder = FuzzedFixtures.package + "/Tests/Fixtures/fuzz"
    for name in try FileManager.default.contentsOfDirectory(atPath: folder).sorted() {
      let reader = try #require(FuzzedReader(rawValue: name), "no reader is called '\(name)'")
      for file in try CorpusTests.files(under: "Tests/Fixtures/fuzz/\(name)") {
        let error = reader.read(TensorBytes(copying: file.bytes))
        // The names of what must be refused say so.
        #expect(
          (error != nil) == file.name.hasPrefix("bad_"), "\(name)/\(file.name): \(error.map { "\($0)" } ?? "read")")
      }
    }
  }
}
