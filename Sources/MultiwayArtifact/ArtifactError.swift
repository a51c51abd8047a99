public import MultiwayCore

/// What can be wrong with an artifact, or with what is asked to be written into one.
public enum ArtifactErrorCode: FailureCode {
  /// A GGUF file that holds no graph of ours.
  case notAnArtifact
  /// A format version, an op or a layout that this version does not know.
  case unsupported
  /// A graph that is not well formed.
  case malformedGraph
  /// A metadata key that is missing or of the wrong type.
  case malformedMetadata
  /// Tensors that are missing, unexpected, or of a type that artifacts do not hold.
  case tensorMismatch
  /// A graph that cannot be written as an artifact.
  case unstorable
  /// Bytes that are not those that were written.
  case damaged

  /// The exit code class.
  public var category: FailureCategory { .data }
}

/// An error about an artifact.
public typealias ArtifactError = Failure<ArtifactErrorCode>
