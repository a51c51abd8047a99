import Glibc

/// Memory whose last byte is followed by a page that nobody may touch: a kernel that reads one element too far dies.
@safe
final class GuardedBuffer<Element: BitwiseCopyable> {
  let count: Int
  private let mapping: UnsafeMutableRawPointer
  private let mappedBytes: Int
  private let start: UnsafeMutablePointer<Element>

  /// `misalignedBy` bytes are left between the last element and the guard page, to make addresses odd.
  init(count: Int, misalignedBy slack: Int = 0) {
    let page = Int(getpagesize())
    let bytes = count * MemoryLayout<Element>.stride + slack
    let usable = (bytes + page - 1) / page * page
    mappedBytes = usable + page
    self.count = count
    guard
      let address = unsafe mmap(nil, mappedBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
      unsafe address != MAP_FAILED, unsafe mprotect(address + usable, page, PROT_NONE) == 0
    else { fatalError("no memory for a guarded buffer") }
    unsafe mapping = address
    unsafe start = (address + usable - bytes).assumingMemoryBound(to: Element.self)
  }

  convenience init(_ values: [Element], misalignedBy slack: Int = 0) {
    self.init(count: values.count, misalignedBy: slack)
    unsafe values.withUnsafeBytes { source in
      if let first = source.baseAddress { unsafe memcpy(start, first, source.count) }
    }
  }

  deinit { unsafe _ = munmap(mapping, mappedBytes) }

  @unsafe var pointer: UnsafeMutablePointer<Element> { unsafe start }

  var values: [Element] {
    if count == 0 { return [] }
    return unsafe [Element](unsafeUninitializedCapacity: count) { target, filled in
      if let first = target.baseAddress { unsafe memcpy(first, start, count * MemoryLayout<Element>.stride) }
      filled = count
    }
  }
}
