public import MultiwayCore

/// Reads pickles that stand alone: `pickle.dump` of a dictionary of PyTorch tensors or of NumPy arrays.
///
/// PyTorch's tensors hold their storages as bytes within the pickle, each a small file of the format before 1.6.
public enum BarePickleReader: CheckpointReader {
  /// `pickle`.
  public static let formatName = "pickle"
  /// What is read.
  public static let summary =
    "pickled tensors and NumPy arrays, protocols 0 to 5"

  /// How the pickles of protocols 0 and 1 start that hold a dictionary, a list or an array.
  private static let oldOpenings = [
    "(dp", "(lp", "}q\0", "]q\0", "ccollections\nOrderedDict\n", "ccopy_reg\n_reconstructor\n", "cnumpy",
  ].map { Array($0.utf8) }

  /// The cost of the few values in a storage's own pickles.
  private static let nestedSize = 64 << 10

  /// True for PROTO with a known protocol, and for what protocols 0 and 1 begin with.
  public static func recognizes(_ header: RawSpan) -> Bool {
    if header.byteCount > 2, header.byte(at: 0) == 0x80 { return (2...5).contains(header.byte(at: 1)) }
    return oldOpenings.contains { header.starts(with: $0) }
  }

  /// Reads the pickle; long arrays stay in their place in the file.
  public static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    do throws(CheckpointError) {
      return try object(file).checkpoint(format: formatName, file: file)
    } catch {
      throw error.naming(file)
    }
  }

  private static func object(_ file: any ByteSource) throws(CheckpointError) -> Pickled {
    var storages = TorchStorages { key, _ throws(CheckpointError) in
      throw CheckpointError(
        .missingRecord, "this pickle refers to the storage '\(key)', which is not in it",
        expected: "a whole file", remedy: "if this is 'data.pkl' from an unpacked archive, give the archive itself")
    }
    storages.readNested = { blob throws(CheckpointError) in try nestedStorage(blob, of: file) }
    var stream = PickleStream(file)
    let pickled = try stream.next(world: TorchWorld(fileSize: file.byteCount, storages: storages))
    if case .bigInt(let blob) = pickled.root, pickled.arena.blobs[blob].byteCount == LegacyReader.magic.count {
      throw CheckpointError(
        .unrecognized, "the file starts with a wrong magic number for PyTorch's legacy format",
        remedy: "the file is damaged: fetch it again", byteOffset: 0)
    }
    try stream.checkEnd()
    return pickled
  }

  /// The storage in bytes of the pickle. Its own pickles can hold no bytes of this kind again, so this ends after one level.
  private static func nestedStorage(
    _ blob: PickleBlob, of file: any ByteSource
  ) throws(CheckpointError) -> TorchStorage {
    let legacy: LegacyStream
    do throws(CheckpointError) {
      legacy = try LegacyStream.read(blob.source(of: file), objectSize: nestedSize)
    } catch {
      // Offsets in the inner bytes are no offsets in the file.
      var error = error
      error.diagnosis.found = "a storage within the pickle: " + error.diagnosis.found
      error.diagnosis.byteOffset = nil
      throw error
    }
    guard case .storage(let index) = legacy.object.root else {
      throw CheckpointError(
        .malformed, "the bytes of a storage hold \(legacy.object.arena.kind(legacy.object.root))",
        expected: "a storage")
    }
    return legacy.object.world.storages[index]
  }
}
