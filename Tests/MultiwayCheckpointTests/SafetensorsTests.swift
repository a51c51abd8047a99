import MultiwayCheckpoint
import MultiwayCore
import MultiwayGGUF
import Testing

@Suite struct SafetensorsTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func file(_ header: String, data: [UInt8] = floats(6), length: UInt64? = nil) -> [UInt8] {
    let count = length ?? UInt64(header.utf8.count)
    return (0..<8).map { UInt8(truncatingIfNeeded: count >> ($0 * 8)) } + Array(header.utf8) + data
  }

  private func entry(_ shape: String = "[6]", _ offsets: String = "[0,24]", dtype: String = "\"F32\"") -> String {
    "{\"w\":{\"dtype\":\(dtype),\"shape\":\(shape),\"data_offsets\":\(offsets)}}"
  }

  private func code(_ bytes: [UInt8]) throws -> CheckpointErrorCode? {
    let path = try folder.write(bytes)
    return errorCode { try readEverything(path) }
  }

  @Test func reads() throws {
    let header =
      "{\"__metadata__\":{\"format\":\"pt\"},\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24],\"x\":1}} "
    let checkpoint = try CheckpointFormats.open(path: try folder.write(file(header)))
    #expect(checkpoint.format == "safetensors")
    #expect(checkpoint.metadata["format"] == .string("pt"))
    #expect(try checkpoint.stateDict().tensors[0].floats() == [0, 1, 2, 3, 4, 5])
    #expect(try checkpoint.stateDict().tensors[0].shape == [2, 3])
  }

  /// A header is read entry by entry, so that what it may cost is counted by entries.
  @Test func entriesAreBounded() throws {
    func header(_ count: Int) -> String {
      "{"
        + (0..<count).map { "\"\($0)\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}" }.joined(separator: ",")
        + "}"
    }
    let path = try folder.write(file(header(65_536), data: []))
    #expect(try CheckpointFormats.open(path: path).stateDict().tensors.count == 65_536)
    #expect(try code(file(header(65_537), data: [])) == .overBudget)
    let list = String(repeating: "[0],", count: 20_000)
    #expect(try code(file("{\"w\":{\"dtype\":[\(list)0]}}")) == .malformed)
    let tensors = (0...65_536).map { StoredTensor(name: "\($0)", dtype: .u8, shape: [0], elements: [] as [UInt8]) }
    #expect(errorCode { try SafetensorsWriter.write(tensors, to: folder.file("out")) } == .unrepresentable)
  }

  /// The metadata may stand anywhere among the tensors, once.
  @Test func metadataStandsOnce() throws {
    let tensor = String(entry().dropFirst().dropLast())
    for text in ["{\(tensor),\"__metadata__\":{\"a\":\"1\"}}", "{\"__metadata__\":{\"a\":\"1\"},\(tensor)}"] {
      #expect(try CheckpointFormats.open(path: folder.write(file(text))).metadata["a"]?.string == "1")
    }
    let twice = "\"__metadata__\":{}"
    #expect(try code(file("{\(twice),\(tensor),\(twice)}")) == .duplicateName)
    #expect(try code(file("{\"__metadata__\":{\"a\":\"1\",\"a\":\"1\"},\(tensor)}")) == .duplicateName)
    for odd in ["[]", "1", "{\"a\":1}", "{\"a\":null}"] {
      #expect(try code(file("{\"__metadata__\":\(odd),\(tensor)}")) == .malformed)
    }
  }

  @Test func headerLengths() throws {
    #expect(try code([]) == .truncated)
    #expect(try code([0, 0, 0, 0, 0, 0, 0]) == .truncated)
    #expect(try code(file(entry(), length: 100_000_001)) == .malformed)
    #expect(try code(file(entry(), length: .max)) == .malformed)
    #expect(try code(file(entry(), length: 1 << 63)) == .malformed)
    #expect(try code(file(entry(), length: 10_000)) == .truncated)
    #expect(try code(file(entry(), length: 10)) == .malformed)
    #expect(try code(file("{}", data: [])) == nil)
    #expect(try code(file("\t\n{}\r ", data: [])) == nil)
    #expect(try code(file("[]", data: [])) == .malformed)
    #expect(try code(file("\u{FEFF}{}", data: [])) == .malformed)
  }

  @Test func entries() throws {
    #expect(try code(file(entry())) == nil)
    #expect(try code(file(entry(dtype: "\"F33\""))) == .malformed)
    #expect(try code(file(entry(dtype: "\"f32\""))) == .malformed)
    #expect(try code(file(entry(dtype: "\"C128\""))) == .malformed)
    #expect(try code(file(entry(dtype: "1"))) == .malformed)
    for shape in [
      "[-6]", "[6.0]", "[6e0]", "[\"6\"]", "6", "null", "[18446744073709551616]", "[9223372036854775808,4,0]",
      "[2,9223372036854775807]", "[4194305,4194305,211106198978564]",
    ] {
      #expect(try code(file(entry(shape))) == .malformed)
    }
    for offsets in ["[24,0]", "[0,24,24]", "[-24,0]", "[0]", "[0,24.0]", "0", "[0,18446744073709551616]"] {
      #expect(try code(file(entry("[6]", offsets))) == .malformed)
    }
    #expect(try code(file(entry("[2,2]"))) == .sizeMismatch)
    #expect(try code(file(entry("[6]", "[0,4398046511104]"))) == .sizeMismatch)
    #expect(try code(file(entry("[1099511627776]", "[0,4398046511104]"))) == .truncated)
    #expect(try code(file(entry("[1,3]", "[0,2]", dtype: "\"F4\""))) == .malformed)
    #expect(try code(file("{\"w\":1}")) == .malformed)
    #expect(try code(file("{\"w\":{}}")) == .malformed)
    for metadata in ["{\"k\":1}", "{\"k\":{}}", "[]", "{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24]}"] {
      #expect(try code(file("{\"__metadata__\":\(metadata)}", data: [])) == .malformed)
    }
  }

  @Test func layout() throws {
    func two(_ first: String, _ second: String, names: [String] = ["a", "b"]) throws -> CheckpointErrorCode? {
      let part = { (name: String, offsets: String) in
        "\"\(name)\":{\"dtype\":\"U8\",\"shape\":[12],\"data_offsets\":\(offsets)}"
      }
      return try code(file("{\(part(names[0], first)),\(part(names[1], second))}"))
    }
    #expect(try two("[0,12]", "[12,24]") == nil)
    #expect(try two("[12,24]", "[0,12]") == nil)
    #expect(try two("[0,12]", "[12,24]", names: ["a", "a"]) == .duplicateName)
    #expect(try two("[0,12]", "[12,24]", names: ["a", "\\u0061"]) == .duplicateName)
    #expect(try two("[0,12]", "[0,12]") == .malformed)
    #expect(try two("[0,12]", "[8,20]") == .malformed)
    #expect(try two("[0,12]", "[13,25]") == .malformed)
    #expect(try two("[1,13]", "[13,25]") == .malformed)
    #expect(try code(file(entry(), data: floats(6) + [1])) == .trailingData)
    #expect(try code(file(entry(), data: Array(floats(6).dropLast()))) == .truncated)
  }

  @Test func damagedFiles() throws {
    let bytes = file(
      "{\"__metadata__\":{\"k\":\"v\"},\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}")
    for count in bytes.indices { #expect(try code(Array(bytes[..<count])) != nil) }
    for position in bytes.indices.dropLast(24) {
      for bit in 0..<8 {
        var damaged = bytes
        damaged[position] ^= 1 << UInt8(bit)
        _ = try code(damaged)
      }
    }
  }
}

@Suite struct SafetensorsWriterTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func tensor<T: BitwiseCopyable>(_ name: String, _ dtype: DType, _ shape: Shape, _ values: [T]) -> StoredTensor
  {
    StoredTensor(name: name, dtype: dtype, shape: shape, elements: values)
  }

  /// The golden file was written by the reference implementation, version 0.8.0.
  @Test func sameBytesAsTheReference() throws {
    let golden = repositoryRoot + "/Formats/safetensors/golden/reference.safetensors"
    let tensors = [
      tensor("w", .f32, [2, 3], (0..<6).map { Float($0) }), tensor("a.b", .i64, [3], [Int64(0), 1, 2]),
      tensor("z\"é\n\u{8}\u{C}\u{1}", .u8, [2], [UInt8(1), 2]), tensor("h", .f16, [2], [UInt16(0x3E00), 0xC000]),
      tensor("flag", .bool, [3], [true, false, true]), tensor("empty", .f32, [0, 4], [Float]()),
      tensor("s", .f64, [], [2.5]), tensor("A", .f32, [2], [Float(0), 1]),
    ]
    try SafetensorsWriter.write(tensors, metadata: ["format": "pt"], to: folder.file("out"))
    #expect(try contents(of: folder.file("out")) == contents(of: golden))
    let read = try CheckpointFormats.open(path: golden).stateDict()
    try SafetensorsWriter.write(read.tensors.shuffled(), metadata: ["format": "pt"], to: folder.file("again"))
    #expect(try contents(of: folder.file("again")) == contents(of: golden))
  }

  @Test func everyDType() throws {
    let tensors = DType.allCases.filter { $0 != .c128 }.map { dtype in
      tensor(dtype.rawValue, dtype, [2, 4], [UInt8](repeating: 7, count: dtype.bitWidth))
    }
    try SafetensorsWriter.write(tensors, to: folder.file("out"))
    let read = try readEverything(folder.file("out"))
    #expect(read.count == tensors.count)
    for (tensor, bytes) in read {
      #expect(tensor.name == tensor.dtype.rawValue)
      #expect(bytes == [UInt8](repeating: 7, count: tensor.dtype.bitWidth))
    }
  }

  @Test func viewsAndTiedTensorsAreWrittenOut() throws {
    let path = try folder.write(
      torchArchive { builder in
        builder.dict([
          ("t", { $0.tensor("0", count: 6, size: [3, 2], stride: [1, 3]) }), ("a", { $0.tensor("0", count: 6) }),
          ("b", { $0.tensor("0", count: 6) }), ("e", { $0.tensor("0", count: 6, size: [2, 2], stride: [0, 1]) }),
        ])
      })
    let checkpoint = try CheckpointFormats.open(path: path)
    var progress: [Int] = []
    try SafetensorsWriter.write(
      checkpoint.stateDict().tensors, to: folder.file("out"), inputs: checkpoint.identities,
      progress: { done, total in progress.append(done * 100 / total) })
    #expect(progress.last == 100)
    let read = try CheckpointFormats.open(path: folder.file("out")).stateDict()
    #expect(read.tensors.map(\.name) == ["a", "b", "e", "t"])
    #expect(try read.tensors[0].floats() == read.tensors[1].floats())
    #expect(try read.tensors[2].floats() == [0, 1, 0, 1])
    #expect(try read.tensors[3].floats() == [0, 3, 1, 4, 2, 5])
    #expect(throws: FileError.self) {
      try SafetensorsWriter.write([], to: path, overwrite: true, inputs: checkpoint.identities)
    }
  }

  @Test func refuses() throws {
    let path = folder.file("out")
    func code(_ tensors: [StoredTensor]) -> CheckpointErrorCode? {
      errorCode { try SafetensorsWriter.write(tensors, to: path) }
    }
    let one = tensor("w", .f32, [1], [Float(1)])
    #expect(code([tensor("__metadata__", .f32, [1], [Float(1)])]) == .unrepresentable)
    #expect(code([one, one]) == .duplicateName)
    #expect(code([tensor("c", .c128, [1], [1.0, 2.0])]) == .unrepresentable)
    let damaged = try CheckpointFormats.open(
      path: try folder.write(
        torchArchive(change: { $0.records[2].crc = 1 }) { $0.dict([("w", { $0.tensor("0", count: 6) })]) }, as: "in"))
    #expect(throws: TensorError.self) { try SafetensorsWriter.write(damaged.stateDict().tensors, to: path) }
    #expect(folder.names == ["in"])
  }

  @Test func plainGGUF() throws {
    let tensors = [
      tensor("w", .f32, [2, 3], (0..<6).map { Float($0) }), tensor("h", .bf16, [2], [UInt16(1), 2]),
      tensor("e", .i8, [0, 3], [Int8]()), tensor("s", .f64, [], [2.5]),
    ]
    try GGUFPlainWriter.write(
      tensors, metadata: [("general.name", .string("x"))], to: folder.file("out.gguf"))
    let checkpoint = try CheckpointFormats.open(path: folder.file("out.gguf"))
    #expect(checkpoint.format == "GGUF")
    #expect(checkpoint.metadata["general.architecture"] == .string("unknown"))
    #expect(checkpoint.metadata["general.name"] == .string("x"))
    let read = try checkpoint.stateDict()
    #expect(read.tensors.map(\.name) == ["w", "h", "e", "s"])
    for (left, right) in zip(read.tensors, tensors) {
      #expect(left.shape == right.shape && left.dtype == right.dtype)
      #expect(
        try left.contiguousBytes().array(of: UInt8.self) == right.contiguousBytes().array(of: UInt8.self))
    }
  }

  @Test func plainGGUFNamesEveryProblem() throws {
    let tensors = [
      tensor(String(repeating: "n", count: 64), .f32, [1], [Float(1)]), tensor("u", .u8, [1], [UInt8(1)]),
      tensor("five", .f32, [1, 1, 1, 1, 1], [Float(1)]), tensor("good", .f32, [1], [Float(1)]),
    ]
    do {
      try GGUFPlainWriter.write(tensors, to: folder.file("out.gguf"))
      Issue.record("it was written")
    } catch let error as CheckpointError {
      #expect(error.code == .unrepresentable)
      for part in ["'nnnn", "64 bytes", "'u'", "U8", "'five'", "5 dimensions", ".safetensors"] {
        #expect(error.description.contains(part))
      }
      #expect(!error.description.contains("'good'"))
    }
    #expect(folder.names == [])
  }
}
