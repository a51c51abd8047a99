import Glibc

extension KernelContext {
  /// The number of processors that this process may use, at least 1 and at most 64: the default number of threads.
  public static var coreCount: Int { max(1, min(64, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))) }
}
