import Foundation
public import MultiwayCore
import Synchronization

/// A device that does what the machine's does, but for one call.
public final class FaultyDevice: OutputDevice {
  /// What happens at the call.
  public enum Fault: Hashable, Sendable {
    /// It fails with an error number, and nothing is done.
    case error(Int32)
    /// A write takes only half of the bytes; other calls are as ever.
    case shortWrite
    /// It and all that follow fail, and nothing is done any more: what the disk then holds is what a killed process leaves.
    case death
    /// The calling thread gets a signal; the call is as ever.
    case signal(Int32)
  }

  /// A system call.
  public enum Call: Hashable, Sendable {
    case openUnnamed, create, write, rewrite, synchronize, name, link, rename, unlink, synchronizeFolder
  }

  private let system = SystemDevice()
  private let place: Int?
  private let fault: Fault
  private let knowsUnnamed: Bool
  private let log = Mutex<[Call]>([])

  /// Makes a device.
  /// - Parameters:
  ///   - place: at which call it happens, counted from 0; nil for none.
  ///   - knowsUnnamed: false for a file system that has no files without names.
  public init(failing place: Int?, with fault: Fault = .shortWrite, knowsUnnamed: Bool = true) {
    self.place = place
    self.fault = fault
    self.knowsUnnamed = knowsUnnamed
  }

  /// The calls so far, in order.
  public var calls: [Call] { log.withLock { $0 } }

  /// Notes a call; true where it shall be cut short.
  private func meets(_ call: Call) throws(SystemCallError) -> Bool {
    let number = log.withLock { calls in
      calls.append(call)
      return calls.count - 1
    }
    guard let place, number == place || number > place && fault == .death else { return false }
    switch fault {
    case .error(let code): throw SystemCallError(code)
    case .shortWrite: return true
    case .death: throw SystemCallError(EIO)
    case .signal(let signal):
      raise(signal)
      return false
    }
  }

  /// The machine's call, unless it is the one that fails.
  public func openUnnamed(in folder: String) throws(SystemCallError) -> Int32 {
    _ = try meets(.openUnnamed)
    guard knowsUnnamed else { throw SystemCallError(95) }
    return try system.openUnnamed(in: folder)
  }

  /// The machine's call, unless it is the one that fails.
  public func create(_ path: String) throws(SystemCallError) -> Int32 {
    _ = try meets(.create)
    return try system.create(path)
  }

  /// The machine's call, unless it is the one that fails.
  public func write(_ bytes: borrowing RawSpan, to descriptor: Int32) throws(SystemCallError) -> Int {
    let isShort = try meets(.write)
    return try system.write(
      bytes.extracting(first: isShort ? (bytes.byteCount + 1) / 2 : bytes.byteCount), to: descriptor)
  }

  /// The machine's call, unless it is the one that fails.
  public func write(_ bytes: borrowing RawSpan, to descriptor: Int32, at offset: Int) throws(SystemCallError) -> Int {
    let isShort = try meets(.rewrite)
    return try system.write(
      bytes.extracting(first: isShort ? (bytes.byteCount + 1) / 2 : bytes.byteCount), to: descriptor, at: offset)
  }

  /// Nothing: it is a hint.
  public func startFlushing(_ descriptor: Int32) {}

  /// Nothing, unless it is the call that fails: no test cuts the power, and thousands of them would wait for the disk.
  public func synchronize(_ descriptor: Int32) throws(SystemCallError) {
    _ = try meets(.synchronize)
  }

  /// The machine's call, unless it is the one that fails.
  public func name(_ descriptor: Int32, _ path: String) throws(SystemCallError) {
    _ = try meets(.name)
    try system.name(descriptor, path)
  }

  /// The machine's call, unless it is the one that fails.
  public func link(_ path: String, to newPath: String) throws(SystemCallError) {
    _ = try meets(.link)
    try system.link(path, to: newPath)
  }

  /// The machine's call, unless it is the one that fails.
  public func rename(_ path: String, to newPath: String) throws(SystemCallError) {
    _ = try meets(.rename)
    try system.rename(path, to: newPath)
  }

  /// The machine's call, unless it is the one that fails.
  public func unlink(_ path: String) throws(SystemCallError) {
    _ = try meets(.unlink)
    try system.unlink(path)
  }

  /// Nothing, unless it is the call that fails.
  public func synchronizeFolder(_ path: String) throws(SystemCallError) {
    _ = try meets(.synchronizeFolder)
  }
}
