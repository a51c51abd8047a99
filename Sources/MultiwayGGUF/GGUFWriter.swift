public import MultiwayCore

/// Writes a GGUF v3 file as a stream: the header at once, then the tensors' bytes in the order in which they were declared.
///
///     var writer = try GGUFWriter(path: path, metadata: [("general.architecture", .string("beit3"))], tensors: infos)
///     for tensor in tensors { try writer.writeTensor(bytes(of: tensor).span) }
///     try writer.finish()
///
/// The file appears under its name whole or not at all.
public struct GGUFWriter: ~Copyable {
  /// The longest tensor name in bytes that every GGUF reader accepts.
  public static let maximumNameSize = GGUFHeader.maximumNameSize
  /// The largest number of dimensions that GGUF allows.
  public static let maximumRank = GGUFHeader.maximumRank

  private var output: OutputFile
  private let path: String
  private let pairs: [(key: String, value: GGUFValue)]
  private let tensors: [GGUFTensorInfo]
  private let alignment: Int
  private let headerSize: Int
  private var digest = TensorDigest()
  /// The digests of the tensors in their order; of those that are not complete, that of no bytes.
  public private(set) var tensorDigests: [String]
  private var index: Int
  private var left: Int

  /// Starts a file and writes its header.
  /// - Parameters:
  ///   - inputs: files that are being read; the output may not be one of them.
  ///   - metadata: the pairs in file order; `general.alignment` is added after `general.architecture` when it is missing.
  ///   - tensors: name, dimensions (outermost first) and type of each tensor, in the order in which the bytes will come.
  ///   - alignment: what every tensor's position is a multiple of, a power of two.
  public init(
    path: String, overwrite: Bool = false, inputs: [FileIdentity] = [], metadata: [(key: String, value: GGUFValue)],
    tensors: [(name: String, dimensions: [Int], type: GGUFType)], alignment: Int = 64
  ) throws {
    precondition(alignment > 0 && alignment.nonzeroBitCount == 1 && alignment <= 1 << 30)
    let pairs = try GGUFWriter.complete(metadata, alignment: alignment, path: path)
    let placed = try GGUFWriter.place(tensors, alignment: alignment, path: path)
    var header = GGUFEncoder()
    header.append(pairs: pairs, tensors: placed)
    var output = try OutputFile(path: path, overwrite: overwrite, inputs: inputs)
    try output.write(header.bytes)
    try output.pad(toMultipleOf: alignment)
    let first = placed.firstIndex { $0.byteCount > 0 } ?? placed.count
    self.output = output
    self.path = path
    self.pairs = pairs
    self.tensors = placed
    headerSize = header.bytes.count
    tensorDigests = [String](repeating: digest.finish(), count: placed.count)
    self.alignment = alignment
    index = first
    left = first < placed.count ? placed[first].byteCount : 0
  }

  /// The tensors with the offsets that they have in the file.
  public var placedTensors: [GGUFTensorInfo] { tensors }

  /// Writes bytes of the current tensor: all of them, or the next part. When a tensor is complete, the next call starts
  /// the next one; tensors without elements need no call.
  public mutating func writeTensor(_ bytes: borrowing RawSpan) throws {
    guard index < tensors.count else {
      if bytes.byteCount == 0 { return }
      throw GGUFError(.wrongSize, "more bytes than the declared tensors have", file: path)
    }
    guard bytes.byteCount <= left else {
      throw GGUFError(
        .wrongSize, "\(bytes.byteCount) bytes", expected: "at most \(left), which the tensor still lacks", file: path,
        tensor: tensors[index].name)
    }
    digest.update(bytes)
    try output.write(bytes)
    left -= bytes.byteCount
    if left == 0 { try startNextTensor() }
  }

  /// Makes the file appear under its name. Where `HeaderDigest.placeholder` is the value of `multiway.digest`, the digest takes its place.
  /// - Parameter values: metadata values that were not known when the header was written; each takes the place of one of the same size.
  public consuming func finish(filling values: [(key: String, value: GGUFValue)] = []) throws {
    guard index >= tensors.count else {
      throw GGUFError(.wrongSize, "the tensor lacks \(left) bytes", file: path, tensor: tensors[index].name)
    }
    var filled = pairs.map { pair in values.first { $0.key == pair.key } ?? pair }
    let place = filled.firstIndex { $0.key == GGUFDigests.algorithm && $0.value == .string(HeaderDigest.placeholder) }
    if let place { filled[place].value = .string(headerDigest(try header(filled))) }
    if place != nil || !values.isEmpty { try output.rewrite(try header(filled), at: 0) }
    try output.commit()
  }

  /// The bytes of the header with values that were not known when it was written.
  private func header(_ pairs: [(key: String, value: GGUFValue)]) throws(GGUFError) -> [UInt8] {
    var header = GGUFEncoder()
    header.append(pairs: pairs, tensors: tensors)
    guard header.bytes.count == headerSize else {
      throw GGUFError(
        .wrongSize, "a header of \(header.bytes.count) bytes", expected: "\(headerSize), as was written before",
        file: path)
    }
    return header.bytes
  }

  /// The digest of the header and of what fills the space before and between the tensors.
  private func headerDigest(_ header: [UInt8]) -> String {
    func filler(behind size: Int) -> [UInt8] {
      [UInt8](repeating: 0, count: (alignment - size % alignment) % alignment)
    }
    var digest = HeaderDigest()
    digest.update(header)
    digest.update(filler(behind: header.count))
    for tensor in tensors { digest.update(filler(behind: tensor.byteCount)) }
    return digest.finish()
  }

  private mutating func startNextTensor() throws {
    tensorDigests[index] = digest.finish()
    try output.pad(toMultipleOf: alignment)
    repeat { index += 1 } while index < tensors.count && tensors[index].byteCount == 0
    left = index < tensors.count ? tensors[index].byteCount : 0
  }

  /// `value` rounded up to a multiple of `alignment`, nil on overflow.
  static func rounded(_ value: Int, to alignment: Int) -> Int? {
    let (sum, overflow) = value.addingReportingOverflow(alignment - 1)
    return overflow ? nil : sum & ~(alignment - 1)
  }

  private static func complete(
    _ metadata: [(key: String, value: GGUFValue)], alignment: Int, path: String
  ) throws(GGUFError) -> [(key: String, value: GGUFValue)] {
    var pairs = metadata
    if !pairs.contains(where: { $0.key == GGUFHeader.alignmentKey }) {
      let architecture = pairs.firstIndex { $0.key == "general.architecture" }
      pairs.insert(
        (GGUFHeader.alignmentKey, .u32(UInt32(alignment))), at: architecture.map { $0 + 1 } ?? pairs.startIndex)
    }
    var keys: Set<String> = []
    for (key, value) in pairs {
      guard !key.isEmpty, key.utf8.count <= GGUFHeader.maximumKeySize, keys.insert(key).inserted else {
        throw GGUFError(.badName, "the metadata key '\(key)' is empty, too long, or stands twice", file: path)
      }
      if key == GGUFHeader.alignmentKey, value != .u32(UInt32(alignment)) {
        throw GGUFError(.badAlignment, "\(key) is \(value)", expected: "u32 \(alignment)", file: path)
      }
    }
    return pairs
  }

  private static func place(
    _ tensors: [(name: String, dimensions: [Int], type: GGUFType)], alignment: Int, path: String
  ) throws(GGUFError) -> [GGUFTensorInfo] {
    var placed: [GGUFTensorInfo] = []
    var names: Set<String> = []
    var end = 0
    for (name, dimensions, type) in tensors {
      guard name.utf8.count <= GGUFHeader.maximumNameSize, names.insert(name).inserted else {
        throw GGUFError(
          .badName, "the tensor name is longer than \(GGUFHeader.maximumNameSize) bytes, or stands twice", file: path,
          tensor: name)
      }
      guard dimensions.count <= GGUFHeader.maximumRank, let size = type.byteCount(of: dimensions) else {
        throw GGUFError(
          .badShape, "dimensions \(dimensions) of type \(type.name)",
          expected: "at most \(GGUFHeader.maximumRank) dimensions, the last a multiple of \(type.blockSize)",
          file: path,
          tensor: name)
      }
      placed.append(GGUFTensorInfo(name: name, dimensions: dimensions, type: type, offset: end))
      let (last, overflow) = end.addingReportingOverflow(size)
      guard !overflow, let next = rounded(last, to: alignment) else {
        throw GGUFError(.badShape, "the tensors together take more than 2^63 bytes", file: path, tensor: name)
      }
      end = next
    }
    return placed
  }
}

/// The bytes of a GGUF header.
struct GGUFEncoder {
  private(set) var bytes: [UInt8] = []

  mutating func append(pairs: [(key: String, value: GGUFValue)], tensors: [GGUFTensorInfo]) {
    bytes += GGUFHeader.magic
    append(UInt32(3))
    append(UInt64(tensors.count))
    append(UInt64(pairs.count))
    for (key, value) in pairs {
      append(key)
      append(value.type.rawValue)
      append(value)
    }
    for tensor in tensors {
      append(tensor.name)
      append(UInt32(tensor.dimensions.count))
      for dimension in tensor.dimensions.reversed() { append(UInt64(dimension)) }
      append(tensor.type.rawValue)
      append(UInt64(tensor.offset))
    }
  }

  private mutating func append<T: FixedWidthInteger>(_ value: T) {
    for shift in stride(from: 0, to: T.bitWidth, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
  }

  private mutating func append(_ text: String) {
    append(UInt64(text.utf8.count))
    bytes += text.utf8
  }

  private mutating func append(_ value: GGUFValue) {
    switch value {
    case .u8(let value): append(value)
    case .i8(let value): append(value)
    case .u16(let value): append(value)
    case .i16(let value): append(value)
    case .u32(let value): append(value)
    case .i32(let value): append(value)
    case .u64(let value): append(value)
    case .i64(let value): append(value)
    case .f32(let value): append(value.bitPattern)
    case .f64(let value): append(value.bitPattern)
    case .bool(let value): append(UInt8(value ? 1 : 0))
    case .string(let value): append(value)
    case .array(let array):
      append(array.elementType.rawValue)
      append(UInt64(array.count))
      if case .u8(let elements) = array {
        bytes += elements
      } else {
        for element in array.values { append(element) }
      }
    }
  }
}
