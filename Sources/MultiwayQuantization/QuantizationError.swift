public import MultiwayCore

/// What can go wrong when weights are quantized or cast.
public enum QuantizationErrorCode: FailureCode {
  /// A weight is infinite or not a number.
  case nonFinite
  /// A finite weight is too large for the storage type.
  case overflow
  /// An index points outside its table.
  case indexOutOfRange

  /// The exit code class: the weights come from a file.
  public var category: FailureCategory { .data }
}

/// An error about quantizing or casting weights.
public typealias QuantizationError = Failure<QuantizationErrorCode>
