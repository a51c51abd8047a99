/// A problem in a JSON text.
public struct JSONError: Error, Hashable, Sendable {
  /// What is wrong.
  public var message: String
  /// Where, in bytes from the start of the text.
  public var byteOffset: Int
  /// True where a key stands twice in an object.
  public var isDuplicate = false

  /// The error for a key that stands twice.
  public static func twice(_ key: String, at byteOffset: Int) -> JSONError {
    JSONError(message: "the key \"\(key)\" stands twice", byteOffset: byteOffset, isDuplicate: true)
  }
}

/// A strict JSON parser: RFC 8259 to the letter (no comments, byte order marks, trailing commas, NaN, lone surrogates or raw
/// control characters), no duplicate keys, at most 128 levels deep, in bounded memory.
///
/// It gives a text whole, or, where that may be large, the members of an object one after the other:
///
///     var parser = JSONParser(bytes)
///     try parser.beginObject()
///     while let member = try parser.nextMember() { … try parser.value() … }
///     try parser.end()
public struct JSONParser {
  /// How much memory the values of a text may take, where nobody says otherwise; ten times what models need.
  public static let defaultAllowance = 40 << 20
  /// The longest string and the longest number, in bytes as they are written.
  public static let (maximumString, maximumNumber) = (16 << 20, 1 << 10)
  private static let maximumDepth = 128
  /// What an element of an array takes, and a member of an object, of a small one and a large one, with the room that arrays keep for more.
  private static let (elementSize, memberSize, indexedMemberSize) = (64, 96, 160)

  private let bytes: TensorBytes
  /// How far the text is read.
  public private(set) var offset = 0
  /// How many bytes values may still take.
  private var allowance: Int
  /// True before the first member of the object that `beginObject` entered.
  private var isBeforeFirst = false

  /// Starts reading a text.
  public init(_ bytes: TensorBytes, allowance: Int = JSONParser.defaultAllowance) {
    self.bytes = bytes
    self.allowance = allowance
  }

  /// Parses one value that fills the whole text but for white space.
  /// - Parameter allowance: how much memory its values may take.
  public static func parse(
    _ bytes: [UInt8], allowance: Int = JSONParser.defaultAllowance
  ) throws(JSONError) -> JSONValue {
    try parse(TensorBytes(copying: bytes), allowance: allowance)
  }

  /// Parses one value that fills the whole text but for white space.
  public static func parse(
    _ bytes: TensorBytes, allowance: Int = JSONParser.defaultAllowance
  ) throws(JSONError) -> JSONValue {
    var parser = JSONParser(bytes, allowance: allowance)
    parser.skipWhitespace()
    let value = try parser.value(depth: 0)
    try parser.end()
    return value
  }

  /// Enters the object that stands here.
  /// - Returns: false where something else stands here.
  public mutating func beginObject() throws(JSONError) -> Bool {
    skipWhitespace()
    guard take(UInt8(ascii: "{")) else { return false }
    isBeforeFirst = true
    return true
  }

  /// The key of the next member of the object that was entered, and where it stands; the value comes next. Nil at the object's end. Whether
  /// a key stands twice is the caller's to find out.
  public mutating func nextMember() throws(JSONError) -> (key: String, byteOffset: Int)? {
    skipWhitespace()
    if isBeforeFirst {
      isBeforeFirst = false
      if take(UInt8(ascii: "}")) { return nil }
    } else if take(UInt8(ascii: "}")) {
      return nil
    } else {
      guard take(UInt8(ascii: ",")) else { throw error("a comma or a closing brace should stand here") }
      skipWhitespace()
    }
    return try key()
  }

  /// The value that stands here, whose memory counts against an allowance of its own.
  public mutating func value(allowance: Int) throws(JSONError) -> JSONValue {
    self.allowance = allowance
    return try value(depth: 1)
  }

  /// Refuses anything but white space in what is left.
  public mutating func end() throws(JSONError) {
    skipWhitespace()
    guard offset == bytes.byteCount else { throw error("there is text after the value") }
  }

  private func error(_ message: String) -> JSONError { JSONError(message: message, byteOffset: offset) }

  private var current: UInt8? { offset < bytes.byteCount ? bytes.span.byte(at: offset) : nil }

  private mutating func charge(_ size: Int) throws(JSONError) {
    allowance -= size
    guard allowance >= 0 else { throw error("values that take more memory than any model's") }
  }

  private mutating func skipWhitespace() {
    while let byte = current, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { offset += 1 }
  }

  private mutating func take(_ byte: UInt8) -> Bool {
    guard current == byte else { return false }
    offset += 1
    return true
  }

  private mutating func value(depth: Int) throws(JSONError) -> JSONValue {
    guard depth < JSONParser.maximumDepth else {
      throw error("nested more than \(JSONParser.maximumDepth) levels deep")
    }
    guard let byte = current else { throw error("the text ends where a value should be") }
    switch byte {
    case UInt8(ascii: "{"): return .object(try object(depth: depth))
    case UInt8(ascii: "["): return .array(try array(depth: depth))
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try word("true", .bool(true))
    case UInt8(ascii: "f"): return try word("false", .bool(false))
    case UInt8(ascii: "n"): return try word("null", .null)
    default: return try number()
    }
  }

  private mutating func word(_ text: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
    for byte in text.description.utf8 {
      guard take(byte) else { throw error("not a JSON value") }
    }
    return value
  }

  private mutating func object(depth: Int) throws(JSONError) -> JSONObject {
    offset += 1
    var object = JSONObject()
    skipWhitespace()
    if take(UInt8(ascii: "}")) { return object }
    while true {
      skipWhitespace()
      let (key, start) = try key()
      guard object[key] == nil else { throw JSONError.twice(key, at: start) }
      try charge(
        object.members.count < JSONObject.unindexedCount ? JSONParser.memberSize : JSONParser.indexedMemberSize)
      object[key] = try value(depth: depth + 1)
      skipWhitespace()
      if take(UInt8(ascii: ",")) { continue }
      guard take(UInt8(ascii: "}")) else { throw error("a comma or a closing brace should stand here") }
      return object
    }
  }

  /// A key and the colon behind it.
  private mutating func key() throws(JSONError) -> (key: String, byteOffset: Int) {
    guard current == UInt8(ascii: "\"") else { throw error("a key in double quotes should stand here") }
    let start = offset
    let key = try string()
    skipWhitespace()
    guard take(UInt8(ascii: ":")) else { throw error("a colon should stand here") }
    skipWhitespace()
    return (key, start)
  }

  private mutating func array(depth: Int) throws(JSONError) -> [JSONValue] {
    offset += 1
    var elements: [JSONValue] = []
    skipWhitespace()
    if take(UInt8(ascii: "]")) { return elements }
    while true {
      skipWhitespace()
      try charge(JSONParser.elementSize)
      elements.append(try value(depth: depth + 1))
      skipWhitespace()
      if take(UInt8(ascii: ",")) { continue }
      guard take(UInt8(ascii: "]")) else { throw error("a comma or a closing bracket should stand here") }
      return elements
    }
  }

  private mutating func number() throws(JSONError) -> JSONValue {
    let start = offset
    _ = take(UInt8(ascii: "-"))
    guard let first = current, isDigit(first) else { throw error("not a JSON value") }
    if first == UInt8(ascii: "0") {
      offset += 1
      if let next = current, isDigit(next) { throw error("a number may not start with 0") }
    } else {
      skipDigits()
    }
    var isInteger = true
    if take(UInt8(ascii: ".")) {
      isInteger = false
      try requireDigits()
    }
    if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
      isInteger = false
      if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
      try requireDigits()
    }
    guard offset - start <= JSONParser.maximumNumber else {
      throw JSONError(message: "a number of \(offset - start) digits", byteOffset: start)
    }
    let text = String(decoding: bytes.span.array(in: start..<offset), as: UTF8.self)
    if isInteger, let integer = Int(text) { return .integer(integer) }
    guard let real = Double(text), real.isFinite else {
      throw JSONError(message: "a number out of range", byteOffset: start)
    }
    return .real(real)
  }

  private func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

  private mutating func skipDigits() { while let byte = current, isDigit(byte) { offset += 1 } }

  private mutating func requireDigits() throws(JSONError) {
    guard let byte = current, isDigit(byte) else { throw error("a digit should stand here") }
    skipDigits()
  }

  private mutating func string() throws(JSONError) -> String {
    let start = offset
    offset += 1
    // What stands between escapes is taken whole: nearly every string has none.
    var content: [UInt8] = []
    var run = offset
    while true {
      guard let byte = current else { throw JSONError(message: "a string without its end", byteOffset: start) }
      switch byte {
      case UInt8(ascii: "\""):
        let rest = bytes.span.array(in: run..<offset)
        content = content.isEmpty ? rest : content + rest
        offset += 1
        return try text(content, from: start)
      case UInt8(ascii: "\\"):
        content += bytes.span.array(in: run..<offset)
        offset += 1
        content += try escape()
        run = offset
      case 0..<0x20: throw error("a raw control character in a string")
      default: offset += 1
      }
      guard offset - start <= JSONParser.maximumString else {
        throw JSONError(message: "a string of more than \(JSONParser.maximumString) bytes", byteOffset: start)
      }
    }
  }

  private mutating func text(_ content: [UInt8], from start: Int) throws(JSONError) -> String {
    guard let text = String(validating: content, as: UTF8.self) else {
      throw JSONError(message: "a string that is not UTF-8", byteOffset: start)
    }
    if content.count > JSONParser.inlineString { try charge(content.count + JSONParser.elementSize) }
    return text
  }

  /// Strings of so many bytes take no memory of their own.
  private static let inlineString = 15

  private mutating func escape() throws(JSONError) -> [UInt8] {
    guard let byte = current else { throw error("a string without its end") }
    offset += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
    case UInt8(ascii: "b"): return [0x08]
    case UInt8(ascii: "f"): return [0x0C]
    case UInt8(ascii: "n"): return [0x0A]
    case UInt8(ascii: "r"): return [0x0D]
    case UInt8(ascii: "t"): return [0x09]
    case UInt8(ascii: "u"): return Array(String(Character(try scalar())).utf8)
    default: throw error("an unknown escape")
    }
  }

  private mutating func scalar() throws(JSONError) -> Unicode.Scalar {
    let first = try hexadecimal()
    if (0xD800..<0xDC00).contains(first) {
      guard take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else { throw error("a lone surrogate") }
      let second = try hexadecimal()
      guard (0xDC00..<0xE000).contains(second),
        let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
      else { throw error("a lone surrogate") }
      return scalar
    }
    guard let scalar = Unicode.Scalar(first) else { throw error("a lone surrogate") }
    return scalar
  }

  private mutating func hexadecimal() throws(JSONError) -> UInt32 {
    var value: UInt32 = 0
    for _ in 0..<4 {
      guard let byte = current, let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else {
        throw error("four hexadecimal digits should stand here")
      }
      value = value << 4 | UInt32(digit)
      offset += 1
    }
    return value
  }
}
