import MultiwayCore

/// What gives the names and ids in a pickle their meaning as data.
protocol PickleWorld {
  /// Called for every name that the pickle mentions; throws where the mere mention is an attack.
  func check(_ global: PickleGlobal) throws(CheckpointError)
  /// The value of a persistent id.
  mutating func persistent(_ id: PickleValue, in arena: inout PickleArena) throws(CheckpointError) -> PickleValue
  /// The value that stands for a call. Nothing is ever called: known names build data, others are recorded or refused.
  mutating func call(
    _ callable: Int, _ arguments: PickleValue, isConstructor: Bool, in arena: inout PickleArena
  ) throws(CheckpointError) -> PickleValue
  /// Gives a tensor the state that BUILD carries.
  mutating func build(tensor: Int, state: PickleValue, in arena: inout PickleArena) throws(CheckpointError)
}

/// Interprets the opcodes of pickle protocols 0 to 5 as data, within budgets.
struct PickleMachine<World: PickleWorld> {
  var reader: PickleReader
  var arena: PickleArena
  var world: World
  var stack: [PickleValue] = []
  var marks: [Int] = []
  var memo: [Int: PickleValue] = [:]
  private var steps = 0

  private let maximumSteps: Int
  /// From which size on bytes are left where they are.
  static var smallestPlace: Int { 4096 }
  /// From which size on a text is taken for bytes, if it can be: names and settings are shorter.
  static var longestText: Int { 256 << 10 }

  init(_ source: any ByteSource, at offset: Int = 0, world: World, budget: Int, maximumSteps: Int) {
    reader = PickleReader(source, at: offset)
    arena = PickleArena(budget: budget)
    self.world = world
    self.maximumSteps = maximumSteps
  }

  /// Runs up to STOP and returns the value that is then on top.
  mutating func run() throws(CheckpointError) -> PickleValue {
    while true {
      let offset = reader.offset
      do throws(CheckpointError) {
        guard let opcode = try reader.read(UInt8.self) else {
          throw fault(.truncated, "the pickle ends without its STOP")
        }
        steps += 1
        guard steps <= maximumSteps else {
          throw fault(.overBudget, "more than \(maximumSteps) opcodes")
        }
        if opcode == UInt8(ascii: ".") { return try pop() }
        try execute(opcode)
      } catch {
        var error = error
        error.diagnosis.byteOffset = error.diagnosis.byteOffset ?? offset
        throw error
      }
    }
  }

  func fault(_ code: CheckpointErrorCode, _ found: String, expected: String? = nil) -> CheckpointError {
    CheckpointError(code, "pickle: " + found, expected: expected)
  }

  // MARK: The stack

  mutating func push(_ value: PickleValue) throws(CheckpointError) {
    guard stack.count < PickleLimits.maximumStack else {
      throw fault(.overBudget, "more than \(PickleLimits.maximumStack) values on the stack")
    }
    stack.append(value)
  }

  mutating func pop() throws(CheckpointError) -> PickleValue {
    guard stack.count > marks.last ?? 0, let value = stack.popLast() else {
      throw fault(.malformed, "a value is taken from an empty stack")
    }
    return value
  }

  func top() throws(CheckpointError) -> PickleValue {
    guard stack.count > marks.last ?? 0, let value = stack.last else {
      throw fault(.malformed, "a value is taken from an empty stack")
    }
    return value
  }

  /// Takes everything above the last mark, and the mark.
  mutating func popToMark() throws(CheckpointError) -> [PickleValue] {
    guard let mark = marks.popLast(), mark <= stack.count else { throw fault(.malformed, "there is no mark") }
    // A copy, not a slice: a slice would keep the stack's memory shared, and every change would then copy all of it.
    let items = Array(stack[mark...])
    stack.removeSubrange(mark...)
    return items
  }

  mutating func mark() throws(CheckpointError) {
    guard marks.count < PickleLimits.maximumStack else {
      throw fault(.overBudget, "more than \(PickleLimits.maximumStack) marks")
    }
    marks.append(stack.count)
  }

  mutating func remember(_ value: PickleValue, as key: Int) throws(CheckpointError) {
    try arena.charge(128)
    memo[key] = value
  }

  mutating func recall(_ key: Int) throws(CheckpointError) {
    guard let value = memo[key] else { throw fault(.malformed, "the memo has no entry \(key)") }
    try push(value)
  }

  // MARK: Arguments in the stream

  mutating func number<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type) throws(CheckpointError) -> T {
    guard let value = try reader.read(type) else { throw fault(.truncated, "the pickle ends within an opcode") }
    return value
  }

  mutating func bytes<T: FixedWidthInteger & BitwiseCopyable>(counted type: T.Type) throws(CheckpointError) -> [UInt8] {
    let raw = try number(type)
    guard let count = Int(exactly: raw), let bytes = try reader.readBytes(count) else { throw tooLong("\(raw)") }
    return bytes
  }

  /// A bytes object, whose bytes stay where they are if they are many.
  mutating func blob<T: FixedWidthInteger & BitwiseCopyable>(
    counted type: T.Type
  ) throws(CheckpointError) -> PickleValue {
    let raw = try number(type)
    guard let count = Int(exactly: raw), count <= reader.remaining else { throw tooLong("\(raw)") }
    if count >= Self.smallestPlace, let place = reader.skip(count) {
      return .bytes(blob: try arena.blob(SourceSlice(of: reader.source, range: place)))
    }
    return .bytes(blob: try arena.blob(try reader.readBytes(count) ?? []))
  }

  /// A string. A long one that may spell bytes, as protocol 2 writes them, stays where it is and becomes bytes.
  mutating func text<T: FixedWidthInteger & BitwiseCopyable>(
    counted type: T.Type, isPython2: Bool = false
  ) throws(CheckpointError) -> PickleValue {
    let raw = try number(type)
    guard let count = Int(exactly: raw), count >= 0, count <= reader.remaining else { throw tooLong("\(raw)") }
    if count >= Self.longestText {
      let slice = SourceSlice(of: reader.source, range: reader.offset..<reader.offset + count)
      let bytes: (any ByteSource)? = if isPython2 { slice } else { try Latin1Source(slice) }
      if let bytes {
        _ = reader.skip(count)
        return .bytes(blob: try arena.blob(bytes))
      }
    }
    let bytes = try reader.readBytes(count) ?? []
    return isPython2 ? try python2String(bytes) : try arena.string(try utf8(bytes))
  }

  private func tooLong(_ count: String) -> CheckpointError {
    fault(.truncated, "a string of \(count) bytes", expected: "at most \(reader.remaining), which are left")
  }

  mutating func line() throws(CheckpointError) -> [UInt8] {
    guard let line = try reader.readLine() else { throw fault(.truncated, "a line without its end") }
    return line
  }

  func utf8(_ bytes: [UInt8]) throws(CheckpointError) -> String {
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw fault(.malformed, "a string that is not UTF-8")
    }
    return text
  }
}
