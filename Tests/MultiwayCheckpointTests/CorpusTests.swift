import Foundation
import MultiwayCheckpoint
import MultiwayCore
import MultiwayGGUF
import Testing

/// One case of a manifest of good and hostile files.
struct CorpusCase: Sendable, CustomTestStringConvertible {
  var path: String
  var shouldOpen: Bool
  var isPolicy: Bool
  var stateDict: String?
  var code: String?
  var values: JSONObject

  var testDescription: String { path }

  /// The cases of `folder/manifest.json` of the given kinds.
  static func cases(in folder: String, kinds: Set<String>? = nil) throws -> [CorpusCase] {
    let manifest = try JSONParser.parse(try contents(of: folder + "/manifest.json"))
    return (manifest["cases"]?.array ?? []).compactMap { value -> CorpusCase? in
      guard let path = value["path"]?.string, kinds?.contains(value["kind"]?.string ?? "") ?? true else { return nil }
      return CorpusCase(
        path: folder + "/" + path, shouldOpen: value["expect"]?.string == "ok", isPolicy: value["must"]?.bool == false,
        stateDict: value["select"]?.string, code: value["error"]?.string,
        values: value["values"]?.object ?? JSONObject())
    }
  }

  /// What is wrong with the outcome; nil if it is as expected.
  func problem() -> String? {
    do {
      let checkpoint = try CheckpointFormats.open(path: path)
      let dict = try checkpoint.stateDict(named: stateDict)
      var problems: [String] = []
      for (name, expected) in values.members {
        if let problem = problem(dict, name, expected) { problems.append("\(name.prefix(40)): \(problem)") }
      }
      if values.members.isEmpty || !shouldOpen { try readEverything(path) }
      if !shouldOpen { problems.append("should fail, but gave \(dict.tensors.map(\.name).prefix(5))") }
      return problems.isEmpty ? nil : problems.joined(separator: "; ")
    } catch let error as any DiagnosedError {
      if shouldOpen { return "should open, but: \(error)" }
      if let code, let error = error as? CheckpointError, "\(error.code)" != code { return "\(error.code): \(error)" }
      return "\(error)".contains("\n\n") || error.diagnosis.file == nil ? "an odd message: \(error)" : nil
    } catch {
      return "an error of a foreign type: \(error)"
    }
  }

  private func problem(_ dict: StateDict, _ name: String, _ expected: JSONValue) -> String? {
    do {
      guard let tensor = dict.tensors.first(where: { Array($0.name.utf8) == Array(name.utf8) }) else {
        return "missing"
      }
      if expected["dtype"]?.string == "Q8_0" {
        let container = try GGUFContainer.read(try MappedFile(path: path))
        let bytes = try container.bytes(of: #require(container.tensor(named: name)))
        return SHA256.hex(bytes.array(of: UInt8.self)) == expected["sha256"]?.string ? nil : "other bytes"
      }
      guard tensor.dtype.rawValue == expected["dtype"]?.string else { return "dtype \(tensor.dtype)" }
      guard tensor.shape.dimensions == expected["shape"]?.array?.compactMap(\.integer) else { return "\(tensor.shape)" }
      let bytes = try tensor.contiguousBytes().array(of: UInt8.self)
      return SHA256.hex(bytes) == expected["sha256"]?.string ? nil : "other bytes"
    } catch {
      return "\(error)"
    }
  }
}

let corpusFormats = ["safetensors", "pytorch", "pytorch-legacy", "numpy", "gguf", "onnx", "zstd", "sharded"]

/// The kinds of a whole corpus that are checkpoints.
private let kinds: Set<String> = ["safetensors", "pytorch", "gguf", "sharded"]

/// The folder of a whole corpus, for those who have one: set MULTIWAY_HOSTILE to run it.
private let corpusFolder = ProcessInfo.processInfo.environment["MULTIWAY_HOSTILE"]

@Suite struct CorpusTests {
  @Test func sha256() {
    #expect(SHA256.hex([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    #expect(
      SHA256.hex(Array("abc".utf8)) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
  }

  /// Files that must open, with the digests of their tensors.
  @Test(arguments: corpusFormats) func goldenFiles(format: String) throws {
    try check(folder: "\(repositoryRoot)/Formats/\(format)/golden", atLeast: 5)
  }

  /// Files that must be refused, with the error's code and a message that names the file.
  @Test(arguments: corpusFormats) func malformedFiles(format: String) throws {
    try check(folder: "\(repositoryRoot)/Formats/\(format)/malformed", atLeast: 20)
  }

  private func check(folder: String, atLeast count: Int) throws {
    let cases = try CorpusCase.cases(in: folder)
    #expect(cases.count >= count)
    for item in cases {
      if let problem = item.problem() { Issue.record("\(item.path): \(problem)") }
    }
  }

  @Test(.enabled(if: corpusFolder != nil))
  func wholeCorpus() throws {
    let folder = try #require(corpusFolder)
    for item in try CorpusCase.cases(in: folder, kinds: kinds) {
      guard let problem = item.problem() else { continue }
      if item.isPolicy {
        print("another policy: \(item.path): \(problem)")
      } else {
        Issue.record("\(item.path): \(problem)")
      }
    }
  }
}
