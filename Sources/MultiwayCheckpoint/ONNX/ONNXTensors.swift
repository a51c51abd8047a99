import MultiwayCore

/// Makes stored tensors of a model's initializers, wherever their elements lie.
struct ONNXTensors {
  private let file: any ByteSource
  /// The files of external data that are open, by the names that the model gives them.
  private var files: [String: MappedFile] = [:]
  /// The same in the order of their first use.
  private(set) var dataFiles: [InputFile] = []
  /// The names of tensors that were left out, for their element type.
  private(set) var unsupported: [String] = []

  /// The most files of external data; older exporters write one for each tensor.
  private static let maximumFiles = 20_000

  init(_ file: any ByteSource) { self.file = file }

  private func error(
    _ code: CheckpointErrorCode, _ found: String, expected: String? = nil, _ tensor: ONNXInitializer
  ) -> CheckpointError {
    CheckpointError(
      code, found, expected: expected, file: file.path, tensor: tensor.name, byteOffset: tensor.offset)
  }

  /// The tensor; nil for an element type that is not read.
  mutating func stored(_ tensor: ONNXInitializer) throws(CheckpointError) -> StoredTensor? {
    guard let shape = Shape(checking: tensor.dimensions) else {
      throw error(
        .malformed, "the shape \(tensor.dimensions)", expected: "sizes of 0 or more that do not overflow", tensor)
    }
    guard let dtype = DType(onnxElementType: tensor.elementType) else {
      unsupported.append(tensor.name)
      return nil
    }
    guard let byteCount = shape.byteCount(of: dtype) else {
      throw error(.malformed, "the shape \(shape) of \(dtype.rawValue) overflows", expected: "fewer elements", tensor)
    }
    let storage = try storage(tensor, dtype, shape.elementCount, byteCount)
    guard storage.byteCount == byteCount else {
      throw error(
        .sizeMismatch, "\(storage.byteCount) bytes of elements",
        expected: "\(byteCount), which the shape \(shape) of \(dtype.rawValue) takes", tensor)
    }
    return StoredTensor(name: tensor.name, dtype: dtype, shape: shape, storage: storage)
  }

  private mutating func storage(
    _ tensor: ONNXInitializer, _ dtype: DType, _ count: Int, _ byteCount: Int
  ) throws(CheckpointError) -> any TensorStorage {
    if tensor.isExternal {
      guard tensor.raw == nil, tensor.typed.isEmpty else {
        throw error(.malformed, "elements both in the model and in another file", expected: "one of them", tensor)
      }
      return try external(tensor, byteCount)
    }
    if let raw = tensor.raw {
      guard tensor.typed.isEmpty else {
        throw error(.malformed, "elements in two fields", expected: "one of them", tensor)
      }
      return FileRange(file: file, range: raw)
    }
    guard let first = tensor.typed.first else { return MemoryStorage(AlignedBuffer(byteCount: 0).bytes) }
    guard tensor.typed.allSatisfy({ $0.field == first.field }), first.field == dtype.onnxField else {
      throw error(
        .malformed, "\(dtype.rawValue) elements in field \(first.field) of the tensor",
        expected: "field \(dtype.onnxField)", tensor)
    }
    if [4, 10].contains(first.field), tensor.typed.count == 1 { return FileRange(file: file, range: first.range) }
    guard ![4, 10].contains(first.field) else {
      throw error(.unsupported, "floating-point numbers in several runs", expected: "one", tensor)
    }
    // A number takes at least a byte, so the elements are no more than eight times as large as what is in the file.
    guard tensor.typed.reduce(0, { $0 + $1.range.count }) >= count else {
      throw error(
        .sizeMismatch, "fewer bytes than the \(count) numbers that the shape \(tensor.dimensions) wants", tensor)
    }
    return VarintStorage(
      file: file, ranges: tensor.typed.map(\.range), width: dtype.byteWidth ?? 1, count: count, name: tensor.name)
  }

  /// The elements in another file, which must lie in the model's folder.
  private mutating func external(
    _ tensor: ONNXInitializer, _ byteCount: Int
  ) throws(CheckpointError) -> any TensorStorage {
    func entry(_ key: String) -> String? { tensor.external.last { $0.key == key }?.value }
    guard let location = entry("location"), !location.isEmpty, let offset = Int(entry("offset") ?? "0"), offset >= 0,
      let length = Int(entry("length") ?? String(byteCount)), length >= 0
    else {
      throw error(
        .malformed, "external data without a location or with an impossible place",
        expected: "a file name, an offset and a length", tensor)
    }
    let data = try open(location, tensor)
    guard offset <= data.byteCount, length <= data.byteCount - offset else {
      throw error(
        .truncated, "external data from byte \(offset) on, \(length) bytes, in '\(location)' of \(data.byteCount)",
        expected: "bytes within the file", tensor)
    }
    return FileRange(file: data, range: offset..<offset + length)
  }

  private mutating func open(_ location: String, _ tensor: ONNXInitializer) throws(CheckpointError) -> MappedFile {
    if let file = files[location] { return file }
    guard files.count < ONNXTensors.maximumFiles else {
      throw error(.overBudget, "more than \(ONNXTensors.maximumFiles) files of external data", tensor)
    }
    do throws(FileError) {
      let folder = try Folder(path: ModelFolder.folder(of: file.path))
      let data = try folder.open(location)
      files[location] = data
      dataFiles.append(InputFile(data))
      return data
    } catch {
      var diagnosis = error.diagnosis
      diagnosis.tensor = tensor.name
      switch error.code {
      case .leavesFolder: throw CheckpointError(.leavesFolder, diagnosis)
      case .notFound:
        diagnosis.remedy = "put the data file of the model beside it, under the name that it has there"
        throw CheckpointError(.missingRecord, diagnosis)
      default: throw CheckpointError(.missingRecord, diagnosis)
      }
    }
  }
}

extension DType {
  /// The dtype of ONNX's number of an element type, nil for texts, packed integers and what is unknown.
  init?(onnxElementType number: Int) {
    switch number {
    case 1: self = .f32
    case 2: self = .u8
    case 3: self = .i8
    case 4: self = .u16
    case 5: self = .i16
    case 6: self = .i32
    case 7: self = .i64
    case 9: self = .bool
    case 10: self = .f16
    case 11: self = .f64
    case 12: self = .u32
    case 13: self = .u64
    case 14: self = .c64
    case 15: self = .c128
    case 16: self = .bf16
    case 17: self = .f8e4m3
    case 18: self = .f8e4m3fnuz
    case 19: self = .f8e5m2
    case 20: self = .f8e5m2fnuz
    case 24: self = .f8e8m0
    default: return nil
    }
  }

  /// The field of a TensorProto that holds elements of the type where they are not raw bytes.
  fileprivate var onnxField: Int {
    switch self {
    case .f32, .c64: 4
    case .i64: 7
    case .f64, .c128: 10
    case .u32, .u64: 11
    default: 5
    }
  }
}

/// Elements that stand in the file as protobuf's numbers of variable length, brought to their width when they are asked for.
private final class VarintStorage: TensorStorage {
  private let file: any ByteSource
  private let ranges: [Range<Int>]
  private let width: Int
  private let count: Int
  private let name: String

  init(file: any ByteSource, ranges: [Range<Int>], width: Int, count: Int, name: String) {
    self.file = file
    self.ranges = ranges
    self.width = width
    self.count = count
    self.name = name
  }

  var byteCount: Int { count * width }

  func load() throws(TensorError) -> TensorBytes {
    let result = AlignedBuffer(byteCount: byteCount)
    try result.fill { (target) throws(TensorError) in try decode(into: &target) }
    return result.bytes
  }

  private func decode(into target: inout MutableRawSpan) throws(TensorError) {
    var done = 0
    for range in ranges {
      let bytes = try file.bytes(in: range)
      let span = bytes.span
      var place = 0
      while place < span.byteCount {
        guard done < count else { throw wrong("more than the \(count) numbers of its shape") }
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
          guard place < span.byteCount, shift < 70 else { throw wrong("a number that does not end") }
          let byte = span.byte(at: place)
          place += 1
          value |= UInt64(byte & 0x7F) << shift
          shift += 7
          if byte & 0x80 == 0 { break }
        }
        for index in 0..<width {
          target.storeBytes(
            of: UInt8(truncatingIfNeeded: value >> UInt64(8 * index)), toByteOffset: done * width + index,
            as: UInt8.self)
        }
        done += 1
      }
    }
    guard done == count else { throw wrong("\(done) numbers, where its shape has \(count)") }
  }

  private func wrong(_ found: String) -> TensorError {
    TensorError(.corrupt, found, expected: "\(count) numbers", file: file.path, tensor: name)
  }

  func discard() {
    for range in ranges { file.discard(range) }
  }
}
