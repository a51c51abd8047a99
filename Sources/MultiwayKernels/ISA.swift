import CMultiwayKernels
public import MultiwayCore

/// An instruction set that kernels exist for. Every one of them gives the same bits; they differ in speed.
public enum ISA: String, CaseIterable, Sendable, Comparable {
  /// Plain C: the specification, and what runs where nothing else does.
  case scalar
  /// AVX2 with FMA and F16C.
  case avx2
  /// AVX2 and AVX-VNNI.
  case avxVNNI = "avx-vnni"
  /// AVX-512 F, BW, VL, DQ and VNNI.
  case avx512
  /// The vectors of ARMv8.
  case neon
  /// ARMv8 with the dot product of bytes (FEAT_DotProd).
  case neonDotProduct = "neon-dotprod"
  /// ARMv8 with the matrix product of bytes (FEAT_I8MM).
  case neonI8MM = "neon-i8mm"

  /// Whether this CPU and its operating system can run it.
  public var isSupported: Bool { mwk_cpu_supports(code) }

  /// The sets that can run here, slowest first.
  public static var supported: [ISA] { allCases.filter(\.isSupported) }

  /// The fastest set that can run here.
  public static var best: ISA { supported.last ?? .scalar }

  /// Slower before faster where a CPU has both.
  public static func < (left: ISA, right: ISA) -> Bool { left.code.rawValue < right.code.rawValue }

  /// The set that `MULTIWAY_ISA` names in `environment`, or the best one where it names none.
  ///
  /// A name that is unknown or cannot be honoured throws `.unsupportedISA`: a silent fallback would hide a wrong result.
  public static func selected(environment: [String: String]) throws(KernelError) -> ISA {
    guard let name = environment["MULTIWAY_ISA"], !name.isEmpty else { return best }
    guard let isa = ISA(rawValue: name) else {
      throw unsupported("MULTIWAY_ISA asks for the unknown instruction set '\(name)'")
    }
    guard isa.isSupported else { throw unsupported("MULTIWAY_ISA asks for '\(name)', which this CPU does not support") }
    return isa
  }

  static func unsupported(_ found: String) -> KernelError {
    let names = supported.map(\.rawValue).joined(separator: ", ")
    return KernelError(
      .unsupportedISA, found, expected: "one of: \(names)",
      remedy: "unset MULTIWAY_ISA to let multiway choose, or name one of those sets")
  }

  var code: mwk_isa {
    switch self {
    case .scalar: mwk_isa_scalar
    case .avx2: mwk_isa_avx2
    case .avxVNNI: mwk_isa_avx_vnni
    case .avx512: mwk_isa_avx512
    case .neon: mwk_isa_neon
    case .neonDotProduct: mwk_isa_neon_dotprod
    case .neonI8MM: mwk_isa_neon_i8mm
    }
  }
}
