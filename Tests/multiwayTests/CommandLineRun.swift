import Foundation
import MultiwayCore
import MultiwayTestSupport
import Testing

/// One run of the built executable.
struct CommandLineRun {
  let status: Int32
  /// True where a signal ended it.
  let wasKilled: Bool
  let output: String
  let errors: String

  /// The executable, which the build puts beside the tests.
  static let executable: String = {
    let beside = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
    let places = [
      beside.appendingPathComponent("multiway").path, Fixtures.package + "/.build/debug/multiway",
      Fixtures.package + "/.build/release/multiway",
    ]
    return places.first { FileManager.default.isExecutableFile(atPath: $0) } ?? places[0]
  }()

  /// Runs `multiway` with arguments, both streams being pipes' equivalents: files.
  init(_ arguments: [String], environment: [String: String] = [:], limitKilobytes: Int? = nil) throws {
    let folder = try TemporaryFolder()
    let process = Process()
    if let limitKilobytes {
      // A file-size limit stands in for a full disk: writing fails half-way. The signal is ignored, as a service does.
      process.executableURL = URL(fileURLWithPath: "/bin/bash")
      process.arguments =
        ["-c", "trap '' XFSZ; ulimit -f \(limitKilobytes); exec \"$0\" \"$@\"", CommandLineRun.executable] + arguments
    } else {
      process.executableURL = URL(fileURLWithPath: CommandLineRun.executable)
      process.arguments = arguments
    }
    var variables = ProcessInfo.processInfo.environment
    variables["MULTIWAY_ISA"] = nil
    variables["COLUMNS"] = "120"
    for (key, value) in environment { variables[key] = value }
    process.environment = variables
    process.currentDirectoryURL = URL(fileURLWithPath: folder.path)
    for name in ["out", "err"] { try folder.write([], to: name) }
    let out = try FileHandle(forWritingTo: URL(fileURLWithPath: folder.path("out")))
    let err = try FileHandle(forWritingTo: URL(fileURLWithPath: folder.path("err")))
    process.standardOutput = out
    process.standardError = err
    process.standardInput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    status = process.terminationStatus
    wasKilled = process.terminationReason == .uncaughtSignal
    output = String(decoding: try folder.bytes("out"), as: UTF8.self)
    errors = String(decoding: try folder.bytes("err"), as: UTF8.self)
  }
}

/// Runs `multiway` and checks how it ended: an exit code of the contract, never a signal.
@discardableResult
func multiway(
  _ arguments: String..., expecting status: Int32 = 0, environment: [String: String] = [:], limitKilobytes: Int? = nil,
  sourceLocation: SourceLocation = #_sourceLocation
) throws -> CommandLineRun {
  let run = try CommandLineRun(arguments, environment: environment, limitKilobytes: limitKilobytes)
  #expect(!run.wasKilled, "\(arguments): a signal: \(run.errors)", sourceLocation: sourceLocation)
  #expect(run.status == status, "\(arguments): \(run.errors)\(run.output)", sourceLocation: sourceLocation)
  // A progress bar would begin with a carriage return; nothing of it belongs into a file.
  #expect(!run.errors.contains("\r") && !run.output.contains("\r"), sourceLocation: sourceLocation)
  #expect(!run.errors.contains("\u{1B}") && !run.output.contains("\u{1B}"), sourceLocation: sourceLocation)
  return run
}

extension CommandLineRun {
  /// The one JSON object that is all of the output.
  var json: JSONObject {
    get throws { try #require(try JSONParser.parse(Array(output.utf8)).object) }
  }
}
