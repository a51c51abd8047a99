import MultiwayCore
import MultiwayGraph
import MultiwayKernels
@testable import MultiwayRuntime
import MultiwayTestSupport
import Testing

/// Buffers that are alive at the same time never share a byte.
@Suite struct MemoryPlanTests {
  /// When a buffer holds something that will be read: from the step that writes it (inputs: from the start) to the last step that
  /// reads it (outputs: to the end). Found here by another way than the plan's own.
  private func isAlive(_ buffer: Int, at step: Int, in program: Program) -> Bool {
    let writes = program.steps.indices.filter { program.steps[$0].writes.contains { $0.index == buffer } }
    let reads = program.steps.indices.filter { program.steps[$0].reads.contains { $0.index == buffer } }
    let isInput = (program.inputs + program.stores).contains { $0.index == buffer }
    let isOutput = program.outputs.contains { $0.buffer.index == buffer }
    let start = isInput ? -1 : writes.min() ?? .max
    let isKept = program.kept.contains { $0.index == buffer }
    let end = max(isOutput || isKept ? program.steps.count : -1, reads.max() ?? -1, writes.max() ?? -1)
    return start <= step && step <= end
  }

  private func check(
    _ graph: Graph, _ symbols: [String: Int], keeping kept: Set<String> = [], bfloat16: KernelContext? = nil
  ) throws {
    let program = try Program(graph, releasesWeights: false, keeping: kept, bfloat16: bfloat16)
    #expect(program.keptInputs.count == kept.count)
    for isShared in [false, true] {
      try check(try #require(MemoryPlan(program, symbols: symbols, isShared: isShared)), of: program, symbols)
    }
  }

  private func check(_ plan: MemoryPlan, of program: Program, _ symbols: [String: Int]) throws {
    #expect(plan.offsets.allSatisfy { $0 >= 0 && $0 % 64 == 0 })
    #expect(zip(plan.offsets, plan.sizes).allSatisfy { $0 + $1 <= plan.byteCount })
    for (buffer, size) in zip(program.buffers, plan.sizes) {
      let shape = buffer.type.dimensions.compactMap { $0.resolved(symbols) }
      let rows = shape.dropLast().reduce(1, *)
      switch buffer.kind {
      case .elements: #expect(size >= shape.reduce(1, *) * (buffer.type.dtype.byteWidth ?? 1))
      // A byte for each number, a scale and a zero point for each group.
      case .quantizedTokens(let groups): #expect(size >= rows * (try #require(shape.last) + groups * 8))
      case .roundedTokens: #expect(size >= rows * 2 * (try #require(shape.last)))
      case .attentionStore(_, let arithmetic, let others):
        let keys = others.compactMap { $0.resolved(symbols) }.reduce(shape[1], +)
        let elements = 2 * shape[0] * keys * shape[2]
        #expect(others.count == 2 && size >= elements * (arithmetic == .float ? 4 : 1))
      }
    }
    for step in -1...program.steps.count {
      let alive = program.buffers.indices.filter { plan.sizes[$0] > 0 && isAlive($0, at: step, in: program) }
        .sorted { plan.offsets[$0] < plan.offsets[$1] }
      for (left, right) in zip(alive, alive.dropFirst()) {
        #expect(
          plan.offsets[left] + plan.sizes[left] <= plan.offsets[right], "buffers \(left) and \(right) at step \(step)")
      }
    }
  }

  @Test(.enabled(if: ISA.best.multipliesBFloat16)) func roundedTokensHavePlaces() throws {
    let graph = try Fixtures.graph("tiny/features")
    try check(graph, ["batch": 3, "text_tokens": 5], bfloat16: try KernelContext())
  }

  /// Kept inputs have places of their own, the same for whatever sizes the others take.
  @Test func keptInputsStayWhereTheyAre() throws {
    let graph = try CaptionDecoding(try Fixtures.graph("tiny/heads/captioning")).step
    let kept: Set = ["image_key.0", "image_value.0"]
    let program = try Program(graph, releasesWeights: false, keeping: kept)
    var places: Set<[Int]> = []
    for cached in [1, 2, 50, 3] {
      let symbols = ["batch": 6, "images": 2, "text_tokens": 2, "cached_tokens": cached]
      try check(graph, symbols, keeping: kept)
      for isShared in [false, true] {
        let plan = try #require(MemoryPlan(program, symbols: symbols, isShared: isShared))
        places.insert(program.keptInputs.map { plan.offsets[$0.index] })
      }
    }
    #expect(places.count == 1)
  }

  @Test(arguments: Fixtures.models + ["digits"], [1, 3])
  func buffersOfModels(name: String, batch: Int) throws {
    try check(try Fixtures.graph(name), ["batch": batch, "texts": batch + 1, "text_tokens": 7])
  }

  @Test(arguments: 0..<24 as Range<UInt64>, [false, true])
  func buffersOfRandomGraphs(seed: UInt64, hasInt8: Bool) throws {
    try check(try RandomGraph(seed: seed, hasInt8: hasInt8).graph, ["batch": 3, "text_tokens": 6])
  }

  /// Activations of one layer at a time, not of all: the digits model has 4 layers.
  @Test func buffersAreUsedAgain() throws {
    let program = try Program(try Fixtures.graph("digits"), releasesWeights: false)
    let plan = try #require(MemoryPlan(program, symbols: ["batch": 4], isShared: false))
    #expect(plan.byteCount * 3 < plan.sizes.reduce(0, +))
  }

  /// Where threads share rows, a byte belongs to buffers of one size, so that it is in the same part of all of them; but not where that would
  /// take more than caches hold.
  @Test func sharedBuffersOfOneSizeLieOnEachOther() throws {
    let program = try Program(try Fixtures.graph("digits"), releasesWeights: false)
    let plan = try #require(MemoryPlan(program, symbols: ["batch": 4], isShared: true))
    var pairs = 0
    for (first, second) in program.buffers.indices.flatMap({ first in
      program.buffers.indices[(first + 1)...].map { (first, $0) }
    }) {
      let ends = (plan.offsets[first] + plan.sizes[first], plan.offsets[second] + plan.sizes[second])
      guard plan.offsets[first] < ends.1, plan.offsets[second] < ends.0 else { continue }
      pairs += 1
      #expect(plan.offsets[first] == plan.offsets[second] && plan.sizes[first] == plan.sizes[second])
    }
    #expect(pairs > 0)
    for batch in [4, 4000] {
      let sizes = try [false, true].map { isShared in
        try #require(MemoryPlan(program, symbols: ["batch": batch], isShared: isShared)).byteCount
      }
      #expect(batch == 4 ? sizes[0] < sizes[1] : sizes[0] == sizes[1])
    }
  }

  @Test func sizesThatOverflowHaveNoPlan() throws {
    let program = try Program(try Fixtures.graph("tiny/features"), releasesWeights: false)
    for batch in [1 << 40, Int.max / 2, .max] {
      #expect(MemoryPlan(program, symbols: ["batch": batch, "text_tokens": 1], isShared: batch == .max) == nil)
    }
    #expect(MemoryPlan(program, symbols: [:], isShared: true) == nil, "a symbol without a size")
  }
}
