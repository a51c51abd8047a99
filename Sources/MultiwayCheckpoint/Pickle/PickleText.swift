import MultiwayCore

/// The textual forms of protocol 0.
enum PickleText {
  /// The content of a Python string literal.
  static func unquoted(_ line: [UInt8]) throws(CheckpointError) -> [UInt8] {
    var content = line[...]
    while content.last == 0x20 || content.last == 0x0D { content.removeLast() }
    guard let quote = content.first, quote == UInt8(ascii: "'") || quote == UInt8(ascii: "\""), content.count >= 2,
      content.last == quote
    else { throw CheckpointError(.malformed, "pickle: a string without its quotes") }
    content = content.dropFirst().dropLast()
    var result: [UInt8] = []
    while let byte = content.popFirst() {
      guard byte == UInt8(ascii: "\\"), let next = content.popFirst() else {
        result.append(byte)
        continue
      }
      switch next {
      case UInt8(ascii: "n"): result.append(0x0A)
      case UInt8(ascii: "r"): result.append(0x0D)
      case UInt8(ascii: "t"): result.append(0x09)
      case UInt8(ascii: "x"):
        guard let value = UInt8(String(decoding: content.prefix(2), as: UTF8.self), radix: 16), content.count >= 2
        else {
          throw CheckpointError(.malformed, "pickle: a string with an odd escape")
        }
        content = content.dropFirst(2)
        result.append(value)
      default: result.append(next)
      }
    }
    return result
  }

  /// The content of a raw-unicode-escape line.
  static func rawUnicode(_ line: [UInt8]) throws(CheckpointError) -> String {
    var scalars = String.UnicodeScalarView()
    var content = line[...]
    while let byte = content.popFirst() {
      let digits =
        switch (byte, content.first) {
        case (UInt8(ascii: "\\"), UInt8(ascii: "u")): 4
        case (UInt8(ascii: "\\"), UInt8(ascii: "U")): 8
        default: 0
        }
      if digits == 0 {
        scalars.append(Unicode.Scalar(byte))
        continue
      }
      let text = String(decoding: content.dropFirst().prefix(digits), as: UTF8.self)
      guard content.count > digits, let value = UInt32(text, radix: 16), let scalar = Unicode.Scalar(value) else {
        throw CheckpointError(.malformed, "pickle: a string with an odd escape")
      }
      scalars.append(scalar)
      content = content.dropFirst(1 + digits)
    }
    return String(scalars)
  }
}

extension PickleMachine {
  /// A decimal integer; `I` also spells the truth values 00 and 01.
  mutating func textInteger(_ line: [UInt8], isLong: Bool) throws(CheckpointError) -> PickleValue {
    guard line.count <= 1024 else {
      throw fault(.overBudget, "an integer of \(line.count) digits", expected: "at most 1024")
    }
    var text = try utf8(line)
    if !isLong, text == "00" || text == "01" { return .bool(text == "01") }
    if isLong, text.hasSuffix("L") { text.removeLast() }
    if let value = Int(text) { return .int(value) }
    let digits = text.hasPrefix("-") ? text.dropFirst() : text[...]
    guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && $0.isNumber }) else {
      throw fault(.malformed, "'\(text)' is no integer")
    }
    return .bigInt(blob: try arena.blob(Array(text.utf8)))
  }

  /// A decimal number.
  func textReal(_ line: [UInt8]) throws(CheckpointError) -> PickleValue {
    guard line.count <= 1024, let value = Double(try utf8(line)) else { throw fault(.malformed, "an odd number") }
    return .real(value)
  }

  /// A little-endian two's complement integer.
  mutating func integer(_ bytes: [UInt8]) throws(CheckpointError) -> PickleValue {
    let isNegative = (bytes.last ?? 0) & 0x80 != 0
    guard bytes.count <= 8 else { return .bigInt(blob: try arena.blob(bytes)) }
    var value: UInt64 = isNegative ? .max : 0
    for byte in bytes.reversed() { value = value << 8 | UInt64(byte) }
    return .int(Int(bitPattern: UInt(value)))
  }

  /// Python 2 had one type for text and bytes: what is UTF-8 is taken as text.
  mutating func python2String(_ bytes: [UInt8]) throws(CheckpointError) -> PickleValue {
    if let text = String(validating: bytes, as: UTF8.self) { return try arena.string(text) }
    return .bytes(blob: try arena.blob(bytes))
  }

  /// A key of the memo in decimal.
  func memoKey(_ line: [UInt8]) throws(CheckpointError) -> Int {
    guard line.count <= 20, let key = Int(try utf8(line)), key >= 0 else { throw fault(.malformed, "an odd memo key") }
    return key
  }
}
