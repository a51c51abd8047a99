/// How tensors pass from sources to an output: how many threads, in how large pieces, with how much waiting, so that the memory budget
/// holds. The results do not depend on it.
public struct StreamingPlan: Sendable {
  /// The threads and their queue.
  public let pipeline: Pipeline
  /// The size of pieces in bytes.
  public let pieceSize: Int

  /// An item of the output and the memory that computing it takes, for pieces of a given size.
  public typealias Need = (name: String, byteCount: (_ pieceSize: Int) -> Int)

  /// Smaller pieces would cost more in calls than they save.
  private static let smallestPiece = 64 << 10
  /// Plans within `MemoryBudget.current`. Throws `.tooSmall`, and names the smallest budget that would do and the tensor that needs it.
  /// - Parameter isPacked: true where sources are unpacked as they are read: then one thread reads, in order.
  public init(isPacked: Bool, needs: [Need]) throws(MemoryError) {
    let threads = isPacked ? 1 : Cores.count
    guard let budget = MemoryBudget.current else {
      pipeline = Pipeline(threads: threads)
      pieceSize = StoredTensor.pieceSize
      return
    }
    let taken = budget.taken
    let free = budget.byteCount - taken
    // A thread has what it computes with and the piece that it hands on; one piece is consumed, one comes next, and one waits.
    func perThread(_ piece: Int) -> Int {
      let (sum, overflow) = StreamingPlan.largest(needs, pieceSize: piece).byteCount.addingReportingOverflow(2 * piece)
      return overflow ? .max : sum
    }
    let wanted = min(StoredTensor.pieceSize, max(StreamingPlan.smallestPiece, free / 64 / 4096 * 4096))
    let pieces = [wanted, StreamingPlan.smallestPiece]
    guard let piece = pieces.first(where: { perThread($0) <= free - 3 * $0 }), ProcessMemory.peak <= budget.byteCount
    else {
      let (largest, leastNeed) = StreamingPlan.largest(needs, pieceSize: StreamingPlan.smallestPiece)
      let (least, overflow) = leastNeed.addingReportingOverflow(taken + 6 * StreamingPlan.smallestPiece)
      throw budget.tooSmall(overflow ? .max : max(least, ProcessMemory.peak), tensor: largest)
    }
    let need = perThread(piece)
    let count = max(1, min(threads, (free - 3 * piece) / need))
    pipeline = Pipeline(threads: count, queueByteCount: max(piece, min(16 << 20, free - 2 * piece - count * need)))
    pieceSize = piece
  }

  private static func largest(_ needs: [Need], pieceSize: Int) -> (name: String?, byteCount: Int) {
    var largest: (name: String?, byteCount: Int) = (nil, 0)
    for need in needs {
      let size = need.byteCount(pieceSize)
      if size > largest.byteCount { largest = (need.name, size) }
    }
    return largest
  }
}
