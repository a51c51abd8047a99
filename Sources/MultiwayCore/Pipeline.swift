/// Work cut into jobs that several threads do at once, with the same results in the same order as if one did them all.
///
///     job 0 ─ thread ─▶ ▪▪▪ ┐
///     job 1 ─ thread ─▶ ▪▪  ├─▶ consumer, on the caller's thread: ▪▪▪ of job 0, then ▪▪ of job 1, …
///     job 2 ─ …             ┘
///
/// Threads take the jobs in order and hand on pieces; the consumer takes all pieces of a job before those of the next. Pieces that wait are
/// bounded in bytes: a thread that is too far ahead waits, but never the one that the consumer waits for.
public struct Pipeline: Sendable {
  /// The number of threads that do jobs; the consumer has one of its own, which mostly waits for the disk.
  public var threads: Int
  /// How many bytes of pieces may wait, beyond the piece that is consumed and the one that comes next.
  public var queueByteCount: Int

  /// How many jobs may be begun before the consumer has come to them: their pieces may be few and small.
  private static let longestLead = 256

  /// Makes a pipeline.
  public init(threads: Int = Cores.count, queueByteCount: Int = 16 << 20) {
    self.threads = max(1, threads)
    self.queueByteCount = queueByteCount
  }

  /// Makes pieces of jobs and consumes them. If a job fails, everything before it is consumed and its error is thrown, whatever later
  /// jobs did.
  /// - Parameters:
  ///   - produce: does a job on one of the threads and hands on its pieces.
  ///   - byteCount: the size of a piece.
  ///   - consume: takes a piece of a job, on the caller's thread.
  ///   - finish: is told that a job's pieces are consumed, on the caller's thread.
  public func run<Piece: Sendable>(
    jobs: Int, produce: @escaping @Sendable (_ job: Int, _ emit: (Piece) throws -> Void) throws -> Void,
    byteCount: @escaping @Sendable (Piece) -> Int, consume: (_ job: Int, _ piece: Piece) throws -> Void,
    finish: (_ job: Int) throws -> Void
  ) throws {
    guard jobs > 0 else { return }
    let monitor = Monitor(Queue<Piece>(jobs: jobs))
    let limit = queueByteCount
    let work: @Sendable () -> Void = {
      while let job = monitor.wait({ $0.nextJob() }) {
        do {
          try produce(job) { piece in
            let size = byteCount(piece)
            let isWanted = monitor.wait { $0.hasAccepted(piece, of: job, size: size, limit: limit) }
            guard isWanted else { throw Abandoned() }
          }
          monitor.change { $0.ends[job] = .success(()) }
        } catch {
          monitor.change { $0.ends[job] = .failure(error) }
        }
      }
    }
    let workers = (0..<min(threads, jobs)).compactMap { _ in WorkerThread(work) }
    defer {
      monitor.change { $0.isAbandoned = true }
      for worker in workers { worker.join() }
    }
    guard !workers.isEmpty else { throw TensorError(.unsupported, "the system grants no thread") }
    for job in 0..<jobs {
      monitor.change { $0.head = job }
      while let piece = try monitor.wait({ $0.nextPiece(of: job) })?.get() {
        try consume(job, piece.value)
        monitor.change { $0.waitingByteCount -= piece.size }
      }
      try finish(job)
    }
  }

  /// Calls `body` with every index, on all threads, and gives the results in order. The first error by index is thrown.
  public static func map<Result: Sendable>(
    _ count: Int, threads: Int = Cores.count, _ body: @escaping @Sendable (Int) throws -> Result
  ) throws -> [Result] {
    var results: [Result] = []
    try Pipeline(threads: threads, queueByteCount: count).run(
      jobs: count, produce: { index, emit in try emit(try body(index)) }, byteCount: { _ in 1 },
      consume: { results.append($1) }, finish: { _ in })
    return results
  }

  /// What a job throws whose pieces nobody will take.
  public struct Abandoned: Error {}

  /// What the threads share.
  private struct Queue<Piece: Sendable> {
    private var next = 0
    /// The job that the consumer waits for.
    var head = 0
    private var waiting: [Int: [(value: Piece, size: Int)]] = [:]
    private let jobs: Int
    /// How the jobs ended that have.
    var ends: [Int: Result<Void, any Error>] = [:]
    var waitingByteCount = 0
    var isAbandoned = false

    init(jobs: Int) { self.jobs = jobs }

    /// The next job to do, nil after the last one; the outer nil is to wait.
    mutating func nextJob() -> Int?? {
      if isAbandoned || next == jobs { return .some(nil) }
      guard next < head + Pipeline.longestLead else { return nil }
      next += 1
      return next - 1
    }

    /// Takes a piece where there is room; false where nobody wants it, nil to wait.
    mutating func hasAccepted(_ piece: Piece, of job: Int, size: Int, limit: Int) -> Bool? {
      if isAbandoned { return false }
      let isHead = job == head && waiting[job, default: []].isEmpty
      guard isHead || waitingByteCount + size <= limit else { return nil }
      waiting[job, default: []].append((piece, size))
      waitingByteCount += size
      return true
    }

    /// The next piece of a job, nil after the last one; the outer nil is to wait.
    mutating func nextPiece(of job: Int) -> Result<(value: Piece, size: Int)?, any Error>? {
      if waiting[job]?.isEmpty == false { return .success(waiting[job]?.removeFirst()) }
      switch ends[job] {
      case nil: return nil
      case .failure(let error)?: return .failure(error)
      case .success?:
        waiting[job] = nil
        return .success(nil)
      }
    }
  }
}
