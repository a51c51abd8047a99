import MultiwayCore

/// The contents of a zstd file in blocks of 1 MiB, the least recently used of which give way to others.
struct ZstdBlocks: ~Copyable {
  private struct Block {
    var index: Int
    var byteCount: Int
    var lastUse: Int
    /// Never handed out but for a moment, so that it can be filled again.
    var buffer: AlignedBuffer
  }

  private var decoder: ZstdDecoder
  private var restarts: [ZstdRestart] = []
  private var byteCount = 0
  private var kept: [Block] = []
  private var capacity = ZstdBlocks.leastCapacity
  private var clock = 0

  private static let size = 1 << 20
  private static let leastCapacity = 16
  private static let mostCapacity = 256

  /// The size of the file in bytes: what a small one unpacks to is not kept in larger memory.
  private let fileByteCount: Int

  init(_ decoder: consuming ZstdDecoder, fileByteCount: Int) {
    self.decoder = decoder
    self.fileByteCount = fileByteCount
  }

  /// Decodes everything once, notes where frames start, and returns the size of the contents.
  mutating func measure() throws(CheckpointError) -> Int {
    note(decoder.restart)
    while !decoder.isAtEnd {
      try decodeBlock(upTo: decoder.contentOffset / ZstdBlocks.size * ZstdBlocks.size + ZstdBlocks.size)
      guard decoder.contentOffset <= ZstdSource.maximumByteCount else { throw decoder.tooLarge() }
    }
    byteCount = decoder.contentOffset
    let wanted = min(byteCount / 8, fileByteCount) / ZstdBlocks.size
    capacity = min(max(wanted, ZstdBlocks.leastCapacity), ZstdBlocks.mostCapacity)
    if let budget = MemoryBudget.current {
      capacity = min(capacity, max(ZstdBlocks.leastCapacity, budget.byteCount / 4 / ZstdBlocks.size))
      budget.reserve(max(0, capacity - kept.count) * ZstdBlocks.size)
    }
    return byteCount
  }

  /// The block that holds the byte at `offset`, which must lie within, and where it starts.
  mutating func block(holding offset: Int) throws(CheckpointError) -> (bytes: TensorBytes, start: Int) {
    let start = offset / ZstdBlocks.size * ZstdBlocks.size
    if let found = kept(startingAt: start) { return (found, start) }
    do throws(CheckpointError) {
      try decode(to: start)
    } catch {
      // Whatever state the decoder is in now, the next one who asks starts afresh.
      if let first = restarts.first { decoder.go(to: first) }
      throw error
    }
    guard let found = kept(startingAt: start), offset - start < found.byteCount else { throw decoder.changed() }
    return (found, start)
  }

  /// Decodes the block that starts at `start`.
  private mutating func decode(to start: Int) throws(CheckpointError) {
    if let restart = restarts.last(where: { $0.contentOffset <= start }),
      decoder.contentOffset > start || decoder.contentOffset < restart.contentOffset
    {
      decoder.go(to: restart)
    }
    while decoder.contentOffset <= start, !decoder.isAtEnd {
      let end = decoder.contentOffset / ZstdBlocks.size * ZstdBlocks.size + ZstdBlocks.size
      try decodeBlock(upTo: min(end, byteCount))
    }
    if decoder.contentOffset == byteCount { try finish() }
  }

  private mutating func kept(startingAt start: Int) -> TensorBytes? {
    guard let position = kept.firstIndex(where: { $0.index == start / ZstdBlocks.size }) else { return nil }
    clock += 1
    kept[position].lastUse = clock
    return kept[position].buffer.bytes.extracting(0..<kept[position].byteCount)
  }

  /// Decodes up to `end`, or to the end of everything, and keeps the block if all of it is there.
  private mutating func decodeBlock(upTo end: Int) throws(CheckpointError) {
    let start = decoder.contentOffset
    let buffer = spareBuffer()
    var count = 0
    try buffer.fill { target throws(CheckpointError) in
      while count < end - start, !decoder.isAtEnd {
        count += try decoder.decode(into: &target, from: count, limit: end - start)
        note(decoder.restart)
      }
    }
    if start % ZstdBlocks.size == 0, count > 0 {
      kept.removeAll { $0.index == start / ZstdBlocks.size }
      clock += 1
      kept.append(Block(index: start / ZstdBlocks.size, byteCount: count, lastUse: clock, buffer: buffer))
    }
  }

  /// Reads what follows the last byte of the contents: the end of its frame, with the checksum, and empty frames.
  private mutating func finish() throws(CheckpointError) {
    let rest = AlignedBuffer(byteCount: 1)
    try rest.fill { target throws(CheckpointError) in
      while !decoder.isAtEnd {
        guard try decoder.decode(into: &target, from: 0, limit: 1) == 0 else { throw decoder.changed() }
      }
    }
  }

  /// Notes a place to start from; those close to each other are not worth their memory.
  private mutating func note(_ restart: ZstdRestart?) {
    guard let restart, byteCount == 0 else { return }
    if let last = restarts.last, restart.contentOffset - last.contentOffset < ZstdBlocks.size { return }
    restarts.append(restart)
  }

  /// A new buffer, or that of the block that was used least recently.
  private mutating func spareBuffer() -> AlignedBuffer {
    guard kept.count >= capacity, let oldest = kept.indices.min(by: { kept[$0].lastUse < kept[$1].lastUse }) else {
      return AlignedBuffer(byteCount: ZstdBlocks.size)
    }
    return kept.remove(at: oldest).buffer
  }
}
