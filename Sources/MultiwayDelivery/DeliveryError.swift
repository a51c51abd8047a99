public import MultiwayCore

/// What can go wrong when a file is packed, unpacked, or made from another.
public enum DeliveryErrorCode: FailureCode {
  /// The file is no zstd stream.
  case notPacked
  /// The file ends within a frame.
  case truncated
  /// A frame is damaged, or its checksum is wrong.
  case corrupt
  /// A delta does not give the file that it was made for: another base, or damage.
  case wrongBase
  /// The frames promise more than the disk can take.
  case tooLarge
  /// A setting that libzstd does not take.
  case usage
  /// There is not enough memory for the window.
  case memory

  /// The exit code class.
  public var category: FailureCategory {
    switch self {
    case .usage: .usage
    case .tooLarge, .memory: .inputOutput
    case .notPacked, .truncated, .corrupt, .wrongBase: .data
    }
  }
}

/// An error of delivery.
public typealias DeliveryError = Failure<DeliveryErrorCode>
