import MultiwayCore
import MultiwayKernels

/// What the linear layers of a model that are not int8 are computed in.
public enum ComputeType: String, CaseIterable, Sendable {
  /// fp32, with the same bits everywhere.
  case f32
  /// Products of bfloat16 numbers, summed in fp32 by the CPU's instruction: about twice as fast, on CPUs that have it. The bits are those of
  /// the instruction; they do not depend on the threads, and other CPUs need not give them.
  case bf16

  /// Throws `.configuration` where `isa` cannot do it here.
  func check(_ isa: ISA) throws(RuntimeError) {
    guard self == .bf16, !isa.multipliesBFloat16 else { return }
    let sets = ISA.supported.map(\.rawValue).joined(separator: ", ")
    guard !ISA.cpuMultipliesBFloat16 else {
      throw RuntimeError(
        .configuration, "bf16 arithmetic with the instruction set '\(isa.rawValue)', which has none",
        expected: "the instruction set 'avx512'", remedy: "unset MULTIWAY_ISA, or compute in f32")
    }
    throw RuntimeError(
      .configuration, "bf16 arithmetic on a CPU that has \(sets), but not avx512_bf16",
      expected: "a CPU with avx512_bf16", remedy: "compute in f32; storing weights in bf16 needs no such CPU")
  }
}
