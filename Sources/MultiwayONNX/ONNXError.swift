public import MultiwayCore

/// What can go wrong with an ONNX model.
public enum ONNXErrorCode: FailureCode {
  /// An operator set that is not written.
  case unsupportedOpset
  /// A graph that cannot be expressed in ONNX, or not within its limits.
  case unexportable
  /// Bytes that are no ONNX model.
  case malformed

  /// The exit code class.
  public var category: FailureCategory {
    switch self {
    case .unsupportedOpset: .usage
    case .unexportable, .malformed: .data
    }
  }
}

/// An error about an ONNX model.
public typealias ONNXError = Failure<ONNXErrorCode>
