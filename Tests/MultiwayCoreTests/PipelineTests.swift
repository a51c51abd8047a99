import MultiwayCore
import MultiwayTestSupport
import Synchronization
import Testing

/// Jobs on several threads give what one thread gives, in the same order, within the bound.
@Suite struct PipelineTests {
  private struct Failed: Error, Equatable { var job: Int }

  /// What each job makes: as many pieces as its number says, so that some jobs end long before others.
  private static func pieces(_ job: Int) -> [Int] { (0..<(job * 7 % 13)).map { job * 100 + $0 } }

  @Test(arguments: [1, 2, 3, 8], [1, 4, 1000]) func piecesComeInOrder(threads: Int, queue: Int) throws {
    var found: [Int] = []
    var ends: [Int] = []
    try Pipeline(threads: threads, queueByteCount: queue).run(
      jobs: 40, produce: { job, emit in for piece in PipelineTests.pieces(job) { try emit(piece) } },
      byteCount: { _ in 3 },
      consume: { job, piece in
        #expect(piece / 100 == job && ends.count == job)
        found.append(piece)
      }, finish: { ends.append($0) })
    #expect(found == (0..<40).flatMap(PipelineTests.pieces))
    #expect(ends == Array(0..<40))
  }

  /// The error is that of the first job in order, and all before it was consumed, however the threads run.
  @Test(arguments: [1, 2, 8]) func theFirstErrorInOrderCounts(threads: Int) {
    var found: [Int] = []
    let error = #expect(throws: Failed.self) {
      try Pipeline(threads: threads, queueByteCount: 100).run(
        jobs: 30,
        produce: { job, emit in
          if job >= 11 { throw Failed(job: job) }
          try emit(job)
        }, byteCount: { _ in 1 }, consume: { found.append($1) }, finish: { _ in })
    }
    #expect(error == Failed(job: 11))
    #expect(found == Array(0..<11))
  }

  /// When the consumer fails, as on a full disk, the threads end and its error is thrown.
  @Test func aFailingConsumerEndsTheThreads() {
    #expect(throws: Failed(job: 5)) {
      try Pipeline(threads: 3, queueByteCount: 2).run(
        jobs: 1000, produce: { job, emit in for _ in 0..<100 { try emit(job) } }, byteCount: { _ in 1 },
        consume: { job, _ in if job == 5 { throw Failed(job: 5) } }, finish: { _ in })
    }
  }

  /// Pieces that were handed on and are not consumed never take more than the queue, the piece that is consumed and the one that comes next.
  @Test(arguments: [1, 2, 8]) func whatWaitsIsBounded(threads: Int) throws {
    let waiting = Mutex((now: 0, most: 0))
    try Pipeline(threads: threads, queueByteCount: 50).run(
      jobs: 60,
      produce: { _, emit in
        for _ in 0..<20 {
          try emit(10)
          waiting.withLock { $0 = ($0.now + 10, max($0.most, $0.now + 10)) }
        }
      }, byteCount: { $0 }, consume: { _, size in waiting.withLock { $0.now -= size } }, finish: { _ in })
    // A piece is counted here after it was accepted, and uncounted before its room is free again.
    #expect(waiting.withLock { $0.most } <= 70)
    #expect(waiting.withLock { $0.now } == 0)
  }

  @Test func aMapKeepsTheOrder() throws {
    #expect(try Pipeline.map(100, threads: 7) { $0 * $0 } == (0..<100).map { $0 * $0 })
    #expect(try Pipeline.map(0) { $0 } == [])
    #expect(throws: Failed(job: 3)) { try Pipeline.map(9) { if $0 >= 3 { throw Failed(job: $0) } } }
  }
}
