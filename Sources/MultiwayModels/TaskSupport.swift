/// What is supported of an architecture for one task: a row of Docs/Support.md, which a test compares with what fixtures give.
public struct TaskSupport: Sendable {
  /// The task's name, as artifacts and `inspect --json` have it.
  public var task: String
  /// The files that people have, in words.
  public var files: String
  /// The layouts that are read.
  public var read: [String]
  /// The layouts that `convert --layout` writes.
  public var written: [String]
  /// What the graph reads.
  public var inputs: [String]
  /// What the graph gives.
  public var outputs: [String]
  /// The implementation that outputs are compared with.
  public var oracle: String
  /// Checkpoints under Tests/Fixtures that hold the claim.
  public var fixtures: [String]

  /// Describes a row. Layouts that are written are those that are read unless told otherwise.
  public init(
    _ task: String, files: String, read: [String], written: [String]? = nil, inputs: [String] = ["image"],
    outputs: [String], oracle: String, fixtures: [String]
  ) {
    self.task = task
    self.files = files
    self.read = read
    self.written = written ?? read
    self.inputs = inputs
    self.outputs = outputs
    self.oracle = oracle
    self.fixtures = fixtures
  }
}
