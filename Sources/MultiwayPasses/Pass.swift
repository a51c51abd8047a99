public import MultiwayCore
public import MultiwayGraph

/// A rewriting of a graph: a value with typed options.
public protocol Pass: Sendable {
  /// The name that recipes and logs use: `fold-query-scale`.
  static var name: String { get }
  /// One line on what it does.
  static var summary: String { get }
  /// Passes that have to stand earlier in the pipeline; checked when it is built.
  static var requires: [any Pass.Type] { get }
  /// Passes that must not stand later, as they would find nothing to do; checked when the pipeline is built.
  static var follows: [any Pass.Type] { get }
  /// Rewrites the graph.
  func run(on graph: inout Graph) throws(PassError) -> PassStatistics
}

extension Pass {
  /// Most passes need no other.
  public static var requires: [any Pass.Type] { [] }
  /// Most passes may stand anywhere.
  public static var follows: [any Pass.Type] { [] }
}

/// What a pass did.
public struct PassStatistics: Hashable, Sendable {
  /// How many places were rewritten.
  public var rewrites: Int
  /// How many nodes went away.
  public var removedNodes: Int
  /// What else is worth telling, a line each.
  public var notes: [String]

  /// Makes statistics.
  public init(rewrites: Int = 0, removedNodes: Int = 0, notes: [String] = []) {
    self.rewrites = rewrites
    self.removedNodes = removedNodes
    self.notes = notes
  }
}

/// What can go wrong in a pass.
public enum PassErrorCode: FailureCode {
  /// A pass stands before one that it requires.
  case wrongOrder
  /// The graph has nothing for the pass to act on.
  case notApplicable
  /// The weights cannot be computed.
  case weights
  /// A pass left a graph that does not verify: a fault of our own.
  case brokenGraph

  /// The exit code class.
  public var category: FailureCategory {
    switch self {
    case .wrongOrder: .usage
    case .notApplicable, .weights: .data
    case .brokenGraph: .internalFault
    }
  }
}

/// An error about a pass.
public typealias PassError = Failure<PassErrorCode>

/// Passes in order, checked when the pipeline is built; the graph is verified after each.
public struct PassPipeline: Sendable {
  /// What one pass did.
  public typealias Report = (name: String, statistics: PassStatistics)

  /// The passes in order.
  public let passes: [any Pass]

  /// Checks that every pass stands after those that it requires and not before those that it follows.
  public init(_ passes: [any Pass]) throws(PassError) {
    var seen: Set<String> = []
    for (position, pass) in passes.enumerated() {
      let later = Set(passes[position...].map { type(of: $0).name })
      for followed in type(of: pass).follows where later.contains(followed.name) {
        throw PassError(
          .wrongOrder, "the pass \(type(of: pass).name) stands before \(followed.name), which it leaves nothing to do")
      }
      for required in type(of: pass).requires where !seen.contains(required.name) {
        throw PassError(
          .wrongOrder, "the pass \(type(of: pass).name) stands before \(required.name), which it requires")
      }
      seen.insert(type(of: pass).name)
    }
    self.passes = passes
  }

  /// Runs all passes.
  public func run(on graph: inout Graph) throws(PassError) -> [Report] {
    var reports: [Report] = []
    for pass in passes {
      reports.append((type(of: pass).name, try pass.run(on: &graph)))
      do {
        try graph.verify()
      } catch {
        var diagnosis = error.diagnosis
        diagnosis.found = "after the pass \(type(of: pass).name): \(diagnosis.found)"
        throw PassError(.brokenGraph, diagnosis)
      }
    }
    return reports
  }
}
