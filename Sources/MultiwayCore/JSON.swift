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
  static let unindexedCount = 8

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
    // Most strings are names and numbers of tensors, by the thousand.
    if string.utf8.allSatisfy({ $0 >= 0x20 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }) {
      text += string + "\""
      return
    }
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
