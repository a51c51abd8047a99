public import MultiwayCore

/// What can be wrong with a checkpoint, or with what is asked of one.
public enum CheckpointErrorCode: FailureCode {
  /// The bytes are of no format that is read here.
  case unrecognized
  /// The format or the feature is known, but not supported.
  case unsupported
  /// The file ends before what its headers promise.
  case truncated
  /// There are bytes that belong to nothing.
  case trailingData
  /// The file breaks a rule of its format.
  case malformed
  /// Sizes that should agree do not.
  case sizeMismatch
  /// A name that must be unique is not.
  case duplicateName
  /// A checksum or a compressed stream is wrong.
  case corrupt
  /// A record, a shard or a tensor that is referred to is not there.
  case missingRecord
  /// A name or a link leads out of the checkpoint's folder.
  case leavesFolder
  /// The pickle wants to call something; it is never called.
  case forbiddenCall
  /// The file asks for more work or memory than its size justifies.
  case overBudget
  /// There are no tensors in the file.
  case noTensors
  /// There is no state dict of the name asked for.
  case noSuchStateDict
  /// The output format cannot hold what it is given.
  case unrepresentable

  /// The exit code class.
  public var category: FailureCategory { self == .noSuchStateDict ? .usage : .data }
}

/// An error about a checkpoint.
public typealias CheckpointError = Failure<CheckpointErrorCode>
