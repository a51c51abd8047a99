public import MultiwayCore

/// Reads the files that `torch.save` wrote before PyTorch 1.6: pickles one after the other, then the storages.
public enum LegacyReader: CheckpointReader {
  /// `PyTorch legacy`.
  public static let formatName = "PyTorch legacy"
  /// What is read.
  public static let summary =
    "`torch.save` before 1.6"

  /// The format's magic number, 0x1950a86a20f9469cfc6c, in the bytes of a pickle.
  static let magic: [UInt8] = [0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19]
  static let magicDigits = Array("119547037146038801333356".utf8)

  /// True where the first pickle is the magic number, in whatever protocol.
  public static func recognizes(_ header: RawSpan) -> Bool {
    let opening = [0x8A, 0x0A] + magic
    // Protocol 2 and 3 put a PROTO before the number, 4 and 5 a FRAME too; 0 and 1 spell it in decimal.
    return [2, 11].contains { header.starts(with: opening, at: $0) } && header.byte(at: 0) == 0x80
      || header.starts(with: [UInt8(ascii: "L")] + magicDigits)
  }

  /// Reads the pickles and checks that the storages fill the file; tensor bytes are not touched.
  public static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    do throws(CheckpointError) {
      let legacy = try LegacyStream.read(file)
      return try legacy.object.checkpoint(format: formatName, file: file, notes: legacy.notes)
    } catch {
      throw error.naming(file)
    }
  }
}

extension CheckpointError {
  /// The same error with the file's name, if it has none.
  func naming(_ file: any ByteSource) -> CheckpointError {
    var error = self
    error.diagnosis.file = error.diagnosis.file ?? file.path
    return error
  }
}

/// What a legacy stream holds; a whole file, or the bytes of one storage in a bare pickle.
struct LegacyStream {
  var object: Pickled
  var notes: [String]

  /// The storages that the object's pickle has named so far.
  private final class Storages {
    var byKey: [String: DeferredStorage] = [:]
  }

  static func read(_ source: any ByteSource, objectSize: Int? = nil) throws(CheckpointError) -> LegacyStream {
    var stream = PickleStream(source)
    try checkMagic(try stream.nextPlain())
    try checkProtocol(try stream.nextPlain())
    let notes = try notes(try stream.nextPlain())
    let storages = Storages()
    let world = TorchWorld(
      fileSize: source.byteCount,
      storages: TorchStorages { key, byteCount throws(CheckpointError) in
        guard byteCount <= source.byteCount else {
          throw CheckpointError(
            .truncated, "the storage '\(key)' should have \(byteCount) bytes",
            expected: "at most the \(source.byteCount) of the file",
            remedy: "the download or copy is incomplete: fetch it again")
        }
        let storage = DeferredStorage(file: source, byteCount: byteCount)
        storages.byKey[key] = storage
        return storage
      })
    let object = try stream.next(world: world, size: objectSize)
    let keys = try keys(try stream.nextPlain(size: stream.remaining), used: storages.byKey)
    for key in keys {
      guard let storage = storages.byKey[key], let unit = object.world.unitSize(ofStorage: key) else { continue }
      try place(storage, key, unit: unit, in: &stream)
    }
    guard stream.remaining == 0 else {
      throw CheckpointError(
        .trailingData, "\(stream.remaining) bytes follow the last storage", expected: "the end of the file",
        remedy: "something was appended to the file: fetch it again", byteOffset: stream.offset)
    }
    return LegacyStream(object: object, notes: notes)
  }

  private static func checkMagic(_ pickled: Pickled) throws(CheckpointError) {
    let isMagic =
      if case .bigInt(let blob) = pickled.root, case .bytes(let bytes) = pickled.arena.blobs[blob] {
        bytes == LegacyReader.magic || bytes == LegacyReader.magicDigits
      } else {
        false
      }
    guard isMagic else {
      throw CheckpointError(
        .unrecognized, "the stream does not start with the magic number of PyTorch's legacy format", byteOffset: 0)
    }
  }

  private static func checkProtocol(_ pickled: Pickled) throws(CheckpointError) {
    guard pickled.root == .int(1001) else {
      throw CheckpointError(
        .unsupported, "protocol \(pickled.arena.text(ofNumber: pickled.root)) of PyTorch's legacy format",
        expected: "1001", remedy: "re-save the file with the PyTorch that wrote it, in the zip format")
    }
  }

  /// What the description of the writing machine says. Storages are little-endian whatever it is: `torch.save` turns them.
  private static func notes(_ pickled: Pickled) throws(CheckpointError) -> [String] {
    guard let items = pickled.arena.items(pickled.root, .dict) else {
      throw CheckpointError(
        .malformed, "the description of the machine is \(pickled.arena.kind(pickled.root))", expected: "a dict")
    }
    for index in stride(from: 0, to: items.count - 1, by: 2)
    where pickled.arena.text(items[index]) == "little_endian" && items[index + 1] == .bool(false) {
      return ["written on a big-endian machine; the format's storages are little-endian all the same"]
    }
    return []
  }

  /// The keys of the storages in the order of their bytes: exactly those that the object uses.
  private static func keys(
    _ pickled: Pickled, used: [String: DeferredStorage]
  ) throws(CheckpointError) -> [String] {
    guard let items = pickled.arena.items(pickled.root, .sequence) else {
      throw CheckpointError(
        .malformed, "the list of storages is \(pickled.arena.kind(pickled.root))", expected: "a list of keys")
    }
    var keys: [String] = []
    var seen: Set<String> = []
    for item in items {
      guard let key = pickled.arena.text(item) else {
        throw CheckpointError(.malformed, "a storage's key is \(pickled.arena.kind(item))", expected: "a string")
      }
      guard seen.insert(key).inserted else {
        throw CheckpointError(.duplicateName, "the storage '\(key)' is listed twice")
      }
      keys.append(key)
    }
    let missing = used.keys.filter { !seen.contains($0) }.sorted()
    let unused = keys.filter { used[$0] == nil }
    guard missing.isEmpty, unused.isEmpty else {
      var problems: [String] = []
      if !missing.isEmpty { problems.append("lacks " + missing.prefix(5).joined(separator: ", ")) }
      if !unused.isEmpty { problems.append("names " + unused.prefix(5).joined(separator: ", ") + " without use") }
      throw CheckpointError(
        .missingRecord, "the list of storages " + problems.joined(separator: " and "),
        expected: "exactly the storages that the tensors use", remedy: "the file is damaged: fetch it again")
    }
    return keys
  }

  private static func place(
    _ storage: DeferredStorage, _ key: String, unit: Int, in stream: inout PickleStream
  ) throws(CheckpointError) {
    let start = stream.offset
    let count = try stream.number(Int64.self, "the size of the storage '\(key)'")
    let (size, overflow) = count.multipliedReportingOverflow(by: unit)
    guard !overflow, size == storage.byteCount else {
      throw CheckpointError(
        .sizeMismatch, "the storage '\(key)' says that it has \(count) elements of \(unit) bytes",
        expected: "\(storage.byteCount) bytes, as the tensors that use it say",
        remedy: "the file is damaged: fetch it again", byteOffset: start)
    }
    storage.place(at: try stream.skip(size, "the storage '\(key)'"))
  }
}

extension PickleArena {
  /// An integer for messages.
  func text(ofNumber value: PickleValue) -> String {
    if case .int(let number) = value { String(number) } else { kind(value) }
  }
}
