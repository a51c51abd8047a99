import CMultiwayFiles
import Synchronization

/// What can go wrong with a memory budget.
public enum MemoryErrorCode: FailureCode {
  /// The text is no size.
  case malformed
  /// The work needs more than was allowed.
  case tooSmall

  /// The exit code class.
  public var category: FailureCategory { .usage }
}

/// An error about a memory budget.
public typealias MemoryError = Failure<MemoryErrorCode>

/// How much memory the process may have at most, as the system counts it: resident pages, those of mapped files included.
///
/// What passes tensors through asks `StreamingPlan` for a way that fits. An output whose making took more all the same gets no name.
public final class MemoryBudget: Sendable {
  /// The budget in force for a task and what it calls; nil for none.
  @TaskLocal public static var current: MemoryBudget?

  /// The limit in bytes.
  public let byteCount: Int
  private let reservation = Mutex(0)

  /// Allows so many bytes.
  public init(byteCount: Int) { self.byteCount = byteCount }

  /// Units and what they multiply with; those with an i are powers of two.
  private static let units: [(suffix: String, factor: Int)] = [
    ("kib", 1 << 10), ("mib", 1 << 20), ("gib", 1 << 30), ("kb", 1000), ("mb", 1_000_000), ("gb", 1_000_000_000),
    ("k", 1000), ("m", 1_000_000), ("g", 1_000_000_000), ("b", 1),
  ]

  /// Reads `256MB`, `1GB`, `512MiB` or a number of bytes.
  public convenience init(_ text: String) throws(MemoryError) {
    let lower = text.lowercased()
    let unit = MemoryBudget.units.first { lower.hasSuffix($0.suffix) }
    let digits = lower.dropLast(unit?.suffix.count ?? 0)
    guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(digits), number > 0
    else {
      throw MemoryError(
        .malformed, "'\(text)' is no amount of memory", expected: "a whole number and a unit: 256MB, 1GB, 512MiB")
    }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: unit?.factor ?? 1)
    guard !overflow else {
      throw MemoryError(.malformed, "'\(text)' is more than a machine can have", expected: "such as 256MB or 1GB")
    }
    self.init(byteCount: bytes)
  }

  /// Keeps the C library from holding on to large blocks that were freed. Programs call it before they start.
  public static func returnsFreedMemory() { mwf_return_freed_memory() }

  /// How many bytes of sources may be resident where nobody set a budget.
  private static let keptByteCount = 1 << 30

  /// True where pages of sources that will be read again may stay until then: there is no budget, they are not many, and they are a
  /// file's, not memory to unpack into.
  public static func keepsPages(of tensors: [StoredTensor]) -> Bool {
    guard current == nil, tensors.allSatisfy({ $0.storage.workingByteCount == 0 && !$0.storage.isPacked }) else {
      return false
    }
    var storages: Set<ObjectIdentifier> = []
    var left = keptByteCount
    for tensor in tensors where storages.insert(ObjectIdentifier(tensor.storage)).inserted {
      left -= min(left, tensor.storage.byteCount)
    }
    return left > 0
  }

  /// Sets memory aside that something will take later, as a cache does.
  public func reserve(_ byteCount: Int) { reservation.withLock { $0 += byteCount } }

  /// What is set aside.
  var reserved: Int { reservation.withLock { $0 } }

  /// Throws where the process has taken more than is allowed. Every output asks before it gets its name.
  func check(for path: String) throws(FileError) {
    let peak = ProcessMemory.peak
    guard peak > byteCount else { return }
    throw FileError(
      .memoryExceeded, "making the output took \(peak) bytes of memory",
      expected: "at most \(byteCount), as was asked for",
      remedy: "pass --max-memory \(peak / 1_000_000 + 3)MB or more", file: path)
  }
}

/// What the system says about the memory of this process.
public enum ProcessMemory {
  /// The resident size in bytes: memory and pages of mapped files.
  public static var resident: Int { field("VmRSS:") }
  /// The largest resident size so far.
  public static var peak: Int { field("VmHWM:") }

  /// A line of /proc/self/status, which gives kilobytes.
  ///
  /// The kernel's counters lag behind by some pages a thread; `VmHWM` is updated when memory is given back.
  private static func field(_ name: String) -> Int {
    guard let text = ProcessFiles.contents(of: "/proc/self/status") else { return 0 }
    for line in text.split(separator: "\n") where line.hasPrefix(name) {
      let digits = line.utf8.filter { (0x30...0x39).contains($0) }
      return (Int(String(decoding: digits, as: UTF8.self)) ?? 0) << 10
    }
    return 0
  }
}
