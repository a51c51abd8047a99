/// Items of an output that are computed from source tensors on all cores, within the memory budget, and come in order, piece by piece.
/// The digests of the sources are taken on the way.
public struct SourceStream: Sendable {
  /// A tensor of the output.
  public struct Item: Sendable {
    /// Its name, for errors.
    public var name: String
    /// The stored tensors that it is computed from.
    public var sources: [StoredTensor]
    /// The source whose elements it has as they are, nil where something is computed.
    public var unchanged: StoredTensor?
    /// True where it comes out of the same work as the item before it.
    public var continuesJob: Bool
    /// The memory that computing it takes, for pieces of a given size.
    public var workingByteCount: @Sendable (_ pieceSize: Int) -> Int

    /// Describes an item.
    public init(
      name: String, sources: [StoredTensor], unchanged: StoredTensor?, continuesJob: Bool = false,
      workingByteCount: @escaping @Sendable (_ pieceSize: Int) -> Int
    ) {
      self.name = name
      self.sources = sources
      self.unchanged = unchanged
      self.continuesJob = continuesJob
      self.workingByteCount = workingByteCount
    }

    /// A tensor that is written as it is stored, or as its storage computes it.
    public init(_ tensor: StoredTensor) {
      self.init(
        name: tensor.name, sources: tensor.sources, unchanged: tensor.storage.origins == nil ? tensor : nil
      ) { $0 + tensor.workingByteCount }
    }
  }

  /// Takes the next piece of the current item and, where it lies in place in a source, the tensor there, whose pages go when it is consumed.
  public typealias Emit = (_ piece: TensorBytes, _ stored: StoredTensor?) throws -> Void
  /// Computes an item.
  public typealias Reader = (_ item: Int, _ pieceSize: Int, _ emit: Emit) throws -> Void

  private let items: [Item]
  private let jobs: [Range<Int>]
  private let plan: StreamingPlan
  private let ledger: SourceLedger
  /// True where pages of sources stay until the last job that reads them is done.
  public let keepsPages: Bool
  /// The last job that reads each storage.
  private let lastJobs: [ObjectIdentifier: Int]

  private enum Piece: Sendable {
    case elements(TensorBytes, StoredTensor?)
    /// The end of an item.
    case end(Int)
  }

  /// Plans the work. Throws where the budget of `MemoryBudget.current` is too small.
  /// - Parameter ledger: lists the sources of `items`; their digests are in it at the end of `run`.
  public init(_ items: [Item], ledger: SourceLedger) throws(MemoryError) {
    var jobs: [Range<Int>] = []
    for index in items.indices {
      if items[index].continuesJob, let last = jobs.popLast() {
        jobs.append(last.lowerBound..<index + 1)
      } else {
        jobs.append(index..<index + 1)
      }
    }
    self.items = items
    self.jobs = jobs
    self.ledger = ledger
    keepsPages = MemoryBudget.keepsPages(of: items.flatMap(\.sources))
    var lastJobs: [ObjectIdentifier: Int] = [:]
    for (job, range) in jobs.enumerated() {
      for source in range.flatMap({ items[$0].sources }) { lastJobs[ObjectIdentifier(source.storage)] = job }
    }
    self.lastJobs = lastJobs
    plan = try StreamingPlan(
      isPacked: items.contains { $0.sources.contains { $0.storage.isPacked } },
      needs: items.map { ($0.name, $0.workingByteCount) })
  }

  /// Computes everything.
  /// - Parameters:
  ///   - reader: makes what computes the items of a job, for one thread; it tells the claim what it reads.
  ///   - consume: takes the next piece, on the caller's thread.
  ///   - finish: is told that an item is complete, and the source whose elements it has, on the caller's thread.
  public func run(
    reader: @escaping @Sendable (SourceClaim?) -> Reader, consume: (TensorBytes) throws -> Void,
    finish: (_ item: Int, _ unchanged: StoredTensor?) throws -> Void
  ) throws {
    try plan.pipeline.run(
      jobs: jobs.count, produce: { job, emit in try produce(job, reader, emit) },
      byteCount: { if case .elements(let bytes, _) = $0 { bytes.byteCount } else { 0 } },
      consume: { _, piece in
        switch piece {
        case .elements(let bytes, let stored):
          try consume(bytes)
          if !keepsPages { stored?.discard() }
        case .end(let item): try finish(item, items[item].unchanged)
        }
      }, finish: { if keepsPages { discardSources(of: $0) } })
  }

  /// Reads the tensors that the stream's items were made of.
  public func run(
    _ tensors: [StoredTensor], consume: (TensorBytes) throws -> Void,
    finish: (_ item: Int, _ unchanged: StoredTensor?) throws -> Void
  ) throws {
    try run(
      reader: { claim in
        { item, pieceSize, emit in
          let tensor = tensors[item]
          try tensor.stream(pieceSize: pieceSize, noting: claim) { piece in
            try emit(piece, tensor.storage.origins == nil ? tensor : nil)
          }
        }
      }, consume: consume, finish: finish)
  }

  /// Lets the pages of a job's sources go that no later job reads.
  private func discardSources(of job: Int) {
    for item in jobs[job] {
      for source in items[item].sources where lastJobs[ObjectIdentifier(source.storage)] == job { source.discard() }
    }
  }

  private func produce(_ number: Int, _ reader: (SourceClaim?) -> Reader, _ emit: (Piece) throws -> Void) throws {
    let job = jobs[number]
    let isUnchanged = job.allSatisfy { items[$0].unchanged != nil }
    let sources = job.flatMap { items[$0].sources }
    let claim = isUnchanged ? nil : ledger.claim(sources, keepsPages: keepsPages)
    let read = reader(claim)
    do {
      for item in job {
        try read(item, plan.pieceSize) { bytes, stored in try emit(.elements(bytes, stored)) }
        try emit(.end(item))
      }
      try claim?.settle()
      if isUnchanged { for source in sources { try source.storage.verify() } }
    } catch let error as Pipeline.Abandoned {
      throw error
    } catch {
      // A damaged source explains every other error.
      for source in sources { try source.storage.verify() }
      throw error
    }
    // Pages of pieces that wait go when they are consumed.
    if !isUnchanged, !keepsPages { for source in sources { source.discard() } }
  }
}
