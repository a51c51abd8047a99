import Glibc
import MultiwayCore

/// The two streams of the process: results go to standard output, everything else to standard error.
enum Console {
  /// Prints a line of a result.
  static func print(_ line: String) { write(line + "\n", to: STDOUT_FILENO) }

  /// Prints a note for people.
  static func note(_ line: String) { write(line + "\n", to: STDERR_FILENO) }

  /// Prints an error.
  static func error(_ text: String) { write(text + "\n", to: STDERR_FILENO) }

  /// True where standard error is a terminal, so that a progress bar makes sense.
  static let isTerminal = isatty(STDERR_FILENO) == 1

  static func write(_ text: String, to descriptor: Int32) {
    let bytes = Array(text.utf8)
    unsafe bytes.withUnsafeBytes { buffer in
      var done = 0
      while done < buffer.count, let base = buffer.baseAddress {
        let count = unsafe Glibc.write(descriptor, base + done, buffer.count - done)
        if count < 0 && errno == EINTR { continue }
        // Nobody reads any more: there is nobody to tell either.
        guard count > 0 else { return }
        done += count
      }
    }
  }
}

/// A progress bar on a terminal, nothing in a pipe.
final class ProgressBar {
  private let title: String
  private var shown = -1

  init(_ title: String) { self.title = title }

  /// Shows how much is done; cheap where nothing changes.
  func update(_ done: Int, _ total: Int) {
    guard Console.isTerminal, total > 0 else { return }
    let percent = min(100, Int(Double(done) * 100 / Double(total)))
    guard percent != shown else { return }
    shown = percent
    let filled = percent * 30 / 100
    let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: 30 - filled)
    Console.write("\r\(title) \(bar) \(percent) %", to: STDERR_FILENO)
    if percent == 100 { Console.write("\r\u{1B}[2K", to: STDERR_FILENO) }
  }
}

/// The machine's clocks and counters.
enum System {
  /// Seconds on a clock that only goes forward.
  static var now: Double { seconds(CLOCK_MONOTONIC) }

  /// Seconds since this process was started, to a hundredth, the kernel's own unit.
  static var sinceStart: Double? {
    guard let text = contents(of: "/proc/self/stat"), let end = text.lastIndex(of: ")") else { return nil }
    let fields = text[end...].split(separator: " ")
    guard fields.count > 20, let ticks = Double(fields[20]) else { return nil }
    return seconds(CLOCK_BOOTTIME) - ticks / Double(sysconf(Int32(_SC_CLK_TCK)))
  }

  /// The largest resident size of this process so far, mapped pages included, in bytes.
  static var peakMemory: Int { ProcessMemory.peak }

  private static func seconds(_ clock: Int32) -> Double {
    var time = timespec()
    unsafe _ = clock_gettime(clock, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }

  private static func contents(of path: String) -> String? {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = unsafe bytes.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
    return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
  }
}
