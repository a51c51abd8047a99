public import MultiwayCore

/// What can be wrong with a GGUF file, or with what is asked to be written into one.
public enum GGUFErrorCode: FailureCode {
  /// The file does not start with `GGUF`.
  case badMagic
  /// A version or byte order that this reader does not know.
  case badVersion
  /// The file ends before what its header promises.
  case truncated
  /// A count, a length or a type number that cannot be.
  case malformed
  /// A key or a tensor name that is empty, too long, not UTF-8, or used twice.
  case badName
  /// `general.alignment` is not a power of two of type u32.
  case badAlignment
  /// A shape with a negative or overflowing size, too many dimensions, or rows that do not fill their blocks.
  case badShape
  /// A tensor type that does not exist or was removed.
  case badType
  /// Tensors that do not follow each other as the format demands.
  case badOffset
  /// A compressed file that does not unpack.
  case corrupt
  /// The bytes given to the writer are not what was declared.
  case wrongSize

  /// The exit code class.
  public var category: FailureCategory { self == .wrongSize ? .internalFault : .data }
}

/// An error about a GGUF file.
public typealias GGUFError = Failure<GGUFErrorCode>
