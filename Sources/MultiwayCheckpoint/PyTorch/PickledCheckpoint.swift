import MultiwayCore
import Synchronization

/// What one pickle describes, with the world that gave its names a meaning.
struct Pickled {
  var root: PickleValue
  var arena: PickleArena
  var world: TorchWorld

  /// The state dicts in it, and what is beside them.
  func checkpoint(format: String, file: any ByteSource, notes: [String] = []) throws(CheckpointError) -> Checkpoint {
    var finder = StateDictFinder(arena: arena, world: world, path: file.path)
    let stateDicts = try finder.find(in: root)
    guard !stateDicts.isEmpty else { throw noTensors }
    var notes = notes
    if world.dequantizedCount > 0 {
      notes.append("\(world.dequantizedCount) quantized tensors are given as the fp32 numbers that they stand for")
    }
    return Checkpoint(
      format: format, file: file, stateDicts: stateDicts, metadata: finder.metadata, opaqueRecords: world.opaque,
      notes: notes + finder.notes)
  }

  private var noTensors: CheckpointError {
    let records = world.opaque.prefix(10).joined(separator: ", ")
    return CheckpointError(
      .noTensors, "there are no tensors in the file" + (records.isEmpty ? "" : "; its pickle describes \(records)"),
      expected: "a dictionary of tensors", remedy: "save the model's state_dict()")
  }
}

/// Reads pickles that follow one another, with other bytes between them.
struct PickleStream {
  let source: any ByteSource
  private(set) var offset = 0

  init(_ source: any ByteSource) { self.source = source }

  /// How many bytes are left.
  var remaining: Int { source.byteCount - offset }

  /// Reads one pickle, up to its STOP and over it.
  /// - Parameter size: how many bytes of the file justify what the pickle may cost.
  mutating func next(world: TorchWorld, size: Int? = nil) throws(CheckpointError) -> Pickled {
    let size = size ?? remaining
    var machine = PickleMachine(
      source, at: offset, world: world, budget: PickleLimits.memory(packedSize: size),
      maximumSteps: PickleLimits.steps(packedSize: size))
    let root = try machine.run()
    offset = machine.reader.offset
    return Pickled(root: root, arena: machine.arena, world: machine.world)
  }

  /// Reads a pickle that describes plain data without tensors.
  mutating func nextPlain(size: Int = plainSize) throws(CheckpointError) -> Pickled {
    try next(world: TorchWorld(fileSize: source.byteCount), size: size)
  }

  private static let plainSize = 1 << 20

  /// Refuses bytes after the last pickle.
  func checkEnd() throws(CheckpointError) {
    guard remaining == 0 else {
      throw CheckpointError(.trailingData, "\(remaining) bytes follow the pickle's STOP", byteOffset: offset)
    }
  }

  /// Reads one plain number in little-endian order.
  mutating func number<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type, _ what: String
  ) throws(CheckpointError) -> Int {
    var reader = PickleReader(source, at: offset)
    guard let raw = try reader.read(type) else {
      throw CheckpointError(
        .truncated, "the file ends in \(what)", remedy: "the download or copy is incomplete: fetch it again",
        byteOffset: offset)
    }
    guard let value = Int(exactly: raw) else {
      throw CheckpointError(.malformed, "\(what) is \(raw)", byteOffset: offset)
    }
    offset += MemoryLayout<T>.size
    return value
  }

  /// Moves over `count` bytes and gives their place.
  mutating func skip(_ count: Int, _ what: String) throws(CheckpointError) -> Range<Int> {
    guard count >= 0, count <= remaining else {
      throw CheckpointError(
        .truncated, "\(what) should have \(count) bytes", expected: "at most \(remaining), which are left",
        remedy: "the download or copy is incomplete: fetch it again", byteOffset: offset)
    }
    offset += count
    return offset - count..<offset
  }
}

/// A storage whose place in the file is learnt after the pickle that refers to it.
final class DeferredStorage: TensorStorage {
  let byteCount: Int
  private let file: any ByteSource
  private let start = Mutex<Int?>(nil)

  init(file: any ByteSource, byteCount: Int) {
    self.file = file
    self.byteCount = byteCount
  }

  /// Tells the place, which must lie within the file and have the storage's size.
  func place(at range: Range<Int>) {
    precondition(range.count == byteCount && range.upperBound <= file.byteCount)
    start.withLock { $0 = range.lowerBound }
  }

  private func place(of part: Range<Int>) throws(TensorError) -> Range<Int> {
    guard let start = start.withLock({ $0 }) else {
      throw TensorError(.corrupt, "a storage that the file does not hold", file: file.path)
    }
    return start + part.lowerBound..<start + part.upperBound
  }

  func load() throws(TensorError) -> TensorBytes { try load(in: 0..<byteCount) }

  func load(in part: Range<Int>) throws(TensorError) -> TensorBytes {
    precondition(part.lowerBound >= 0 && part.upperBound <= byteCount)
    return try file.bytes(in: try place(of: part))
  }

  var workingByteCount: Int { 0 }
  var isPacked: Bool { file.packing != nil }

  func discard() {
    if let start = start.withLock({ $0 }) { file.discard(start..<start + byteCount) }
  }
}
