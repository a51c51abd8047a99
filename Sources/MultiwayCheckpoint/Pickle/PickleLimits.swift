/// What a pickle may cost. Everything grows with the bytes that the file really spends on it, so that a few packed kilobytes
/// cannot ask for minutes or gigabytes.
enum PickleLimits {
  /// How large a pickle may unpack to, where it is compressed: as large as the file, and 16 MiB in a smaller one, at most 64 MiB.
  static func unpackedSize(fileSize: Int) -> Int { min(64 << 20, max(16 << 20, fileSize)) }

  /// How long the name of a module, a class or a storage may be. Names are looked up, and a long one that is remembered can
  /// be looked up at every opcode.
  static let maximumNameSize = 1024

  /// How many dimensions a tensor may have.
  static let maximumRank = 64

  /// How many values are looked at in search of tensors.
  static let maximumVisits = 20_000_000

  /// How many bytes the dotted names of all tensors may take together.
  static let maximumNames = 64 << 20

  /// How many bytes of plain data are kept as metadata.
  static let maximumMetadata = 4 << 20

  /// How many opcodes are executed at most.
  static func steps(packedSize: Int) -> Int { min(50_000_000, 4_000_000 + min(packedSize, 1 << 30) * 64) }

  /// How many bytes the values may take at most.
  static func memory(packedSize: Int) -> Int { 40 << 20 + min(packedSize, 64 << 20) * 12 }

  /// How many values and marks may wait on the stack, besides those that the budget above covers.
  static let maximumStack = 400_000
}
