/// A JSON value (RFC 8259). Objects keep their order, and integers that fit an `Int` stay exact.
public enum JSONValue: Hashable, Sendable {
  /// `null`.
  case null
  /// `true` or `false`.
  case bool(Bool)
  /// A number written without fraction and exponent that fits an `Int`.
  case integer(Int)
  /// Any other number.
  case real(Double)
  /// A string.
  case string(String)
  /// An array.
  case array([JSONValue])
  /// An object; the keys are unique.
  case object(JSONObject)
}

/// The members of a JSON object in their order.
public struct JSONObject: Hashable, Sendable, ExpressibleByDictionaryLiteral {
  /// The members in order.
  public private(set) var members: [(key: String, value: JSONValue)] = []
  /// Where each key stands; only kept for objects of many members, as most objects of a large file have few.
  private var index: [String: Int] = [:]
  private static let unindexedCount = 8

  /// Makes an empty object.
  public init() {}

  /// Makes an object from a literal.
  public init(dictionaryLiteral elements: (String, JSONValue)...) {
    for (key, value) in elements { self[key] = value }
  }

  /// The value of `key`; setting nil removes nothing and is ignored.
  public subscript(key: String) -> JSONValue? {
    get { position(of: key).map { members[$0].value } }
    set {
      guard let newValue else { return }
      if let position = position(of: key) {
        members[position].value = newValue
        return
      }
      members.append((key, newValue))
      if !index.isEmpty {
        index[key] = members.count - 1
      } else if members.count > JSONObject.unindexedCount {
        for (position, member) in members.enumerated() { index[member.key] = position }
      }
    }
  }

  private func position(of key: String) -> Int? {
    index.isEmpty ? members.firstIndex { $0.key == key } : index[key]
  }

  /// Equal keys and values in the same order.
  public static func == (left: JSONObject, right: JSONObject) -> Bool {
    left.members.count == right.members.count
      && zip(left.members, right.members).allSatisfy { $0.key == $1.key && $0.value == $1.value }
  }

  /// Feeds keys and values in order.
  public func hash(into hasher: inout Hasher) {
    for (key, value) in members {
      hasher.combine(key)
      hasher.combine(value)
    }
  }
}

extension JSONValue {
  /// The string, if it is one.
  public var string: String? { if case .string(let value) = self { value } else { nil } }
  /// The integer, if it is one.
  public var integer: Int? { if case .integer(let value) = self { value } else { nil } }
  /// The number, if it is one.
  public var number: Double? {
    switch self {
    case .integer(let value): Double(value)
    case .real(let value): value
    default: nil
    }
  }
  /// The truth value, if it is one.
  public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
  /// The elements, if it is an array.
  public var array: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
  /// The object, if it is one.
  public var object: JSONObject? { if case .object(let value) = self { value } else { nil } }
  /// The member `key` of an object.
  public subscript(key: String) -> JSONValue? { object?[key] }
}

/// A problem in a JSON text.
public struct JSONError: Error, Hashable, Sendable {
  /// What is wrong.
  public var message: String
  /// Where, in bytes from the start of the text.
  public var byteOffset: Int
}

/// A strict JSON parser: RFC 8259 to the letter (no comments, byte order marks, trailing commas, NaN, lone surrogates or raw
/// control characters), no duplicate keys, at most 128 levels deep.
public struct JSONParser {
  private let bytes: [UInt8]
  private var offset = 0
  private static let maximumDepth = 128

  private init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// Parses one value that fills the whole text but for white space.
  public static func parse(_ bytes: [UInt8]) throws(JSONError) -> JSONValue {
    var parser = JSONParser(bytes)
    parser.skipWhitespace()
    let value = try parser.value(depth: 0)
    parser.skipWhitespace()
    guard parser.offset == bytes.count else { throw parser.error("there is text after the value") }
    return value
  }

  private func error(_ message: String) -> JSONError { JSONError(message: message, byteOffset: offset) }

  private var current: UInt8? { offset < bytes.count ? bytes[offset] : nil }

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
      guard current == UInt8(ascii: "\"") else { throw error("a key in double quotes should stand here") }
      let start = offset
      let key = try string()
      guard object[key] == nil else {
        throw JSONError(message: "the key \"\(key)\" stands twice", byteOffset: start)
      }
      skipWhitespace()
      guard take(UInt8(ascii: ":")) else { throw error("a colon should stand here") }
      skipWhitespace()
      object[key] = try value(depth: depth + 1)
      skipWhitespace()
      if take(UInt8(ascii: ",")) { continue }
      guard take(UInt8(ascii: "}")) else { throw error("a comma or a closing brace should stand here") }
      return object
    }
  }

  private mutating func array(depth: Int) throws(JSONError) -> [JSONValue] {
    offset += 1
    var elements: [JSONValue] = []
    skipWhitespace()
    if take(UInt8(ascii: "]")) { return elements }
    while true {
      skipWhitespace()
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
    let text = String(decoding: bytes[start..<offset], as: UTF8.self)
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
        let rest = bytes[run..<offset]
        offset += 1
        let text =
          content.isEmpty
          ? String(validating: rest, as: UTF8.self) : String(validating: content + rest, as: UTF8.self)
        guard let text else { throw JSONError(message: "a string that is not UTF-8", byteOffset: start) }
        return text
      case UInt8(ascii: "\\"):
        content += bytes[run..<offset]
        offset += 1
        content += try escape()
        run = offset
      case 0..<0x20: throw error("a raw control character in a string")
      default: offset += 1
      }
    }
  }

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

extension JSONValue {
  /// The JSON text. `indented` puts each member on a line of its own; numbers that JSON cannot hold become `null`.
  public func text(indented: Bool = false) -> String {
    var text = ""
    write(to: &text, indentation: indented ? 0 : nil)
    return text
  }

  private func write(to text: inout String, indentation: Int?) {
    switch self {
    case .null: text += "null"
    case .bool(let value): text += value ? "true" : "false"
    case .integer(let value): text += String(value)
    case .real(let value):
      // Swift prints the shortest text that reads back as the same value, in a form that JSON allows.
      text += value.isFinite ? "\(value)" : "null"
    case .string(let value): JSONValue.quote(value, to: &text)
    case .array(let elements):
      JSONValue.writeList("[", "]", elements, to: &text, indentation: indentation) { element, text, indentation in
        element.write(to: &text, indentation: indentation)
      }
    case .object(let object):
      JSONValue.writeList("{", "}", object.members, to: &text, indentation: indentation) { member, text, indentation in
        JSONValue.quote(member.key, to: &text)
        text += indentation == nil ? ":" : ": "
        member.value.write(to: &text, indentation: indentation)
      }
    }
  }

  private static func writeList<Element>(
    _ open: String, _ close: String, _ elements: [Element], to text: inout String, indentation: Int?,
    _ writeElement: (Element, inout String, Int?) -> Void
  ) {
    text += open
    let inner = indentation.map { $0 + 2 }
    for (index, element) in elements.enumerated() {
      if index > 0 { text += "," }
      if let inner { text += "\n" + String(repeating: " ", count: inner) }
      writeElement(element, &text, inner)
    }
    if let indentation, !elements.isEmpty { text += "\n" + String(repeating: " ", count: indentation) }
    text += close
  }

  private static func quote(_ string: String, to text: inout String) {
    text += "\""
    for scalar in string.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\n": text += "\\n"
      case "\r": text += "\\r"
      case "\t": text += "\\t"
      case "\u{8}": text += "\\b"
      case "\u{C}": text += "\\f"
      case _ where scalar.value < 0x20:
        let digits = String(scalar.value, radix: 16)
        text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: text.unicodeScalars.append(scalar)
      }
    }
    text += "\""
  }
}
