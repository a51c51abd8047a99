public import MultiwayCore

/// What can go wrong with kernels for reasons outside the program.
public enum KernelErrorCode: FailureCode {
  /// The instruction set asked for is unknown, or this CPU lacks it.
  case unsupportedISA
  /// The number of threads is out of range, or the system grants no more.
  case threads
  /// The system grants no more memory.
  case outOfMemory
  /// A weight is NaN or infinite and cannot be quantized.
  case nonFinite

  /// The exit code class.
  public var category: FailureCategory {
    switch self {
    case .unsupportedISA, .threads: .usage
    case .outOfMemory: .internalFault
    case .nonFinite: .data
    }
  }
}

/// An error of the kernels.
public typealias KernelError = Failure<KernelErrorCode>
