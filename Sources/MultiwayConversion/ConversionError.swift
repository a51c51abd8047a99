public import MultiwayCore

/// What can go wrong around a conversion as a whole.
public enum ConversionErrorCode: FailureCode {
  /// The output's extension or the flags do not fit what was asked for.
  case usage
  /// A recipe is unknown or its file is malformed.
  case recipe
  /// The input cannot be used in this way.
  case unsupportedInput
  /// The input is not what it was when it was written.
  case damaged
  /// A library of the machine cannot do what was asked for.
  case unavailable

  /// The exit code class.
  public var category: FailureCategory {
    switch self {
    case .usage, .recipe: .usage
    case .unsupportedInput, .damaged: .data
    case .unavailable: .internalFault
    }
  }
}

/// An error about a conversion.
public typealias ConversionError = Failure<ConversionErrorCode>

/// The version of the tool, which artifacts record.
public enum MultiwayVersion {
  /// Semantic version.
  public static let current = "0.1.0"
}
