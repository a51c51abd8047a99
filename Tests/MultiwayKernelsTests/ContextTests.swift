import CMultiwayKernels
import Foundation
import MultiwayCore
import MultiwayKernels
import Testing

@Suite struct ISATests {
  @Test func theBestIsChosenWhereNoneIsNamed() throws {
    #expect(try ISA.selected(environment: [:]) == ISA.supported.max())
    #expect(try ISA.selected(environment: ["MULTIWAY_ISA": ""]) == ISA.best)
    #expect(ISA.scalar.isSupported)
  }

  @Test(arguments: ISA.supported) func aNamedSetIsHonoured(isa: ISA) throws {
    let chosen = try ISA.selected(environment: ["MULTIWAY_ISA": isa.rawValue])
    let context = try KernelContext(isa: chosen)
    #expect(context.isa == isa)
  }

  @Test(arguments: ["AVX2", "sse", " avx2", "avx_vnni"] + ISA.allCases.filter { !$0.isSupported }.map(\.rawValue))
  func aSetThatCannotBeHonouredIsAnError(name: String) {
    do throws(KernelError) {
      _ = try ISA.selected(environment: ["MULTIWAY_ISA": name])
      Issue.record("\(name) was accepted")
    } catch {
      #expect(error.code == .unsupportedISA)
      #expect(error.description.contains("'\(name)'") && error.description.contains("scalar"))
    }
  }

  @Test(arguments: [-1, 0, 1025]) func numbersOfThreadsOutOfRangeAreErrors(threads: Int) {
    do throws(KernelError) {
      _ = try KernelContext(threads: threads)
      Issue.record("\(threads) threads were accepted")
    } catch {
      #expect(error.code == .threads && error.description.contains("\(threads)"))
    }
  }
}

@Suite struct PoolTests {
  @Test(arguments: [1, 2, 3, 8], [0, 1, 2, 7, 1000]) func everyTaskRunsOnce(threads: Int, tasks: Int) {
    let context = RawContext(.scalar, threads: threads)
    let counts = GuardedBuffer<Int32>(count: tasks)
    for _ in 0..<50 {
      let status = unsafe mwk_parallel_for(
        context.pointer, tasks, 100,
        { argument, task, scratch in
          unsafe scratch?.storeBytes(of: 1, as: Int64.self)
          unsafe argument?.assumingMemoryBound(to: Int32.self)[task] += 1
        }, counts.pointer)
      #expect(status == mwk_ok)
    }
    #expect(counts.values == Array(repeating: 50, count: tasks))
  }

  @Test func callersTakeTurns() async throws {
    let context = try KernelContext(threads: 3)
    let results = try await withThrowingTaskGroup(of: [Float].self) { group in
      for _ in 0..<4 {
        group.addTask {
          var layout = RegionLayout()
          let (x, y) = (layout.floats(20_000), layout.floats(20_000))
          var arena = try Arena(byteCount: layout.byteCount)
          var numbers = Numbers(seed: 3)
          arena.write(numbers.floats(20_000), at: x)
          for _ in 0..<20 { context.gelu(&arena, count: 20_000, x: x, into: y) }
          return arena.read(y)
        }
      }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    #expect(results.count == 4 && results.allSatisfy { $0 == results[0] })
  }

  @Test func poolsComeAndGo() throws {
    for threads in [1, 2, 16, 64] { #expect(try KernelContext(threads: threads).threads == threads) }
  }
}

@Suite struct ArenaTests {
  @Test func memoryIsZeroAlignedAndTyped() throws {
    var arena = try Arena(byteCount: 1 << 20)
    let region = Region(byteOffset: 128, byteCount: 40)
    #expect(arena.read(region) == Array(repeating: 0, count: 10))
    arena.write([1.5, -2] as [Float], at: region)
    arena.write([UInt8](repeating: 255, count: 3), at: Region(byteOffset: 140, byteCount: 3))
    #expect(arena.read(region).prefix(3) == [1.5, -2, 0])
    #expect(arena.elements(of: Int32.self, in: region)[3] == 0x00FF_FFFF)
    var span = arena.mutableElements(of: Float.self, in: region)
    span[9] = 4
    #expect(arena.read(region).last == 4)
    #expect(arena.read(region, as: UInt8.self).count == 40)
  }

  @Test func untouchedMemoryCostsNothing() throws {
    let arena = try Arena(byteCount: 1 << 36)
    #expect(arena.byteCount == 1 << 36)
    #expect(throws: KernelError.self) { _ = try Arena(byteCount: Int.max - 4096) }
  }

  @Test func regionsKnowWhenTheyOverlap() {
    let region = Region(byteOffset: 64, byteCount: 64)
    #expect(region.overlaps(Region(byteOffset: 127, byteCount: 1)))
    #expect(!region.overlaps(Region(byteOffset: 128, byteCount: 1)))
    #expect(!region.overlaps(Region(byteOffset: 70, byteCount: 0)))
    #expect(region.dropping(elements: 4) == Region(byteOffset: 80, byteCount: 48))
  }
}

@Suite struct BenchmarkTests {
  @Test func figuresArePositive() throws {
    let context = try KernelContext()
    #expect(try KernelBenchmarks.linearInt8(context, rows: 6, inputs: 64, outputs: 64, repetitions: 1) > 0)
    #expect(try KernelBenchmarks.linearFloat32(context, rows: 6, inputs: 64, outputs: 64, repetitions: 1) > 0)
    #expect(try KernelBenchmarks.attention(context, tokens: 9, heads: 1, headSize: 16, repetitions: 1) > 0)
    #expect(KernelBenchmarks.quantizeWeights(context, outputs: 64, inputs: 64, repetitions: 1) > 0)
    #expect(KernelBenchmarks.peakInt8(isa: .scalar) == nil)
    for isa in ISA.supported where isa != .scalar {
      #expect(KernelBenchmarks.peakInt8(isa: isa, milliseconds: 1) ?? 0 > 0)
      #expect(KernelBenchmarks.peakFloat32(isa: isa, milliseconds: 1) ?? 0 > 0)
    }
  }

  /// `MULTIWAY_BENCHMARK=1 swift test -Xcc -O2 --filter kernelFigures` prints the speeds of this machine.
  @Test(.enabled(if: ProcessInfo.processInfo.environment["MULTIWAY_BENCHMARK"] != nil)) func kernelFigures() throws {
    for isa in ISA.supported where isa != .scalar {
      let peaks = (KernelBenchmarks.peakInt8(isa: isa) ?? 0, KernelBenchmarks.peakFloat32(isa: isa) ?? 0)
      let bf16 = KernelBenchmarks.peakBFloat16(isa: isa) ?? 0
      print(
        "\(isa): peak of a core int8 \(Int(peaks.0 / 1e9)) GOP/s, fp32 \(Int(peaks.1 / 1e9)) GF/s,",
        "bf16 \(Int(bf16 / 1e9)) GF/s")
      for threads in [1, 2] {
        let context = try KernelContext(isa: isa, threads: threads)
        for (inputs, outputs, activation) in [(768, 3072, Activation.none), (768, 3072, .gelu), (3072, 768, .none)] {
          let int8 = try KernelBenchmarks.linearInt8(
            context, rows: 197, inputs: inputs, outputs: outputs, activation: activation)
          let fp32 = try KernelBenchmarks.linearFloat32(context, rows: 197, inputs: inputs, outputs: outputs)
          let bf16 = try KernelBenchmarks.linearBFloat16(context, rows: 197, inputs: inputs, outputs: outputs)
          print(
            "  \(threads) threads, 197 × \(inputs) → \(outputs) \(activation): int8 \(Int(int8 / 1e9)) GOP/s,",
            "fp32 \(Int(fp32 / 1e9)) GF/s, bf16 \(Int((bf16 ?? 0) / 1e9)) GF/s")
        }
        let attention = try KernelBenchmarks.attention(context, tokens: 197, heads: 12, headSize: 64)
        print("  \(threads) threads, attention of 197 tokens: \(Int(attention / 1e9)) GF/s")
      }
    }
  }
}
