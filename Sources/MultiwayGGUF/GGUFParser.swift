import MultiwayCore

/// Reads the header of a GGUF file. Every count is compared with the bytes that are left before anything is allocated.
struct GGUFParser: ~Escapable {
  private var reader: ByteReader
  private let fileSize: Int
  private let path: String
  private var header = GGUFHeader()
  /// True after an error where the header goes on behind the bytes that were given: more of them would tell.
  private(set) var needsMore = false

  /// Reads `bytes`, with which a file of `fileSize` bytes starts.
  @_lifetime(copy bytes)
  init(_ bytes: RawSpan, fileSize: Int, path: String) {
    reader = ByteReader(bytes)
    self.fileSize = fileSize
    self.path = path
  }

  /// How many bytes of the file are left.
  private var remaining: Int { fileSize - reader.offset }

  mutating func parse() throws(GGUFError) -> GGUFHeader {
    try readMagicAndVersion()
    let tensorCount = try readCount("tensors", minimumSize: 24)
    let pairCount = try readCount("metadata pairs", minimumSize: 14)
    for _ in 0..<pairCount { try readPair() }
    try readAlignment()
    for _ in 0..<tensorCount { try readTensor() }
    try placeData()
    return header
  }

  private func error(
    _ code: GGUFErrorCode, _ found: String, expected: String? = nil, remedy: String? = nil, tensor: String? = nil,
    at offset: Int? = nil
  ) -> GGUFError {
    GGUFError(
      code, found, expected: expected, remedy: remedy, file: path, tensor: tensor, byteOffset: offset ?? reader.offset)
  }

  private mutating func readMagicAndVersion() throws(GGUFError) {
    guard reader.bytes.starts(with: GGUFHeader.magic) else {
      throw error(.badMagic, "the file does not start with the magic of GGUF", expected: "\"GGUF\"")
    }
    _ = reader.skip(GGUFHeader.magic.count)
    let version = try read(UInt32.self, "the version")
    if version != 0, version & 0xFFFF == 0 {
      throw error(
        .badVersion, "this is a big-endian GGUF file", expected: "a little-endian file",
        remedy: "convert it on the machine that made it, with gguf_convert_endian.py", at: 4)
    }
    guard version == 2 || version == 3 else {
      throw error(.badVersion, "GGUF version \(version)", expected: "version 2 or 3", at: 4)
    }
    header.version = Int(version)
  }

  private mutating func read<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type, _ what: String
  ) throws(GGUFError) -> T {
    guard let value = reader.read(type) else { throw ended(in: what) }
    return value
  }

  private mutating func ended(in what: String) -> GGUFError {
    needsMore = reader.bytes.byteCount < fileSize
    return error(.truncated, "the file ends in \(what)")
  }

  /// The most tensors, and the most metadata pairs: parsed they take several times the bytes that they may have in the file.
  private static let maximumCount = 65_536

  /// Reads a count of things that take at least `minimumSize` bytes each.
  private mutating func readCount(_ what: String, minimumSize: Int) throws(GGUFError) -> Int {
    let start = reader.offset
    let raw = try read(UInt64.self, "the number of \(what)")
    guard let count = Int(exactly: raw), count <= remaining / minimumSize else {
      throw error(
        raw > UInt64(Int.max) ? .malformed : .truncated, "\(raw) \(what) in a file of \(fileSize) bytes",
        expected: "at most \(remaining / minimumSize)", at: start)
    }
    guard count <= GGUFParser.maximumCount else {
      throw error(.malformed, "\(count) \(what)", expected: "at most \(GGUFParser.maximumCount)", at: start)
    }
    return count
  }

  private mutating func readString(_ what: String, limit: Int? = nil) throws(GGUFError) -> String {
    let start = reader.offset
    let raw = try read(UInt64.self, "the length of \(what)")
    guard let count = Int(exactly: raw), count <= remaining else {
      throw error(
        .truncated, "\(what) of \(raw) bytes", expected: "at most \(remaining), which are left", at: start)
    }
    if let limit, count > limit {
      throw error(.badName, "\(what) of \(count) bytes", expected: "at most \(limit)", at: start)
    }
    guard let bytes = reader.readBytes(count) else { throw ended(in: what) }
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw error(.badName, "\(what) is not UTF-8", at: start)
    }
    return text
  }

  private mutating func readPair() throws(GGUFError) {
    let start = reader.offset
    let key = try readString("a metadata key", limit: GGUFHeader.maximumKeySize)
    guard !key.isEmpty else { throw error(.badName, "an empty metadata key", at: start) }
    guard header.keys.updateValue(header.metadata.count, forKey: key) == nil else {
      throw error(.badName, "the metadata key '\(key)' stands twice", at: start)
    }
    header.metadata.append((key, try readValue(try readValueType())))
  }

  private mutating func readValueType() throws(GGUFError) -> GGUFValueType {
    let start = reader.offset
    let raw = try read(UInt32.self, "a value type")
    guard let type = GGUFValueType(rawValue: raw) else {
      throw error(.malformed, "metadata value type \(raw)", expected: "0 to 12", at: start)
    }
    return type
  }

  private mutating func readValue(_ type: GGUFValueType) throws(GGUFError) -> GGUFValue {
    switch type {
    case .u8: .u8(try read(UInt8.self, "a value"))
    case .i8: .i8(try read(Int8.self, "a value"))
    case .u16: .u16(try read(UInt16.self, "a value"))
    case .i16: .i16(try read(Int16.self, "a value"))
    case .u32: .u32(try read(UInt32.self, "a value"))
    case .i32: .i32(try read(Int32.self, "a value"))
    case .u64: .u64(try read(UInt64.self, "a value"))
    case .i64: .i64(try read(Int64.self, "a value"))
    case .f32: .f32(Float(bitPattern: try read(UInt32.self, "a value")))
    case .f64: .f64(Double(bitPattern: try read(UInt64.self, "a value")))
    case .bool: .bool(try read(UInt8.self, "a value") != 0)
    case .string: .string(try readString("a string"))
    case .array: .array(try readArray())
    }
  }

  private mutating func readArray() throws(GGUFError) -> GGUFArray {
    let start = reader.offset
    let type = try readValueType()
    guard type != .array else {
      throw error(.malformed, "an array of arrays", expected: "an array of plain values", at: start)
    }
    let count = try readCount("array elements", minimumSize: type.minimumSize)
    switch type {
    case .u8: return .u8(try numbers(count, UInt8.self))
    case .i8: return .i8(try numbers(count, Int8.self))
    case .u16: return .u16(try numbers(count, UInt16.self))
    case .i16: return .i16(try numbers(count, Int16.self))
    case .u32: return .u32(try numbers(count, UInt32.self))
    case .i32: return .i32(try numbers(count, Int32.self))
    case .u64: return .u64(try numbers(count, UInt64.self))
    case .i64: return .i64(try numbers(count, Int64.self))
    case .f32: return .f32(try numbers(count, UInt32.self).map { Float(bitPattern: $0) })
    case .f64: return .f64(try numbers(count, UInt64.self).map { Double(bitPattern: $0) })
    case .bool: return .bool(try numbers(count, UInt8.self).map { $0 != 0 })
    case .string, .array:
      var strings: [String] = []
      strings.reserveCapacity(min(count, reader.remaining / 8))
      for _ in 0..<count { strings.append(try readString("a string")) }
      return .string(strings)
    }
  }

  private mutating func numbers<T: FixedWidthInteger & BitwiseCopyable>(
    _ count: Int, _ type: T.Type
  ) throws(GGUFError) -> [T] {
    var numbers: [T] = []
    numbers.reserveCapacity(min(count, reader.remaining / MemoryLayout<T>.size))
    for _ in 0..<count { numbers.append(try read(type, "an array")) }
    return numbers
  }

  private mutating func readAlignment() throws(GGUFError) {
    guard let position = header.keys[GGUFHeader.alignmentKey] else { return }
    guard case .u32(let value) = header.metadata[position].value, value.nonzeroBitCount == 1 else {
      throw error(
        .badAlignment, "\(GGUFHeader.alignmentKey) is \(header.metadata[position].value)",
        expected: "a power of two of type u32")
    }
    header.alignment = Int(value)
  }

  private mutating func readTensor() throws(GGUFError) {
    let start = reader.offset
    let name = try readString("a tensor name", limit: GGUFHeader.maximumNameSize)
    guard header.names.updateValue(header.tensors.count, forKey: name) == nil else {
      throw error(.badName, "the tensor name stands twice", tensor: name, at: start)
    }
    let dimensions = try readDimensions(name)
    let typeOffset = reader.offset
    let rawType = try read(UInt32.self, "a tensor type")
    guard let type = GGUFType(rawValue: rawType) else {
      throw error(
        .badType, "tensor type \(Int32(bitPattern: rawType))",
        expected: "one of " + GGUFType.allCases.map { "\($0.rawValue) \($0.name)" }.joined(separator: ", "),
        tensor: name, at: typeOffset)
    }
    guard type.byteCount(of: dimensions) != nil else {
      throw error(
        .badShape, "dimensions \(dimensions) of type \(type.name)",
        expected: type.isPlain ? "a size below 2^63" : "a last dimension that is a multiple of \(type.blockSize)",
        tensor: name, at: start)
    }
    let offsetOffset = reader.offset
    let rawOffset = try read(UInt64.self, "a tensor offset")
    guard let offset = Int(exactly: rawOffset) else {
      throw error(.badOffset, "offset \(rawOffset)", tensor: name, at: offsetOffset)
    }
    header.tensors.append(GGUFTensorInfo(name: name, dimensions: dimensions, type: type, offset: offset))
  }

  private mutating func readDimensions(_ name: String) throws(GGUFError) -> [Int] {
    let start = reader.offset
    let rank = try read(UInt32.self, "a number of dimensions")
    guard rank <= GGUFHeader.maximumRank else {
      throw error(
        .badShape, "\(rank) dimensions", expected: "at most \(GGUFHeader.maximumRank)", tensor: name, at: start)
    }
    var dimensions: [Int] = []
    for _ in 0..<rank {
      let raw = try read(UInt64.self, "a dimension")
      guard let dimension = Int(exactly: raw) else {
        throw error(
          .badShape, "a dimension of \(Int64(bitPattern: raw))", expected: "0 or more", tensor: name, at: start)
      }
      dimensions.append(dimension)
    }
    return dimensions.reversed()
  }

  /// Finds the data section and checks that the tensors fill it one after the other, each padded to the alignment.
  private mutating func placeData() throws(GGUFError) {
    guard let dataOffset = GGUFWriter.rounded(reader.offset, to: header.alignment) else {
      throw error(.badAlignment, "an alignment of \(header.alignment)")
    }
    header.dataOffset = dataOffset
    var end = 0
    for tensor in header.tensors {
      guard tensor.offset == end else {
        throw error(
          .badOffset, "offset \(tensor.offset)",
          expected: "\(end), right after the tensor before it, padded",
          tensor: tensor.name, at: dataOffset)
      }
      let (last, overflow) = end.addingReportingOverflow(tensor.byteCount)
      guard !overflow, let next = GGUFWriter.rounded(last, to: header.alignment) else {
        throw error(.badShape, "the tensors together take more than 2^63 bytes", tensor: tensor.name)
      }
      guard next <= max(0, fileSize - dataOffset) else {
        throw error(
          .truncated,
          "the tensor (\(tensor.byteCount) bytes and its padding) leaves the file of \(fileSize)",
          remedy: "the download or copy is incomplete: fetch the file again", tensor: tensor.name, at: dataOffset)
      }
      end = next
    }
  }
}
