import MultiwayCore

/// A field of a protobuf message, as it stands in the file.
struct ProtobufField {
  /// What it holds.
  enum Value {
    /// Wire type 0.
    case varint(UInt64)
    /// Wire types 1 and 5: four or eight bytes.
    case fixed(Range<Int>)
    /// Wire type 2: bytes, a text, a message or packed numbers, by their place in the file.
    case bytes(Range<Int>)
  }

  /// The field's number.
  var number: Int
  /// What it holds.
  var value: Value
  /// Where it starts in the file.
  var offset: Int
}

/// A file of protobuf messages, read field by field. Contents are places until they are asked for, so that a file of any size is walked
/// in the memory of one window.
final class ProtobufInput {
  let file: any ByteSource
  /// How many bytes of texts may still be copied out of the file.
  private var textBudget: Int
  private var window: TensorBytes
  private var windowStart = 0

  /// How many bytes of a packed file are unpacked at once for looking at them.
  private static let windowSize = 1 << 16
  /// The most bytes of names and other texts.
  private static let maximumText = 256 << 20

  init(_ file: any ByteSource) throws(CheckpointError) {
    self.file = file
    textBudget = min(file.headerLimit, ProtobufInput.maximumText)
    window = try file.contents(
      in: 0..<(file.isInPlace ? file.byteCount : min(ProtobufInput.windowSize, file.byteCount)))
  }

  func error(_ code: CheckpointErrorCode, _ found: String, expected: String? = nil, at offset: Int) -> CheckpointError {
    CheckpointError(
      code, found, expected: expected,
      remedy: code == .truncated ? "the download or copy is incomplete: fetch the file again" : nil, file: file.path,
      byteOffset: offset)
  }

  /// The byte at a place, which must lie within the file.
  private func byte(at offset: Int) throws(CheckpointError) -> UInt8 {
    if offset < windowStart || offset - windowStart >= window.byteCount {
      window = try file.contents(in: offset..<min(file.byteCount, offset + ProtobufInput.windowSize))
      windowStart = offset
    }
    let bytes = window
    return bytes.span.byte(at: offset - windowStart)
  }

  /// Reads a number of at most ten bytes and moves behind it.
  func varint(at offset: inout Int, end: Int) throws(CheckpointError) -> UInt64 {
    let start = offset
    var value: UInt64 = 0
    for place in 0..<10 {
      guard offset < end else {
        throw error(
          end == file.byteCount ? .truncated : .malformed, "a number that does not end where its message does",
          at: start)
      }
      let byte = try byte(at: offset)
      offset += 1
      if place == 9, byte > 1 { break }
      value |= UInt64(byte & 0x7F) << UInt64(7 * place)
      if byte & 0x80 == 0 { return value }
    }
    throw error(.malformed, "a number of more than 64 bits", at: start)
  }

  /// The text in a range.
  func text(_ range: Range<Int>) throws(CheckpointError) -> String {
    textBudget -= range.count
    guard textBudget >= 0 else {
      throw error(
        .overBudget, "more than \(min(file.headerLimit, ProtobufInput.maximumText)) bytes of names and texts",
        expected: "a model", at: range.lowerBound)
    }
    let bytes = try file.contents(in: range)
    guard let text = String(validating: bytes.array(of: UInt8.self), as: UTF8.self) else {
      throw error(.malformed, "a text that is not UTF-8", at: range.lowerBound)
    }
    return text
  }
}

/// A message in a file: its fields one after the other.
struct ProtobufMessage {
  let input: ProtobufInput
  let end: Int
  private(set) var offset: Int
  /// What the message is, for errors.
  let name: String

  init(_ input: ProtobufInput, _ range: Range<Int>, name: String) {
    self.input = input
    offset = range.lowerBound
    end = range.upperBound
    self.name = name
  }

  /// The next field, nil at the end.
  mutating func next() throws(CheckpointError) -> ProtobufField? {
    guard offset < end else { return nil }
    let start = offset
    let tag = try input.varint(at: &offset, end: end)
    guard let number = Int(exactly: tag >> 3), (1...0x1FFF_FFFF).contains(number) else {
      throw input.error(
        .malformed, "the field number \(tag >> 3) in \(name)", expected: "a protobuf message", at: start)
    }
    let value: ProtobufField.Value
    switch tag & 7 {
    case 0: value = .varint(try input.varint(at: &offset, end: end))
    case 1: value = .fixed(try take(8, from: start))
    case 5: value = .fixed(try take(4, from: start))
    case 2:
      let length = try input.varint(at: &offset, end: end)
      value = .bytes(try take(length, from: start))
    default:
      throw input.error(
        .malformed, "the wire type \(tag & 7) in \(name)", expected: "0, 1, 2 or 5, as in ONNX", at: start)
    }
    return ProtobufField(number: number, value: value, offset: start)
  }

  private mutating func take(_ length: UInt64, from start: Int) throws(CheckpointError) -> Range<Int> {
    guard let count = Int(exactly: length), count <= end - offset else {
      let isLast = end == input.file.byteCount
      throw input.error(
        isLast ? .truncated : .malformed, "a field of \(length) bytes in \(name), where \(end - offset) are left",
        at: start)
    }
    defer { offset += count }
    return offset..<offset + count
  }

  func wrongType(_ field: ProtobufField) -> CheckpointError {
    input.error(
      .malformed, "field \(field.number) of \(name) has another type", expected: "that of ONNX's schema",
      at: field.offset)
  }

  /// A field that is a whole number.
  func integer(_ field: ProtobufField) throws(CheckpointError) -> Int {
    guard case .varint(let value) = field.value else { throw wrongType(field) }
    return Int(Int64(bitPattern: value))
  }

  /// A field that is bytes.
  func bytes(_ field: ProtobufField) throws(CheckpointError) -> Range<Int> {
    guard case .bytes(let range) = field.value else { throw wrongType(field) }
    return range
  }

  /// A field that is a text.
  func text(_ field: ProtobufField) throws(CheckpointError) -> String { try input.text(bytes(field)) }

  /// A field that is a message.
  func message(_ field: ProtobufField, name: String) throws(CheckpointError) -> ProtobufMessage {
    ProtobufMessage(input, try bytes(field), name: name)
  }

  /// A repeated field of whole numbers, packed or one by one: adds those of this field.
  func integers(_ field: ProtobufField, to list: inout [Int], limit: Int) throws(CheckpointError) {
    if case .varint = field.value {
      list.append(try integer(field))
    } else {
      let range = try bytes(field)
      var place = range.lowerBound
      while place < range.upperBound, list.count <= limit {
        list.append(Int(Int64(bitPattern: try input.varint(at: &place, end: range.upperBound))))
      }
    }
    guard list.count <= limit else {
      throw input.error(
        .overBudget, "more than \(limit) numbers in field \(field.number) of \(name)", at: field.offset)
    }
  }
}
