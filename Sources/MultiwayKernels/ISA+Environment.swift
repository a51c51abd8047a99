import Glibc

extension ISA {
  /// The set that the environment variable `MULTIWAY_ISA` names, or the best one where it is not set.
  ///
  /// Throws `.unsupportedISA` for a set that is unknown or that this CPU lacks.
  public static func selected() throws(KernelError) -> ISA {
    guard let value = unsafe getenv("MULTIWAY_ISA") else { return best }
    return try selected(environment: ["MULTIWAY_ISA": unsafe String(cString: value)])
  }
}
