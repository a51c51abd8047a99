import CMultiwayKernels
public import MultiwayCore

extension KernelBenchmarks {
  /// Bytes a second that all threads of a context read from memory: the best of some sums over 256 MiB, more than caches hold.
  public static func memoryBandwidth(_ context: KernelContext, repetitions: Int = 5) -> Double {
    let size = 256 << 20
    let memory = AlignedBuffer(byteCount: size)
    // Pages that nobody wrote to are all the same one.
    memory.fill { bytes in
      for place in stride(from: 0, to: size, by: 4096) { bytes.storeBytes(of: 1, toByteOffset: place, as: UInt8.self) }
    }
    var sum: UInt64 = 0
    let seconds = best(repetitions) {
      unsafe context.check(mwk_read_memory(context.pointer, size, memory.mutablePointer(to: UInt8.self), &sum))
    }
    return Double(size) / seconds
  }

  /// Bytes of weights a second that layers in blocks read for one token, all of them in turn, the best of `repetitions`; nil without any.
  public static func tokenBandwidth(
    _ context: KernelContext, weights: [BlockWeights], repetitions: Int = 5
  ) throws(KernelError) -> Double? {
    let sizes = weights.map { BlockWeights.byteCount(outputs: $0.outputs, inputs: $0.inputs, $0.type) }
    guard let inputs = weights.map(\.inputs).max(), let outputs = weights.map(\.outputs).max() else { return nil }
    var layout = RegionLayout()
    let (x, y) = (layout.floats(inputs), layout.floats(outputs))
    var arena = try Arena(byteCount: layout.byteCount)
    arena.write(pattern(inputs), at: x)
    let seconds = best(repetitions) {
      for layer in weights { context.linear(&arena, rows: 1, x: x, weights: layer, into: y) }
    }
    return Double(sizes.reduce(0, +)) / seconds
  }
}
