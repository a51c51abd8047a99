import MultiwayCore
import MultiwayGraph
import MultiwayKernels

/// Where every buffer of a program lies in one block of memory, for given sizes.
///
/// Buffers whose lifetimes do not overlap share memory. The largest are placed first, each at the lowest place that is free while
/// it lives; this needs little more than the largest set of buffers alive at once. What is kept from run to run comes before all
/// others, so that its places depend on its sizes alone.
///
/// Where threads share the rows of a matrix, buffers of different sizes get memory of their own, as long as that fits into caches: if wide rows
/// lay where narrow ones had been, each thread would write to memory that another one has in its cache, and cores fetch that from each other
/// one line at a time.
struct MemoryPlan: Sendable {
  /// The shape of every buffer.
  let shapes: [Shape]
  /// The first byte of every buffer.
  let offsets: [Int]
  /// The size of every buffer, in bytes.
  let sizes: [Int]
  /// The size of the block.
  let byteCount: Int

  /// The keys that each attention's store has room for.
  let storedKeys: [BufferID: Int]

  private static let alignment = 64
  /// A store has room for so many more tokens at a time, so that it stays while a text grows.
  private static let storeStep = 64

  /// What separate buffers may take: about the caches of a core that other cores do not share.
  private static let separateByteCount = 32 << 20

  /// Plans the memory, nil if the sizes overflow.
  /// - Parameter isShared: true where several threads share the rows of matrices.
  init?(_ program: Program, symbols: [String: Int], isShared: Bool) {
    var shapes: [Shape] = []
    var sizes: [Int] = []
    var storedKeys: [BufferID: Int] = [:]
    for (index, buffer) in program.buffers.enumerated() {
      guard let shape = MemoryPlan.shape(of: buffer, symbols) else { return nil }
      let keys = MemoryPlan.storedKeys(buffer, shape, symbols)
      guard let size = MemoryPlan.size(of: buffer, shape, storedKeys: keys) else { return nil }
      if let keys { storedKeys[BufferID(index: index)] = keys }
      shapes.append(shape)
      sizes.append(size)
    }
    let kept = Set(program.kept.map(\.index))
    let lifetimes = MemoryPlan.lifetimes(program)
    let separate =
      isShared ? MemoryPlan.place(sizes, lifetimes: lifetimes, first: kept, separatesSizes: true) : nil
    let isSmall = separate.map { $0.byteCount <= MemoryPlan.separateByteCount } ?? false
    let placed =
      isSmall ? separate : MemoryPlan.place(sizes, lifetimes: lifetimes, first: kept, separatesSizes: false)
    guard let (offsets, byteCount) = placed else { return nil }
    self.shapes = shapes
    self.offsets = offsets
    self.sizes = sizes
    self.storedKeys = storedKeys
    self.byteCount = byteCount
  }

  /// The number of rows of a buffer: all dimensions but the last.
  func rows(_ buffer: BufferID) -> Int {
    let shape = shapes[buffer.index]
    return shape.last == 0 ? 0 : shape.elementCount / shape.last
  }

  /// The parts of a quantized buffer relative to its start: values, then scales, then zero points.
  static func quantizedParts(
    rows: Int, width: Int, groups: Int
  ) -> (rowBytes: Int, scales: Int, zeros: Int, end: Int) {
    let rowBytes = (width + 3) / 4 * 4
    let scales = aligned(rows * rowBytes)
    let zeros = scales + aligned(groups * rows * 4)
    return (rowBytes, scales, zeros, zeros + groups * rows * 4)
  }

  private static func aligned(_ size: Int) -> Int { (size + alignment - 1) / alignment * alignment }

  fileprivate static func shape(of buffer: Buffer, _ symbols: [String: Int]) -> Shape? {
    var dimensions: [Int] = []
    for dimension in buffer.type.dimensions {
      guard let size = dimension.resolved(symbols) else { return nil }
      dimensions.append(size)
    }
    return Shape(checking: dimensions)
  }

  fileprivate static func size(of buffer: Buffer, _ shape: Shape, storedKeys: Int?) -> Int? {
    // 2⁴⁰ elements are beyond any machine; below it no size computed here can overflow.
    guard shape.elementCount < 1 << 40 else { return nil }
    switch buffer.kind {
    case .elements: return aligned(shape.byteCount(of: buffer.type.dtype) ?? 0)
    case .quantizedTokens(let groups):
      let rows = shape.elementCount / max(1, shape.last)
      return aligned(quantizedParts(rows: rows, width: shape.last, groups: groups).end)
    case .roundedTokens:
      return aligned(shape.elementCount / max(1, shape.last) * BFloat16Weights.rowByteCount(width: shape.last))
    case .attentionStore(let heads, let arithmetic, _):
      guard let storedKeys else { return nil }
      return AttentionStore.byteCount(
        arithmetic: arithmetic, examples: shape[0], heads: heads, headSize: shape[2] / heads, keys: storedKeys
      ).flatMap { $0 < 1 << 42 ? aligned($0) : nil }
    }
  }

  /// The keys that a store for a memory of `shape` has room for; nil for other buffers, and where a size is not known or too large.
  private static func storedKeys(_ buffer: Buffer, _ shape: Shape, _ symbols: [String: Int]) -> Int? {
    guard case .attentionStore(_, _, let others) = buffer.kind else { return nil }
    var tokens = 0
    for dimension in others {
      guard let size = dimension.resolved(symbols), (0..<1 << 32).contains(size) else { return nil }
      tokens += size
    }
    return shape[1] + (tokens + storeStep - 1) / storeStep * storeStep
  }

  /// The first and last step at which each buffer is in use; inputs live from the start and outputs to the end.
  private static func lifetimes(_ program: Program) -> [ClosedRange<Int>] {
    var first = [Int](repeating: Int.max, count: program.buffers.count)
    var last = [Int](repeating: -1, count: program.buffers.count)
    for input in program.inputs {
      first[input.index] = -1
    }
    for (position, step) in program.steps.enumerated() {
      for buffer in step.reads + step.writes {
        first[buffer.index] = min(first[buffer.index], position)
        last[buffer.index] = max(last[buffer.index], position)
      }
    }
    for output in program.outputs { last[output.buffer.index] = program.steps.count }
    for store in program.stores { first[store.index] = -1 }
    for buffer in program.kept { last[buffer.index] = program.steps.count }
    return zip(first, last).map { first, last in first <= last ? first...last : last...last }
  }

  /// - Parameter separatesSizes: buffers of different sizes share no memory, and those of one size all of it or none.
  private static func place(
    _ sizes: [Int], lifetimes: [ClosedRange<Int>], first: Set<Int>, separatesSizes: Bool
  ) -> (offsets: [Int], byteCount: Int)? {
    var offsets = [Int](repeating: 0, count: sizes.count)
    var placed: [Int] = []
    var end = 0
    let order =
      sizes.indices.filter(first.contains)
      + sizes.indices.filter { !first.contains($0) }.sorted { (sizes[$1], $0) < (sizes[$0], $1) }
    for buffer in order {
      let neighbours = placed.filter {
        lifetimes[$0].overlaps(lifetimes[buffer]) || separatesSizes && sizes[$0] != sizes[buffer]
      }.sorted { offsets[$0] < offsets[$1] }
      var offset = 0
      for neighbour in neighbours {
        if offset + sizes[buffer] <= offsets[neighbour] { break }
        offset = max(offset, offsets[neighbour] + sizes[neighbour])
      }
      offsets[buffer] = offset
      let (bufferEnd, overflow) = offset.addingReportingOverflow(sizes[buffer])
      guard !overflow else { return nil }
      end = max(end, bufferEnd)
      placed.append(buffer)
    }
    return (offsets, end)
  }
}

extension Program {
  /// The bytes of all inputs and outputs, nil if they overflow.
  func boundaryByteCount(_ symbols: [String: Int]) -> Int? {
    var total = 0
    for buffer in inputs + outputs.map(\.buffer) {
      guard let shape = MemoryPlan.shape(of: buffers[buffer.index], symbols),
        let size = MemoryPlan.size(of: buffers[buffer.index], shape, storedKeys: nil)
      else { return nil }
      let (sum, overflow) = total.addingReportingOverflow(size)
      guard !overflow else { return nil }
      total = sum
    }
    return total
  }
}
