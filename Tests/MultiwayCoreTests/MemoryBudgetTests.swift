import MultiwayCore
import MultiwayTestSupport
import Testing

/// What a budget's text means, and the plan that is made of it.
@Suite struct MemoryBudgetTests {
  @Test(arguments: [
    ("256MB", 256_000_000), ("1GB", 1_000_000_000), ("512MiB", 512 << 20), ("2gib", 2 << 30), ("64k", 64000),
    ("300m", 300_000_000), ("1000000", 1_000_000), ("7b", 7),
  ]) func sizesAreRead(text: String, size: Int) throws {
    #expect(try MemoryBudget(text).byteCount == size)
  }

  @Test(arguments: ["", "MB", "-1MB", "1.5GB", "0", "1TB", "many", "1 GB", "99999999999999GB", "0x10", "+5MB"])
  func nonsenseIsRefused(text: String) {
    let error = #expect(throws: MemoryError.self) { _ = try MemoryBudget(text) }
    #expect(error?.code == .malformed && error?.category == .usage)
  }

  @Test func withoutABudgetAllCoresWork() throws {
    let plan = try StreamingPlan(isPacked: false, needs: [("huge", { _ in .max })])
    #expect(plan.pipeline.threads == Cores.count && plan.pieceSize == StoredTensor.pieceSize)
    #expect(try StreamingPlan(isPacked: true, needs: []).pipeline.threads == 1)
  }

  /// Everything that is planned fits into what the budget leaves beyond what the process has taken.
  @Test(arguments: [40, 100, 1000]) func thePlanFits(megabytes: Int) throws {
    let free = megabytes << 20
    let need = { (pieceSize: Int) in 10 << 20 + 3 * pieceSize }
    let budget = MemoryBudget(byteCount: ProcessMemory.peak + free)
    let plan = try MemoryBudget.$current.withValue(budget) {
      try StreamingPlan(isPacked: false, needs: [("small", { $0 }), ("large", need)])
    }
    let taken =
      plan.pipeline.threads * (need(plan.pieceSize) + 2 * plan.pieceSize) + plan.pipeline.queueByteCount
      + plan.pieceSize
    #expect(taken <= free && plan.pipeline.threads >= 1 && plan.pieceSize >= 64 << 10)
  }

  /// What is set aside for a cache is not planned with.
  @Test func reservationsCount() throws {
    let budget = MemoryBudget(byteCount: ProcessMemory.peak + 100 << 20)
    let needs: [StreamingPlan.Need] = [("tensor", { _ in 40 << 20 })]
    try MemoryBudget.$current.withValue(budget) {
      _ = try StreamingPlan(isPacked: false, needs: needs)
      budget.reserve(80 << 20)
      #expect(throws: MemoryError.self) { try StreamingPlan(isPacked: false, needs: needs) }
    }
  }

  /// The error names the tensor and a budget that does.
  @Test func theSmallestBudgetIsNamed() throws {
    let needs: [StreamingPlan.Need] = [("a", { $0 }), ("the.large.one", { 50_000_000 + $0 })]
    let error = MemoryBudget.$current.withValue(MemoryBudget(byteCount: 1_000_000)) {
      #expect(throws: MemoryError.self) { try StreamingPlan(isPacked: false, needs: needs) }
    }
    let diagnosis = try #require(error?.diagnosis)
    #expect(error?.code == .tooSmall && diagnosis.tensor == "the.large.one")
    let text = try #require(diagnosis.expected?.split(separator: " ").last.map(String.init))
    let smallest = try MemoryBudget(text)
    #expect(smallest.byteCount > 50_000_000 && diagnosis.remedy?.contains(text) == true)
    // Other tests run in this process and take memory meanwhile: a little more certainly does.
    let enough = MemoryBudget(byteCount: smallest.byteCount + 64 << 20)
    _ = try MemoryBudget.$current.withValue(enough) { try StreamingPlan(isPacked: false, needs: needs) }
  }

  @Test func thePeakIsAtLeastWhatIsResident() {
    #expect(ProcessMemory.resident > 1 << 20)
    #expect(ProcessMemory.peak >= ProcessMemory.resident / 2)
  }

  /// An output whose making took more than was allowed gets no name, whoever writes it.
  @Test func anOutputBeyondTheBudgetIsNotMade() throws {
    let folder = try TemporaryFolder()
    let path = folder.path("out")
    let error = MemoryBudget.$current.withValue(MemoryBudget(byteCount: 1 << 20)) {
      #expect(throws: FileError.self) {
        var output = try OutputFile(path: path, overwrite: false)
        try output.write([1, 2, 3] as [UInt8])
        try output.commit()
      }
    }
    #expect(error?.code == .memoryExceeded && error?.category == .usage)
    #expect(try folder.names().isEmpty)
  }
}
