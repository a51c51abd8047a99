import Glibc
import MultiwayCore

/// The reader that MULTIWAY_FUZZ_READER names.
private let chosen: FuzzedReader = {
  let name = unsafe getenv("MULTIWAY_FUZZ_READER").map { unsafe String(cString: $0) } ?? ""
  guard let reader = FuzzedReader(rawValue: name) else {
    let names = FuzzedReader.allCases.map(\.rawValue).joined(separator: ", ")
    fatalError("MULTIWAY_FUZZ_READER is '\(name)', and should be one of \(names)")
  }
  return reader
}()

/// What libFuzzer calls with each input. 0 keeps an input that reaches something new.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let buffer = unsafe UnsafeBufferPointer(start: start, count: count)
  let bytes = unsafe TensorBytes(copying: buffer.span.bytes)
  let before = seconds(CLOCK_MONOTONIC)
  _ = chosen.read(bytes)
  if seconds(CLOCK_MONOTONIC) - before > mostSeconds { measure(bytes) }
  return 0
}

/// The longest that a reader may take for one input.
private let mostSeconds = 2.0

/// Reads an input that took long once more, by the clock that stands still while other processes have the machine.
private func measure(_ bytes: TensorBytes) {
  let before = seconds(CLOCK_THREAD_CPUTIME_ID)
  _ = chosen.read(bytes)
  let taken = seconds(CLOCK_THREAD_CPUTIME_ID) - before
  guard taken <= mostSeconds else { fatalError("\(chosen.rawValue): an input that takes \(taken) seconds") }
}

private func seconds(_ clock: clockid_t) -> Double {
  var time = timespec()
  unsafe _ = clock_gettime(clock, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}
