import MultiwayCheckpoint
import MultiwayCore
import Testing

/// `.pth` files of ours: what goes in comes out, in the form that `torch.load` maps and `weights_only` lets pass.
@Suite struct PyTorchWriterTests {
  private let folder: TemporaryFolder
  private static let packed: Set<DType> = [.f4, .f6e2m3, .f6e3m2]

  init() throws { folder = try TemporaryFolder() }

  private func tensor(_ name: String, _ dtype: DType, _ shape: Shape, seed: UInt8 = 1) -> StoredTensor {
    let count = shape.byteCount(of: dtype) ?? 0
    return StoredTensor(name: name, dtype: dtype, shape: shape, elements: (0..<count).map { UInt8($0 % 251) &+ seed })
  }

  private var everyDType: [StoredTensor] {
    DType.allCases.filter { !Self.packed.contains($0) }.map { tensor($0.rawValue, $0, [2, 4]) }
  }

  @Test(arguments: ["", "model", "module"])
  func everyDTypeAndShapeComesBack(nesting: String) throws {
    let tensors =
      everyDType + [
        tensor("scalar", .f32, []), tensor("empty", .f32, [0, 4]), tensor("long", .u8, [70_000]),
        tensor("five.dims", .i16, [1, 2, 3, 2, 1]), tensor("z\"é\n", .f32, [3]),
      ]
    try PyTorchWriter.write(tensors, nesting: nesting, metadata: ["author": "nobody"], to: folder.file("out"))
    let checkpoint = try CheckpointFormats.open(path: folder.file("out"))
    #expect(checkpoint.stateDicts.map(\.name) == [nesting])
    #expect(checkpoint.metadata["author"] == .string("nobody"))
    #expect(checkpoint.opaqueRecords.isEmpty)
    let found = try checkpoint.stateDict().tensors
    #expect(found.map(\.name) == tensors.map(\.name))
    for (tensor, copy) in zip(tensors, found) {
      #expect(copy.dtype == tensor.dtype && copy.shape == tensor.shape, "\(tensor.name)")
      let (bytes, expected) = (try copy.contiguousBytes(), try tensor.contiguousBytes())
      #expect(bytes.array(of: UInt8.self) == expected.array(of: UInt8.self), "\(tensor.name)")
    }
  }

  /// Dicts of more than a thousand entries come in several batches, and the memo outgrows a byte.
  @Test func manyTensors() throws {
    let tensors = (0..<2500).map { tensor("layers.\($0).weight", .f32, [2], seed: UInt8($0 % 256)) }
    try PyTorchWriter.write(tensors, to: folder.file("out"))
    let read = try readEverything(folder.file("out"))
    #expect(read.map(\.tensor.name) == tensors.map(\.name))
    for (tensor, copy) in zip(tensors, read) {
      let expected = try tensor.contiguousBytes()
      #expect(copy.bytes == expected.array(of: UInt8.self))
    }
  }

  @Test func theSameTensorsGiveTheSameBytes() throws {
    for name in ["a", "b"] { try PyTorchWriter.write(everyDType, nesting: "model", to: folder.file(name)) }
    #expect(try contents(of: folder.file("a")) == contents(of: folder.file("b")))
  }

  /// What `torch.load(mmap=True)` stands on: records stored, at multiples of 64, little-endian, version 3.
  @Test func recordsLieAsTorchSaveLaysThem() throws {
    try PyTorchWriter.write(everyDType, to: folder.file("out"))
    let bytes = try contents(of: folder.file("out"))
    func number(_ offset: Int, _ size: Int) -> Int { (0..<size).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) } }
    // From the end: the classic end record, then the directory's entries.
    var entry = number(bytes.count - 6, 4)
    var names: [String] = []
    while number(entry, 4) == 0x0201_4B50 {
      let (nameSize, extraSize, local) = (number(entry + 28, 2), number(entry + 30, 2), number(entry + 42, 4))
      #expect(number(entry + 10, 2) == 0, "stored")
      #expect((local + 30 + number(local + 26, 2) + number(local + 28, 2)) % 64 == 0)
      names.append(String(decoding: bytes[(entry + 46)..<(entry + 46 + nameSize)], as: UTF8.self))
      entry += 46 + nameSize + extraSize
    }
    let data = everyDType.indices.map { "archive/data/\($0)" }
    #expect(
      names == [
        "archive/data.pkl", "archive/.format_version", "archive/.storage_alignment", "archive/byteorder",
      ] + data + ["archive/version"])
  }

  /// Protocol 2, and no opcode or name that `weights_only` refuses: the pickle of one tensor, byte for byte.
  @Test func thePickleOfOneTensor() throws {
    try PyTorchWriter.write([tensor("w", .f32, [2, 3])], nesting: "model", to: folder.file("out"))
    let bytes = try contents(of: folder.file("out"))
    let text = { (name: String) in [UInt8(ascii: "X"), UInt8(name.utf8.count), 0, 0, 0] + Array(name.utf8) }
    let head: [UInt8] = [0x80, 2, UInt8(ascii: "}")] + text("model") + [UInt8(ascii: "q"), 0]
    let dictionary = Array("ccollections\nOrderedDict\nq\u{1})R(".utf8) + text("w") + Array("q\u{2}".utf8)
    let function = Array("ctorch._utils\n_rebuild_tensor_v2\nq\u{3}((".utf8) + text("storage") + Array("q\u{4}".utf8)
    let storage = Array("ctorch\nFloatStorage\nq\u{5}".utf8) + text("0") + Array("q\u{6}".utf8) + text("cpu")
    let view = Array("q\u{7}K\u{6}tQK\u{0}(K\u{2}K\u{3}t(K\u{3}K\u{1}t".utf8) + [0x89] + Array("h\u{1})RtRus.".utf8)
    let pickle = head + dictionary + function + storage + view
    #expect(Array(bytes[64..<64 + pickle.count]) == pickle)
  }

  /// Tied weights stay tied; other views of the same storage get their own bytes, without what they do not show.
  @Test func onlyEqualViewsShareAStorage() throws {
    let path = try folder.write(
      torchArchive { builder in
        builder.dict([
          ("t", { $0.tensor("0", count: 6, size: [3, 2], stride: [1, 3]) }), ("a", { $0.tensor("0", count: 6) }),
          ("b", { $0.tensor("0", count: 6) }), ("e", { $0.tensor("0", count: 6, size: [2, 2], stride: [0, 1]) }),
        ])
      }, as: "in")
    let tensors = try CheckpointFormats.open(path: path).stateDict().tensors
    let provenance = Provenance(tool: "test", recipe: JSONObject(), files: [])
    try PyTorchWriter.write(tensors, provenance: provenance, to: folder.file("out"))
    let checkpoint = try CheckpointFormats.open(path: folder.file("out"))
    let found = try checkpoint.stateDict().tensors
    #expect(found.map(\.name) == ["t", "a", "b", "e"])
    #expect(found[1].storage === found[2].storage)
    #expect(found[0].storage !== found[1].storage && found[3].storage !== found[1].storage)
    #expect(found.map(\.storage.byteCount) == [24, 24, 24, 16])
    #expect(try found[0].floats() == [0, 3, 1, 4, 2, 5])
    #expect(try found[2].floats() == [0, 1, 2, 3, 4, 5])
    #expect(try found[3].floats() == [0, 1, 0, 1])
    let digests = try #require(try checkpoint.recordedDigests())
    #expect(digests.count == 4 && digests["a"] == digests["b"])
    for tensor in found { #expect(try digests[tensor.name] == TensorDigest.of(tensor)) }
  }

  @Test func whatItCannotHoldIsRefusedAtOnce() throws {
    let path = folder.file("out")
    let odd = Self.packed.map { tensor($0.rawValue, $0, [8]) }
    let error = #expect(throws: CheckpointError.self) {
      try PyTorchWriter.write(everyDType + odd, to: path)
    }
    #expect(error?.code == .unrepresentable)
    for dtype in Self.packed { #expect(error?.diagnosis.found.contains(dtype.rawValue) == true) }
    let one = tensor("w", .f32, [1])
    #expect(errorCode { try PyTorchWriter.write([one, one], to: path) } == .duplicateName)
    let damaged = try CheckpointFormats.open(
      path: try folder.write(
        torchArchive(change: { $0.records[2].crc = 1 }) { $0.dict([("w", { $0.tensor("0", count: 6) })]) }, as: "in"))
    #expect(throws: TensorError.self) { try PyTorchWriter.write(damaged.stateDict().tensors, to: path) }
    #expect(folder.names == ["in"])
    #expect(throws: FileError.self) {
      try PyTorchWriter.write([one], to: folder.file("in"), overwrite: true, inputs: damaged.identities)
    }
  }

  /// No flipped byte goes unnoticed where it matters: sums cover every record, and the rest is structure.
  @Test func aFlippedByteIsNoticed() throws {
    try PyTorchWriter.write([tensor("w", .f32, [4])], metadata: ["a": "b"], to: folder.file("out"))
    let bytes = try contents(of: folder.file("out"))
    for name in ["multiway.json", "data/0"] {
      let header = Array(("archive/" + name).utf8)
      let place = try #require(bytes.indices.first { bytes[$0...].starts(with: header) })
      // Behind the name and the filler's first four bytes, at the next multiple of 64.
      let payload = (place + header.count + 4 + 63) / 64 * 64
      var damaged = bytes
      damaged[payload] ^= 1
      let path = try folder.write(damaged, as: "damaged")
      #expect(errorCode { try readEverything(path) } == .corrupt, "\(name)")
    }
  }
}
