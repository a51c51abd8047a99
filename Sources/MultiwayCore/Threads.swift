import Glibc

/// A value that threads share and wait for: a mutex with a condition.
@safe
final class Monitor<State: ~Copyable>: @unchecked Sendable {
  private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  /// Touched only while the lock is held.
  private var state: State

  init(_ state: consuming State) {
    self.state = state
    unsafe _ = pthread_mutex_init(lock, nil)
    unsafe _ = pthread_cond_init(changed, nil)
  }

  deinit {
    unsafe _ = pthread_cond_destroy(changed)
    unsafe _ = pthread_mutex_destroy(lock)
    unsafe lock.deallocate()
    unsafe changed.deallocate()
  }

  /// Calls `body` with the value while no other thread has it, and wakes those that wait.
  func change<R, E: Error>(_ body: (inout State) throws(E) -> R) throws(E) -> R {
    unsafe _ = pthread_mutex_lock(lock)
    defer {
      unsafe _ = pthread_cond_broadcast(changed)
      unsafe _ = pthread_mutex_unlock(lock)
    }
    return try body(&state)
  }

  /// Calls `body` again after each change until it gives something. Until then it must change nothing: nobody would hear of it.
  func wait<R>(_ body: (inout State) -> R?) -> R {
    unsafe _ = pthread_mutex_lock(lock)
    defer {
      unsafe _ = pthread_cond_broadcast(changed)
      unsafe _ = pthread_mutex_unlock(lock)
    }
    while true {
      if let result = body(&state) { return result }
      unsafe _ = pthread_cond_wait(changed, lock)
    }
  }
}

/// A thread of the process, which lives until its work is done.
@safe
struct WorkerThread {
  private let handle: pthread_t

  /// Starts a thread; nil where the system grants none.
  init?(_ work: @escaping @Sendable () -> Void) {
    final class Work {
      let body: @Sendable () -> Void
      init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    let work = unsafe Unmanaged.passRetained(Work(work))
    var handle = pthread_t()
    let code = unsafe pthread_create(
      &handle, nil,
      { argument in
        if let argument = unsafe argument {
          unsafe Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().body()
        }
        return nil
      }, work.toOpaque())
    guard code == 0 else {
      unsafe work.release()
      return nil
    }
    self.handle = handle
  }

  /// Waits for the end of the work.
  func join() { _ = pthread_join(handle, nil) }
}

/// The processors.
public enum Cores {
  /// How many this process may use, at least 1 and at most 64.
  public static var count: Int { max(1, min(64, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))) }
}

/// Small files that the system makes up as they are read.
enum ProcessFiles {
  /// The text of a file below /proc, as far as it has 16 KiB.
  static func contents(of path: String) -> String? {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 16 << 10)
    let count = unsafe bytes.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
    return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
  }
}
