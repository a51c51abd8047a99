public import MultiwayCore

/// Reads the tar archives that PyTorch 0.1 wrote: the members `storages`, `tensors` and `pickle`.
public enum TarReader: CheckpointReader {
  /// `PyTorch tar`.
  public static let formatName = "PyTorch tar"
  /// What is read.
  public static let summary =
    "the tar form of PyTorch 0.1"

  /// True for a tar archive.
  public static func recognizes(_ header: RawSpan) -> Bool {
    header.starts(with: Array("ustar".utf8), at: 257)
  }

  /// Reads all headers; tensor bytes are not touched.
  public static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    do throws(CheckpointError) {
      let archive = try TarArchive(file)
      let names = ["storages", "tensors", "pickle"]
      let missing = names.filter { archive.range(of: $0) == nil }
      guard missing.isEmpty else {
        let found = archive.members.prefix(5).map { "'\($0.name)'" }.joined(separator: ", ")
        throw CheckpointError(
          .missingRecord,
          "this tar archive has no " + missing.map { "'\($0)'" }.joined(separator: ", ")
            + (found.isEmpty ? "" : ", but \(found)"),
          expected: "a checkpoint of PyTorch 0.1",
          remedy: "if the checkpoint is a file inside the archive, unpack it and give that")
      }
      func part(_ name: String) -> SourceSlice {
        SourceSlice(of: file, range: archive.range(of: name) ?? 0..<0)
      }
      let storages = try TarStorages.read(part("storages"))
      let tensors = try storages.tensors(part("tensors"), fileSize: file.byteCount)
      var source = TorchStorages.none
      source.numbered = tensors
      var stream = PickleStream(part("pickle"))
      let pickled = try stream.next(world: TorchWorld(fileSize: file.byteCount, storages: source))
      try stream.checkEnd()
      return try pickled.checkpoint(format: formatName, file: file)
    } catch {
      throw error.naming(file)
    }
  }
}

/// The member `storages`: how many, then for each a pickle of key, location and class, the number of elements and the
/// elements; at last the views, parts of storages under keys of their own.
private struct TarStorages {
  private var byKey: [Int: TorchStorage] = [:]

  static func read(_ source: SourceSlice) throws(CheckpointError) -> TarStorages {
    var storages = TarStorages()
    var stream = PickleStream(source)
    for _ in 0..<(try stream.count("storages")) {
      let pickled = try stream.nextPlain()
      guard let parts = pickled.arena.tuple(pickled.root), parts.count == 3, let key = pickled.arena.integer(parts[0])
      else {
        throw CheckpointError(
          .malformed, "a storage described by \(pickled.arena.kind(pickled.root))", expected: "(key, location, class)")
      }
      guard let global = pickled.arena.global(parts[2]), let type = TorchTypes.storage(global) else {
        throw CheckpointError(
          .unsupported, "a storage of \(pickled.arena.kind(parts[2]))",
          expected: "one of torch." + TorchTypes.storageNames.joined(separator: ", "))
      }
      let count = try stream.number(Int64.self, "the size of the storage \(key)")
      let (size, overflow) = count.multipliedReportingOverflow(by: type.unitSize)
      let place = try stream.skip(overflow ? .max : size, "the storage \(key)")
      try storages.add(
        TorchStorage(type: type, count: count, storage: FileRange(file: source, range: place)), key: key)
    }
    try storages.addViews(try stream.nextPlain(size: stream.remaining))
    try stream.checkEnd()
    return storages
  }

  private mutating func add(_ storage: TorchStorage, key: Int) throws(CheckpointError) {
    guard byKey.updateValue(storage, forKey: key) == nil else {
      throw CheckpointError(.duplicateName, "two storages have the key \(key)")
    }
  }

  private mutating func addViews(_ pickled: Pickled) throws(CheckpointError) {
    guard let views = pickled.arena.items(pickled.root, .sequence) else {
      throw CheckpointError(
        .malformed, "the list of views is \(pickled.arena.kind(pickled.root))",
        expected: "(key, key of the storage, offset, number of elements) for each")
    }
    for view in views {
      guard let parts = pickled.arena.integers(view), parts.count == 4, let root = byKey[parts[1]], parts[2] >= 0,
        parts[3] >= 0, parts[3] <= root.count, parts[2] <= root.count - parts[3]
      else {
        throw CheckpointError(
          .malformed, "a view of a storage that is odd or leaves it",
          expected: "(key, key of the storage, offset, number of elements)")
      }
      let unit = root.type.unitSize
      let part = StorageSlice(of: root.storage, range: parts[2] * unit..<(parts[2] + parts[3]) * unit)
      try add(TorchStorage(type: root.type, count: parts[3], storage: part), key: parts[0])
    }
  }

  /// The member `tensors`: how many, then for each a pickle of key, storage and class, the number of dimensions in 4 bytes,
  /// 4 bytes without meaning, sizes, strides and the offset, 8 bytes each.
  func tensors(_ source: SourceSlice, fileSize: Int) throws(CheckpointError) -> [Int: StoredTensor] {
    var tensors: [Int: StoredTensor] = [:]
    var stream = PickleStream(source)
    for _ in 0..<(try stream.count("tensors")) {
      let pickled = try stream.nextPlain()
      guard let parts = pickled.arena.tuple(pickled.root), parts.count == 3, let key = pickled.arena.integer(parts[0])
      else {
        throw CheckpointError(
          .malformed, "a tensor described by \(pickled.arena.kind(pickled.root))", expected: "(key, storage, class)")
      }
      guard let storage = pickled.arena.integer(parts[1]).flatMap({ byKey[$0] }) else {
        throw CheckpointError(.missingRecord, "the tensor \(key) lies in a storage that is not there")
      }
      let tensor = try readTensor(storage, &stream)
      guard tensors.updateValue(tensor, forKey: key) == nil, byKey[key] == nil else {
        throw CheckpointError(.duplicateName, "two tensors or storages have the key \(key)")
      }
    }
    try stream.checkEnd()
    return tensors
  }

  private func readTensor(
    _ storage: TorchStorage, _ stream: inout PickleStream
  ) throws(CheckpointError) -> StoredTensor {
    let rank = try stream.number(Int32.self, "a tensor's number of dimensions")
    guard (0...PickleLimits.maximumRank).contains(rank) else {
      throw CheckpointError(
        .malformed, "a tensor of \(rank) dimensions", expected: "0 to \(PickleLimits.maximumRank)",
        byteOffset: stream.offset)
    }
    _ = try stream.skip(4, "a tensor")
    var sizes: [Int] = []
    var strides: [Int] = []
    for _ in 0..<rank { sizes.append(try stream.number(Int64.self, "a tensor's size")) }
    for _ in 0..<rank { strides.append(try stream.number(Int64.self, "a tensor's stride")) }
    let offset = try stream.number(Int64.self, "a tensor's offset")
    let view = try TorchWorld.View(storage: storage, offset: offset, sizes: sizes, strides: strides)
    guard let dtype = storage.type.dtype, !storage.type.isQuantized else {
      throw CheckpointError(.malformed, "a tensor of untyped bytes without a dtype")
    }
    return try view.tensor(dtype, isBigEndian: false)
  }
}

extension PickleStream {
  /// The number of things that follow, from a pickle of its own. Each takes a byte at least.
  fileprivate mutating func count(_ what: String) throws(CheckpointError) -> Int {
    let pickled = try nextPlain()
    guard case .int(let count) = pickled.root, count >= 0, count <= remaining else {
      throw CheckpointError(
        .malformed, "the number of \(what) is \(pickled.arena.text(ofNumber: pickled.root))",
        expected: "at most \(remaining), the bytes that are left")
    }
    return count
  }
}

extension PickleArena {
  /// An integer.
  fileprivate func integer(_ value: PickleValue) -> Int? {
    if case .int(let number) = value { number } else { nil }
  }
}
