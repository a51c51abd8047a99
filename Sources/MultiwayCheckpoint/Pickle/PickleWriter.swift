/// Writes pickles of protocol 2 with the few opcodes that `torch.load(weights_only=True)` takes.
///
/// Names and strings that were written before are taken from the memo, as Python's own pickler does.
struct PickleWriter {
  /// What was written.
  private(set) var bytes: [UInt8] = [0x80, 2]
  private var memo: [String: Int] = [:]

  /// How many entries of a dict come under one opcode in what Python writes.
  private static let batchSize = 1000

  /// A class or a function by its name: GLOBAL.
  mutating func global(_ module: String, _ name: String) {
    once("c" + module + "\n" + name + "\n") { writer in
      writer.bytes += [UInt8(ascii: "c")] + Array(module.utf8) + [0x0A] + Array(name.utf8) + [0x0A]
    }
  }

  /// A string: BINUNICODE. No string of ours is longer than 2³² bytes.
  mutating func text(_ text: String) {
    once("X" + text) { writer in
      writer.bytes.append(UInt8(ascii: "X"))
      writer.number(UInt32(clamping: text.utf8.count))
      writer.bytes += Array(text.utf8)
    }
  }

  /// A number that is not negative: BININT1, BININT2, BININT or LONG1.
  mutating func integer(_ value: Int) {
    precondition(value >= 0)
    if let small = UInt8(exactly: value) {
      bytes += [UInt8(ascii: "K"), small]
    } else if let middle = UInt16(exactly: value) {
      bytes.append(UInt8(ascii: "M"))
      number(middle)
    } else if let large = Int32(exactly: value) {
      bytes.append(UInt8(ascii: "J"))
      number(large)
    } else {
      bytes += [0x8A, 8]
      number(Int64(value))
    }
  }

  /// A tuple of numbers: a shape.
  mutating func integers(_ values: [Int]) {
    if values.isEmpty { return emptyTuple() }
    tuple { writer in for value in values { writer.integer(value) } }
  }

  /// A tuple of what `body` writes: MARK … TUPLE.
  mutating func tuple(_ body: (inout PickleWriter) -> Void) {
    bytes.append(UInt8(ascii: "("))
    body(&self)
    bytes.append(UInt8(ascii: "t"))
  }

  /// `()`.
  mutating func emptyTuple() { bytes.append(UInt8(ascii: ")")) }

  /// `False`.
  mutating func no() { bytes.append(0x89) }

  /// Calls the second value from the top with the tuple on top: REDUCE.
  mutating func call() { bytes.append(UInt8(ascii: "R")) }

  /// What the tuple on top identifies outside of the pickle: BINPERSID.
  mutating func persistent() { bytes.append(UInt8(ascii: "Q")) }

  /// `{key: value}`, the value as `body` writes it.
  mutating func dictionary(_ key: String, _ body: (inout PickleWriter) -> Void) {
    bytes.append(UInt8(ascii: "}"))
    text(key)
    body(&self)
    bytes.append(UInt8(ascii: "s"))
  }

  /// `collections.OrderedDict()`.
  mutating func emptyOrderedDictionary() {
    global("collections", "OrderedDict")
    emptyTuple()
    call()
  }

  /// An ordered dictionary with the given keys, each value as `body` writes it.
  mutating func orderedDictionary(_ keys: [String], _ body: (inout PickleWriter, Int) -> Void) {
    emptyOrderedDictionary()
    for start in stride(from: 0, to: keys.count, by: PickleWriter.batchSize) {
      bytes.append(UInt8(ascii: "("))
      for index in start..<min(keys.count, start + PickleWriter.batchSize) {
        text(keys[index])
        body(&self, index)
      }
      bytes.append(UInt8(ascii: "u"))
    }
  }

  /// Ends the pickle: STOP.
  mutating func end() { bytes.append(UInt8(ascii: ".")) }

  /// Writes what stands for `key` and remembers it: BINPUT; the second time it is only looked up: BINGET.
  private mutating func once(_ key: String, _ write: (inout PickleWriter) -> Void) {
    if let place = memo[key] { return look(place, short: UInt8(ascii: "h"), long: UInt8(ascii: "j")) }
    write(&self)
    look(memo.count, short: UInt8(ascii: "q"), long: UInt8(ascii: "r"))
    memo[key] = memo.count
  }

  private mutating func look(_ place: Int, short: UInt8, long: UInt8) {
    if let byte = UInt8(exactly: place) {
      bytes += [short, byte]
    } else {
      bytes.append(long)
      number(UInt32(clamping: place))
    }
  }

  private mutating func number(_ value: some FixedWidthInteger) {
    for shift in stride(from: 0, to: value.bitWidth, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
  }
}
