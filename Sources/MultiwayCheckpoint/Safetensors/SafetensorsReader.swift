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
  /// The most tensors of a file, and members of its metadata.
  static let maximumTensors = 65_536
  /// How much memory the values of an entry may take.
  private static let entryAllowance = 1 << 20
  /// How much of a header stays in memory behind the reader.
  private static let keptSize = 8 << 20
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
    let dataOffset = prefixSize + header.byteCount
    let (places, metadata) = try parse(header, of: file)
    try checkLayout(places, dataSize: file.byteCount - dataOffset, path: file.path)
    let tensors = places.map { place in
      let range = dataOffset + place.range.lowerBound..<dataOffset + place.range.upperBound
      return StoredTensor(
        name: place.name, dtype: place.dtype, shape: place.shape, storage: FileRange(file: file, range: range))
    }
    return Checkpoint(
      format: formatName, file: file, stateDicts: [StateDict(name: "", tensors: tensors)],
      metadata: metadata)
  }

  private static func headerBytes(_ file: any ByteSource) throws(CheckpointError) -> TensorBytes {
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
    return try file.contents(in: prefixSize..<prefixSize + count)
  }

  /// Reads a header entry by entry: a text of many megabytes is not held as values, and its pages are let go behind the reader.
  private static func parse(
    _ header: TensorBytes, of file: any ByteSource
  ) throws(CheckpointError) -> (places: [Place], metadata: JSONObject) {
    var places: [Place] = []
    var metadata = JSONObject()
    do {
      var parser = JSONParser(header)
      guard try parser.beginObject() else {
        _ = try JSONParser.parse(header)
        throw CheckpointError(
          .malformed, "the header is not a JSON object", file: file.path, byteOffset: prefixSize)
      }
      var names: Set<String> = []
      // A set that grows hashes all names anew, and they may be all of the header. No entry has fewer bytes than this.
      names.reserveCapacity(min(maximumTensors, header.byteCount / 50))
      var kept = 0
      func release(_ offset: Int) {
        guard offset - kept > keptSize else { return }
        file.discard(prefixSize + kept..<prefixSize + offset)
        kept = offset
      }
      while let (name, offset) = try parser.nextMember() {
        guard names.insert(name).inserted else { throw JSONError.twice(name, at: offset) }
        if name == metadataKey {
          metadata = try readMetadata(&parser, path: file.path, release)
        } else {
          guard places.count < maximumTensors else {
            throw CheckpointError(
              .overBudget, "more than \(maximumTensors) tensors", remedy: "split the file into shards", file: file.path,
              byteOffset: prefixSize + offset)
          }
          places.append(
            try Place(name: name, entry: try parser.value(allowance: entryAllowance), path: file.path))
        }
        release(parser.offset)
      }
      try parser.end()
    } catch let error as CheckpointError {
      throw error
    } catch let error as JSONError {
      throw CheckpointError(
        error.isDuplicate ? .duplicateName : .malformed, "the header: \(error.message)", file: file.path,
        byteOffset: prefixSize + error.byteOffset)
    } catch {
      throw CheckpointError(.malformed, "the header: \(error)", file: file.path)
    }
    return (places, metadata)
  }

  private static func readMetadata(
    _ parser: inout JSONParser, path: String, _ release: (_ offset: Int) -> Void
  ) throws -> JSONObject {
    var metadata = JSONObject()
    let odd = CheckpointError(.malformed, "\(metadataKey) is not an object of strings", file: path)
    guard try parser.beginObject() else { throw odd }
    while let (key, offset) = try parser.nextMember() {
      guard metadata[key] == nil else { throw JSONError.twice(key, at: offset) }
      guard metadata.members.count < maximumTensors else {
        throw CheckpointError(.overBudget, "more than \(maximumTensors) members of \(metadataKey)", file: path)
      }
      guard case .string(let value) = try parser.value(allowance: 2 * JSONParser.maximumString) else { throw odd }
      metadata[key] = .string(value)
      release(parser.offset)
    }
    return metadata
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
