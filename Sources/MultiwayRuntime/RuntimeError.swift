public import MultiwayCore

/// What can go wrong when a model is loaded or run.
public enum RuntimeErrorCode: FailureCode {
  /// The forced instruction set or the number of threads is impossible.
  case configuration
  /// The batch does not fit in memory.
  case memory
  /// The graph holds something that the runtime cannot run.
  case unsupported

  /// The exit code class.
  public var category: FailureCategory {
    switch self {
    case .configuration, .memory: .usage
    case .unsupported: .data
    }
  }
}

/// An error about running a model.
public typealias RuntimeError = Failure<RuntimeErrorCode>
