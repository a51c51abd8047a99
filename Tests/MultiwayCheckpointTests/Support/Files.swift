import Foundation
import MultiwayCheckpoint
import MultiwayCore
import Testing

/// A folder of its own that is removed with the value.
final class TemporaryFolder {
  let path: String

  init() throws {
    path = NSTemporaryDirectory() + "/multiway-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String = "file") -> String { path + "/" + name }

  /// Writes a file and returns its path.
  func write(_ bytes: [UInt8], as name: String = "file") throws -> String {
    try Data(bytes).write(to: URL(fileURLWithPath: file(name)))
    return file(name)
  }

  var names: [String] { (try? FileManager.default.contentsOfDirectory(atPath: path).sorted()) ?? [] }
}

/// The bytes of a file.
func contents(of path: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }

/// The repository's root, found from this file's place in it.
let repositoryRoot = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent().deletingLastPathComponent().path

/// Opens a checkpoint and reads every tensor of it, as a conversion would.
@discardableResult
func readEverything(_ path: String) throws -> [(tensor: StoredTensor, bytes: [UInt8])] {
  let checkpoint = try CheckpointFormats.open(path: path)
  var result: [(tensor: StoredTensor, bytes: [UInt8])] = []
  for dict in checkpoint.stateDicts {
    for tensor in dict.tensors { result.append((tensor, try tensor.contiguousBytes().array(of: UInt8.self))) }
  }
  return result
}

/// Runs `body` and returns the code of the checkpoint error that it throws; other errors of the project count as `.corrupt`.
func errorCode(_ body: () throws -> Void) -> CheckpointErrorCode? {
  do {
    try body()
    return nil
  } catch let error as CheckpointError {
    return error.code
  } catch is any DiagnosedError {
    return .corrupt
  } catch {
    Issue.record("an error of a foreign type: \(error)")
    return nil
  }
}
