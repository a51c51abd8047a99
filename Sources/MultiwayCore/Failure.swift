/// The kinds of failure that the command line's exit codes tell apart (the contract in Docs/Architecture.md).
public enum FailureCategory: Int32, Sendable {
  /// Parity was measured and a gate was missed.
  case parity = 1
  /// The command was used wrongly.
  case usage = 64
  /// The input is malformed or not supported.
  case data = 65
  /// There is no such input.
  case noInput = 66
  /// A fault of our own.
  case internalFault = 70
  /// The output cannot be created.
  case cannotCreate = 73
  /// Reading or writing failed half-way.
  case inputOutput = 74
}

/// What went wrong, where, and what to do about it: the text of every error of the project.
public struct Diagnosis: Hashable, Sendable {
  /// What was found, as a sentence without its full stop.
  public var found: String
  /// What was expected instead.
  public var expected: String?
  /// What the reader can do about it.
  public var remedy: String?
  /// The file concerned.
  public var file: String?
  /// The tensor concerned.
  public var tensor: String?
  /// The graph node concerned.
  public var node: String?
  /// The offset in `file`, in bytes, where the problem was found.
  public var byteOffset: Int?

  /// Makes a diagnosis; everything but `found` is optional.
  public init(
    _ found: String, expected: String? = nil, remedy: String? = nil, file: String? = nil, tensor: String? = nil,
    node: String? = nil, byteOffset: Int? = nil
  ) {
    self.found = found
    self.expected = expected
    self.remedy = remedy
    self.file = file
    self.tensor = tensor
    self.node = node
    self.byteOffset = byteOffset
  }
}

extension Diagnosis: CustomStringConvertible {
  /// `file: tensor 'x': byte 12: found; expected …` and, on a line of its own, what to do.
  public var description: String {
    var places: [String] = []
    if let file { places.append(file) }
    if let tensor { places.append("tensor '\(tensor)'") }
    if let node { places.append("node '\(node)'") }
    if let byteOffset { places.append("byte \(byteOffset)") }
    var text = (places + [found]).joined(separator: ": ")
    if let expected { text += "; expected \(expected)" }
    if let remedy { text += "\n  what to do: \(remedy)" }
    return text
  }
}

/// A code of one target's errors.
public protocol FailureCode: Hashable, Sendable {
  /// The exit code class that it belongs to.
  var category: FailureCategory { get }
}

/// Any error of the project: it can be printed, and it knows its exit code.
public protocol DiagnosedError: Error, CustomStringConvertible {
  /// The exit code class.
  var category: FailureCategory { get }
  /// The text.
  var diagnosis: Diagnosis { get set }
}

/// The error type of a target: `CheckpointError` is `Failure<CheckpointErrorCode>`, and so on.
public struct Failure<Code: FailureCode>: DiagnosedError, Hashable {
  /// Which failure it is; tests compare this, people read `diagnosis`.
  public var code: Code
  /// The text.
  public var diagnosis: Diagnosis

  /// Makes an error.
  public init(_ code: Code, _ diagnosis: Diagnosis) {
    self.code = code
    self.diagnosis = diagnosis
  }

  /// Makes an error from the parts of its diagnosis.
  public init(
    _ code: Code, _ found: String, expected: String? = nil, remedy: String? = nil, file: String? = nil,
    tensor: String? = nil, node: String? = nil, byteOffset: Int? = nil
  ) {
    self.init(
      code,
      Diagnosis(
        found, expected: expected, remedy: remedy, file: file, tensor: tensor, node: node, byteOffset: byteOffset))
  }

  /// The exit code class of `code`.
  public var category: FailureCategory { code.category }
  /// The text of `diagnosis`.
  public var description: String { diagnosis.description }
}

/// What can go wrong with files as such.
public enum FileErrorCode: FailureCode {
  /// The input does not exist.
  case notFound
  /// The input cannot be read (permission, a directory, a device).
  case unreadable
  /// A name or a link in a folder leads out of it.
  case leavesFolder
  /// The output exists and overwriting was not asked for.
  case exists
  /// The output cannot be created.
  case cannotCreate
  /// A read or write failed.
  case inputOutput
  /// An input changed while it was read.
  case changed
  /// Making an output took more memory than was allowed.
  case memoryExceeded

  /// The exit code class.
  public var category: FailureCategory {
    switch self {
    case .notFound, .unreadable: .noInput
    case .leavesFolder: .data
    case .exists, .cannotCreate: .cannotCreate
    case .inputOutput, .changed: .inputOutput
    case .memoryExceeded: .usage
    }
  }
}

/// An error about a file as such.
public typealias FileError = Failure<FileErrorCode>

/// What can go wrong with a tensor's bytes.
public enum TensorErrorCode: FailureCode {
  /// The bytes are not what the file promises (checksum, length, compressed stream).
  case corrupt
  /// The dtype cannot be turned into what was asked for.
  case unsupported
  /// The shape or the strides are impossible.
  case invalidShape

  /// The exit code class.
  public var category: FailureCategory { .data }
}

/// An error about a tensor's bytes.
public typealias TensorError = Failure<TensorErrorCode>
