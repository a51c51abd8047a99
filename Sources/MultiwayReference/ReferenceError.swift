public import MultiwayCore

/// What can go wrong when a graph is interpreted.
public enum ReferenceErrorCode: FailureCode {
  /// Inputs are missing, unexpected, or of the wrong type, shape or range; the error lists all of them.
  case invalidInput
  /// A value or a matrix product is larger than the interpreter handles.
  case tooLarge

  /// The exit code class: inputs and graphs come from files.
  public var category: FailureCategory { .data }
}

/// An error of the interpreter.
public typealias ReferenceError = Failure<ReferenceErrorCode>
