import MultiwayCore

#if canImport(Glibc)
import Glibc
#endif

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
  _ = chosen.read(bytes)
  return 0
}
