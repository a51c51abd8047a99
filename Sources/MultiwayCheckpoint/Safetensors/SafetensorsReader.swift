public import MultiwayCore

/// Reads safetensors files by the rules of the reference implementation, and stricter in one: a name may stand only once.
public enum SafetensorsReader: CheckpointReader {
  /// `safetensors`.
  public static let formatName = "safetensors"
  /// What is read.
  public static let summary =
    "every dtype is listed and copied; packed and exotic 8-bit floats, and complex numbers, are not computed with"

  /// The largest header that the format allows, in bytes.
  static let maximumHeaderSize = 100_000_000
  static let metadataKey = "__metadata__"
  static let prefixSize = 8

  /// The format has no magic: a plausible length followed by the start of a JSON text is as near as one gets.
  public static func recognizes(_ header: RawSpan) -> Bool {
    guard let length = header.load(UInt64.self, at: 0), header.byteCount > prefixSize else { return false }
    switch header.byte(at: prefixSize) {
    case UInt8(ascii: "{"): return true
    case UInt8(ascii: "["), 0x20, 0x09, 0x0A, 0x0D, 0xEF: return length <= maximumHeaderSize
    default: return false
    }
  }

  /// Reads the header and checks everything in it; tensor bytes are not touched.
  public static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    let header = try headerBytes(file)
    let dataOffset = prefixSize + header.count
    let entries = try parse(header, path: file.path)
    var places: [Place] = []
    places.reserveCapacity(entries.members.count)
    for (name, value) in entries.members where name != metadataKey {
      places.append(try Place(name: name, entry: value, path: file.path))
    }
    try checkLayout(places, dataSize: file.byteCount - dataOffset, path: file.path)
    let tensors = places.map { place in
      let range = dataOffset + place.range.lowerBound..<dataOffset + place.range.upperBound
      return StoredTensor(
        name: place.name, dtype: place.dtype, shape: place.shape, storage: FileRange(file: file, range: range))
    }
    return Checkpoint(
      format: formatName, file: file, stateDicts: [StateDict(name: "", tensors: tensors)],
      metadata: try metadata(entries[metadataKey], path: file.path))
  }

  private static func headerBytes(_ file: any ByteSource) throws(CheckpointError) -> [UInt8] {
    let prefix = try file.contents(in: 0..<min(prefixSize, file.byteCount))
    guard let length = prefix.span.load(UInt64.self, at: 0) else {
      throw CheckpointError(.truncated, "the file has \(file.byteCount) bytes", expected: "at least 8", file: file.path)
    }
    guard let count = Int(exactly: length), count <= maximumHeaderSize else {
      throw CheckpointError(
        .malformed, "a header of \(length) bytes", expected: "at most \(maximumHeaderSize)", file: file.path,
        byteOffset: 0)
    }
    guard count <= file.byteCount - prefixSize else {
      throw CheckpointError(
        .truncated, "a header of \(count) bytes in a file of \(file.byteCount)",
        remedy: "the download or copy is incomplete: fetch the file again", file: file.path, byteOffset: 0)
    }
    guard count <= file.headerLimit else {
      throw CheckpointError(
        .overBudget, "a header of \(count) bytes in a compressed file of \(file.fileByteCount)",
        expected: "at most \(file.headerLimit)", file: file.path, byteOffset: 0)
    }
    return try file.contents(in: prefixSize..<prefixSize + count).array(of: UInt8.self)
  }

  private static func parse(_ header: [UInt8], path: String) throws(CheckpointError) -> JSONObject {
    do throws(JSONError) {
      if case .object(let object) = try JSONParser.parse(header) { return object }
    } catch {
      throw CheckpointError(
        error.message.hasSuffix("stands twice") ? .duplicateName : .malformed, "the header: \(error.message)",
        file: path, byteOffset: prefixSize + error.byteOffset)
    }
    throw CheckpointError(.malformed, "the header is not a JSON object", file: path, byteOffset: prefixSize)
  }

  private static func metadata(_ value: JSONValue?, path: String) throws(CheckpointError) -> JSONObject {
    guard let value else { return JSONObject() }
    guard case .object(let object) = value, object.members.allSatisfy({ $0.value.string != nil }) else {
      throw CheckpointError(.malformed, "\(metadataKey) is not an object of strings", file: path)
    }
    return object
  }

  /// The tensors must fill the data section from its first to its last byte, without holes or overlaps.
  private static func checkLayout(_ places: [Place], dataSize: Int, path: String) throws(CheckpointError) {
    let order = places.sorted {
      ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound)
    }
    var end = 0
    for place in order {
      guard place.range.lowerBound == end else {
        throw CheckpointError(
          .malformed,
          place.range.lowerBound < end ? "the tensor overlaps another" : "there is a hole before the tensor",
          expected: "data_offsets that start at \(end), not at \(place.range.lowerBound)", file: path,
          tensor: place.name)
      }
      end = place.range.upperBound
    }
    guard end <= dataSize else {
      throw CheckpointError(
        .truncated, "the tensors take \(end) bytes, but \(dataSize) follow the header",
        remedy: "the download or copy is incomplete: fetch the file again", file: path)
    }
    guard end == dataSize else {
      throw CheckpointError(
        .trailingData, "\(dataSize - end) bytes follow the last tensor", expected: "the end of the file", file: path,
        byteOffset: dataSize)
    }
  }
}

extension SafetensorsReader {
  /// One entry of the header, checked by itself.
  private struct Place {
    var name: String
    var dtype: DType
    var shape: Shape
    var range: Range<Int>

    init(name: String, entry: JSONValue, path: String) throws(CheckpointError) {
      func malformed(_ found: String, _ expected: String) -> CheckpointError {
        CheckpointError(.malformed, found, expected: expected, file: path, tensor: name)
      }
      guard case .object(let fields) = entry else { throw malformed("the entry is no JSON object", "an object") }
      guard let dtypeName = fields["dtype"]?.string else { throw malformed("there is no dtype", "a string") }
      guard let dtype = DType(rawValue: dtypeName), dtype != .c128 else {
        throw malformed(
          "dtype '\(dtypeName)'",
          "one of " + DType.allCases.filter { $0 != .c128 }.map(\.rawValue).joined(separator: ", "))
      }
      guard let dimensions = SafetensorsReader.integers(fields["shape"]) else {
        throw malformed("the shape is missing or odd", "an array of integers from 0 to 2^63 - 1")
      }
      guard let shape = Shape(checking: dimensions),
        !shape.elementCount.multipliedReportingOverflow(by: dtype.bitWidth).overflow
      else { throw malformed("the shape \(dimensions) of \(dtype.rawValue) overflows", "fewer elements") }
      guard let size = shape.byteCount(of: dtype) else {
        throw malformed("the shape \(dimensions) of \(dtype.rawValue) does not fill whole bytes", "whole bytes")
      }
      guard let offsets = SafetensorsReader.integers(fields["data_offsets"]), offsets.count == 2,
        offsets[0] <= offsets[1]
      else { throw malformed("data_offsets is missing or odd", "two integers, the first not above the second") }
      guard offsets[1] - offsets[0] == size else {
        throw CheckpointError(
          .sizeMismatch, "data_offsets span \(offsets[1] - offsets[0]) bytes",
          expected: "\(size), which the shape \(shape) of \(dtype.rawValue) takes", file: path, tensor: name)
      }
      self.name = name
      self.dtype = dtype
      self.shape = shape
      range = offsets[0]..<offsets[1]
    }
  }

  private static func integers(_ value: JSONValue?) -> [Int]? {
    guard case .array(let elements) = value else { return nil }
    var integers: [Int] = []
    for element in elements {
      guard case .integer(let integer) = element, integer >= 0 else { return nil }
      integers.append(integer)
    }
    return integers
  }
}
