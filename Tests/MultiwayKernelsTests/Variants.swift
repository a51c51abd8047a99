import CMultiwayKernels
import MultiwayKernels
import Testing

/// A context on the C side, for tests that hand guarded pointers to the kernels.
@safe
final class RawContext {
  let pointer: OpaquePointer

  init(_ isa: ISA, threads: Int = 1) {
    var context: OpaquePointer?
    let status = unsafe mwk_context_create(isa.rawCode, threads, &context)
    guard status == mwk_ok, let context = unsafe context else { fatalError("no context for \(isa)") }
    unsafe pointer = context
  }

  deinit { unsafe mwk_context_destroy(pointer) }
}

extension ISA {
  var rawCode: mwk_isa {
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

/// The law of every kernel: each instruction set and each number of threads gives the bits of the scalar kernel on one
/// thread. Returns those.
@discardableResult
func checkVariants<Element: BitwiseCopyable & Equatable>(
  threads: [Int] = [2, 3, 8], _ comment: Comment = "", sourceLocation: SourceLocation = #_sourceLocation,
  _ compute: (RawContext) -> [Element]
) -> [Element] {
  let expected = compute(RawContext(.scalar))
  for isa in ISA.supported {
    for count in isa == .scalar ? [] : [1] + threads {
      let result = compute(RawContext(isa, threads: count))
      let same = result == expected
      #expect(same, "\(isa) with \(count) threads: \(comment)", sourceLocation: sourceLocation)
    }
  }
  return expected
}

extension [Float] {
  /// The bits, with one pattern for all NaN: a NaN's payload is not part of the promise.
  var bits: [UInt32] { map { $0.isNaN ? 0x7FC0_0000 : $0.bitPattern } }
}

extension [UInt32] {
  var floats: [Float] { map { Float(bitPattern: $0) } }
}

/// Numbers that are the same on every machine.
struct Numbers {
  private var state: UInt64

  init(seed: Int) { state = UInt64(truncatingIfNeeded: seed) &* 0x9E37_79B9_7F4A_7C15 &+ 1 }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// Uniform in −scale ..< scale.
  mutating func floats(_ count: Int, scale: Float = 1) -> [Float] {
    (0..<count).map { _ in (Float(next() >> 40) / Float(1 << 23) - 1) * scale }
  }

  mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: next() >> 33) } }
}

/// Every length up to two vectors of 16 lanes and a bit, those around the 64 outputs of a panel and of two, and those of real models.
let lengths = Array(0...35) + [47, 48, 49, 63, 64, 65, 88, 127, 128, 129, 197, 768]
/// Outputs around the vectors and panels of a matrix product.
let outputCounts = [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129]
