import MultiwayCore

extension KernelContext {
  /// The number of processors that this process may use, at least 1 and at most 64: the default number of threads.
  public static var coreCount: Int { Cores.count }
}
