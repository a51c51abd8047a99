import CMultiwayKernels
public import MultiwayCore

/// A chosen instruction set and a pool of threads: what every kernel call needs.
///
/// Any thread may call; calls on one context take turns. The results do not depend on the instruction set or on the
/// number of threads. Sizes, regions and weights that do not fit together are programmer errors and stop the program.
@safe
public final class KernelContext: @unchecked Sendable {
  /// The instruction set.
  public let isa: ISA
  /// The number of threads, the caller's included.
  public let threads: Int
  /// Set once here, and guarded by the pool's own lock.
  let pointer: OpaquePointer

  /// The largest number of threads that a context accepts.
  public static let maximumThreads = 1024

  /// Starts `threads` − 1 threads. Throws `.unsupportedISA`, `.threads` or `.outOfMemory`.
  public init(isa: ISA = .best, threads: Int = 1) throws(KernelError) {
    guard isa.isSupported else {
      throw ISA.unsupported("the instruction set '\(isa.rawValue)' was asked for, which this CPU does not support")
    }
    guard threads >= 1, threads <= Self.maximumThreads else {
      throw KernelError(.threads, "\(threads) threads were asked for", expected: "1 to \(Self.maximumThreads)")
    }
    var context: OpaquePointer?
    let status = unsafe mwk_context_create(isa.code, threads, &context)
    guard status == mwk_ok, let context = unsafe context else {
      if status == mwk_no_thread {
        throw KernelError(.threads, "the system does not grant \(threads) threads", remedy: "ask for fewer threads")
      }
      throw KernelError(.outOfMemory, "no memory for \(threads) threads")
    }
    self.isa = isa
    self.threads = threads
    unsafe pointer = context
  }

  deinit { unsafe mwk_context_destroy(pointer) }

  /// Calls `body` with every number below `count`, each on some thread, and returns when all are done. `body` may use other contexts, but
  /// not this one: calls on a context take turns.
  public func concurrently(_ count: Int, _ body: @Sendable (_ number: Int) -> Void) {
    typealias Body = @Sendable (Int) -> Void
    withoutActuallyEscaping(body) { body in
      unsafe withUnsafePointer(to: body as Body) { argument in
        let status = unsafe mwk_parallel_for(
          pointer, count, 0,
          { argument, number, _ in unsafe argument?.assumingMemoryBound(to: Body.self).pointee(number) },
          UnsafeMutableRawPointer(mutating: argument))
        check(status)
      }
    }
  }

  /// Stops the program where a kernel could not get its scratch memory: a few megabytes a thread.
  func check(_ status: mwk_status) {
    precondition(status == mwk_ok, "out of memory for the scratch of a kernel")
  }
}

/// The product of sizes that must not be negative; an overflow stops the program.
func product(_ sizes: Int...) -> Int {
  var result = 1
  for size in sizes {
    precondition(size >= 0, "a size is negative")
    result *= size
  }
  return result
}

/// Elements from the first of the first row to the last of the last row, rows being `stride` apart.
func extent(rows: Int, width: Int, stride: Int) -> Int {
  precondition(rows >= 0 && width >= 0 && stride >= width, "rows overlap")
  return rows == 0 || width == 0 ? 0 : (rows - 1) * stride + width
}
