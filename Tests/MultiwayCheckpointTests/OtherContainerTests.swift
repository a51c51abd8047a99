import MultiwayCheckpoint
import MultiwayCore
import Synchronization
import Testing

/// Bytes in memory as a file, which counts what is asked of it.
final class CountingSource: ByteSource {
  let path: String
  let identity: FileIdentity
  private let contents: TensorBytes
  private let asked = Mutex(0)

  /// - Parameter file: lends its path and identity.
  init(_ bytes: [UInt8], of file: MappedFile) {
    contents = TensorBytes(copying: bytes)
    path = file.path
    identity = file.identity
  }

  var byteCount: Int { contents.byteCount }
  var fileByteCount: Int { contents.byteCount }
  var packing: String? { nil }
  /// How many bytes were asked for since the last call.
  func takeCount() -> Int {
    asked.withLock { count in
      defer { count = 0 }
      return count
    }
  }

  func bytes(in range: Range<Int>) -> TensorBytes {
    asked.withLock { $0 += range.count }
    return contents.extracting(range)
  }

  func discard(_ range: Range<Int>) {}
}

/// Legacy and tar files, bare pickles and NumPy arrays: what the corpora do not say.
@Suite struct OtherContainerTests {
  private static let formats = "\(repositoryRoot)/Formats/"

  private func everything(_ source: any ByteSource) throws -> [String: [UInt8]] {
    var result: [String: [UInt8]] = [:]
    for tensor in try CheckpointFormats.read(source).stateDict().tensors {
      result[tensor.name] = try tensor.contiguousBytes().array(of: UInt8.self)
    }
    return result
  }

  /// Whatever is cut off, it is noticed, or nothing is missing (the padding of a tar archive).
  @Test(arguments: [
    "pytorch-legacy/golden/legacy_handmade.pth", "pytorch-legacy/golden/legacy_two_storages.pth",
    "pytorch-legacy/golden/legacy_storage_view.pth", "pytorch-legacy/golden/handmade.pkl",
    "pytorch-legacy/golden/wrapped.pkl", "numpy/golden/array.npy", "numpy/golden/names.npz", "gguf/golden/q8_0.gguf",
    "pytorch-legacy/golden/tar.pth", "pytorch-legacy/golden/legacy.pth", "pytorch-legacy/golden/tensors_protocol2.pkl",
    "pytorch-legacy/golden/arrays_protocol0.pkl", "numpy/golden/compressed.npz",
  ])
  func everyTruncationIsNoticed(name: String) throws {
    let file = try MappedFile(path: OtherContainerTests.formats + name)
    let bytes = file.bytes.array(of: UInt8.self)
    let whole = try everything(CountingSource(bytes, of: file))
    #expect(!whole.isEmpty)
    for size in stride(from: 0, to: bytes.count, by: bytes.count < 2000 ? 1 : 61) {
      do {
        let rest = try everything(CountingSource(Array(bytes[..<size]), of: file))
        #expect(rest == whole, "\(name) cut to \(size) bytes")
      } catch let error as any DiagnosedError {
        #expect(error.diagnosis.file != nil)
      }
    }
  }

  /// The checksum of a zip record is taken from bytes that pass, whatever of them passed before.
  @Test func checksumsNeedNoReadingOfTheirOwn() throws {
    let file = try MappedFile(path: OtherContainerTests.formats + "numpy/golden/names.npz")
    let source = CountingSource(file.bytes.array(of: UInt8.self), of: file)
    let tensor = try #require(try CheckpointFormats.read(source).stateDict().tensors.first)
    let size = tensor.storage.byteCount
    #expect(size == 24)
    _ = source.takeCount()
    for range in [0..<4, 0..<10, 2..<8, 8..<size] { _ = try tensor.storage.peek(in: range) }
    _ = source.takeCount()
    try tensor.storage.verify()
    #expect(source.takeCount() == 0)
  }

  /// Opening reads headers; a tensor's bytes are asked for when it is read, and no others.
  @Test func largeArraysAreLeftInTheirPlace() throws {
    let file = try MappedFile(path: OtherContainerTests.formats + "numpy/golden/array.npy")
    let size = 4 << 20
    let count: [UInt8] = (0..<8).map { UInt8(truncatingIfNeeded: (size / 4) >> ($0 * 8)) }
    let zeros = [UInt8](repeating: 0, count: size)
    func pickle(_ body: (inout PickleBuilder) -> Void) -> [UInt8] { PickleBuilder.pickle(body) }
    func storage(_ builder: inout PickleBuilder) { builder.storage("0", count: size / 4) }
    func rebuilt(_ builder: inout PickleBuilder, _ inner: (inout PickleBuilder) -> Void) {
      builder.reduce("torch._utils", "_rebuild_tensor_v2") {
        inner(&$0)
        $0.int(0)
        $0.ints([2])
        $0.ints([1])
        $0.op(0x89)
        $0.op("}")
      }
    }
    func legacy(_ object: (inout PickleBuilder) -> Void) -> [UInt8] {
      let magic: [UInt8] = [0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19]
      let start = pickle { $0.bytes += [0x8A, 10] + magic } + pickle { $0.int(1001) } + pickle { $0.op("}") }
      return start + pickle(object)
        + pickle {
          $0.op("]")
          $0.text("0")
          $0.op("a")
        } + count + zeros
    }
    let inner = legacy(storage)
    let files: [[UInt8]] = [
      legacy { builder in builder.dict([("w", { rebuilt(&$0, storage) })]) },
      pickle { builder in
        builder.dict([
          (
            "w",
            {
              rebuilt(&$0) {
                $0.reduce("torch.storage", "_load_from_bytes") {
                  $0.op("B")
                  $0.little(inner.count, 4)
                  $0.bytes += inner
                }
              }
            }
          )
        ])
      },
    ]
    for bytes in files {
      let source = CountingSource(bytes, of: file)
      let checkpoint = try CheckpointFormats.read(source)
      #expect(source.takeCount() < 2 << 20)
      #expect(try checkpoint.stateDict().tensors[0].floats() == [0, 0])
      #expect(source.takeCount() == 8)
    }
  }

  /// Bytes that a pickle of protocol 2 spells as a text, or one of Python 2 as a string, are the same bytes.
  @Test(arguments: ["X", "T"]) func longBytesInTexts(opcode: String) throws {
    let file = try MappedFile(path: OtherContainerTests.formats + "numpy/golden/array.npy")
    let values = (0..<300_001).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 11) }
    let spelled =
      opcode == "T" ? values : Array(String(String.UnicodeScalarView(values.map { Unicode.Scalar($0) })).utf8)
    func bytes(_ builder: inout PickleBuilder) {
      builder.op(Character(opcode))
      builder.little(spelled.count, 4)
      builder.bytes += spelled
    }
    let pickle = PickleBuilder.pickle { builder in
      builder.dict([
        (
          "w",
          { array in
            array.reduce("numpy.core.multiarray", "_reconstruct") {
              $0.global("numpy", "ndarray")
              $0.ints([0])
              $0.text("b")
            }
            array.op("(")
            array.int(1)
            array.ints([values.count])
            array.reduce("numpy", "dtype") {
              $0.text("u1")
              $0.op(0x89)
              $0.op(0x88)
            }
            array.op(0x89)
            if opcode == "T" {
              bytes(&array)
            } else {
              array.reduce("_codecs", "encode") {
                bytes(&$0)
                $0.text("latin1")
              }
            }
            array.op("t")
            array.op("b")
          }
        ), ("text", { $0.text(String(repeating: "→", count: 30_000)) }),
      ])
    }
    let checkpoint = try CheckpointFormats.read(CountingSource(pickle, of: file))
    let tensor = try checkpoint.stateDict().tensors[0]
    #expect(try tensor.contiguousBytes().array(of: UInt8.self) == values)
    for range in [0..<1, 65_535..<65_537, 65_536..<131_072, 131_000..<300_001, 300_001..<300_001] {
      #expect(try tensor.storage.load(in: range).array(of: UInt8.self) == Array(values[range]), "\(range)")
    }
    // A text that is no bytes stays a text.
    #expect(checkpoint.metadata["text"]?.string?.count == 30_000)
  }

  @Test func unreadableTensorsAreListed() throws {
    let checkpoint = try CheckpointFormats.open(
      path: OtherContainerTests.formats + "pytorch/golden/unreadable_beside.pth")
    let dict = try checkpoint.stateDict()
    #expect(dict.tensors.map(\.name) == ["dense", "sparse", "meta", "rows", "complex", "quantized"])
    #expect(checkpoint.notes.contains { $0.hasPrefix("5 of 6 tensors are listed but cannot be read: sparse (") })
    let shapes: [String: Shape] = [
      "sparse": [3, 3], "meta": [3], "rows": [3, 3], "complex": [2], "quantized": [3, 4, 5],
    ]
    let remedies = [
      "sparse": "to_dense", "meta": "weights", "rows": "to_dense", "complex": "resolve_conj", "quantized": "dequantize",
    ]
    for (name, shape) in shapes {
      let tensor = try #require(dict.tensor(named: name))
      #expect(tensor.shape == shape)
      let error = #expect(throws: TensorError.self) { try tensor.contiguousBytes() }
      #expect(error?.code == .unsupported)
      #expect(error?.diagnosis.tensor == name)
      #expect(error?.diagnosis.file == checkpoint.path)
      #expect(error?.diagnosis.remedy?.contains(remedies[name] ?? "?") == true)
    }
  }

  @Test(arguments: [
    ("pytorch/malformed/dtype_unknown.pth", "bfloat16"),
    ("pytorch-legacy/malformed/legacy_unknown_class.pth", "HalfStorage"),
    ("numpy/malformed/void.npy", "f4, f8"), ("pytorch-legacy/malformed/record_array.pkl", "f4, f8"),
    ("gguf/malformed/blocks_q2_k.gguf", "Q8_0, Q4_K"),
  ])
  func unknownTypesComeWithAListOfTheKnown(name: String, word: String) {
    do {
      try readEverything(OtherContainerTests.formats + name)
      Issue.record("it was read")
    } catch {
      #expect("\(error)".contains(word))
    }
  }

  @Test func notesSayWhatIsSpecial() throws {
    func open(_ name: String) throws -> Checkpoint {
      try CheckpointFormats.open(path: OtherContainerTests.formats + name)
    }
    let machine = try open("pytorch-legacy/golden/legacy_big_endian_machine.pth")
    #expect(machine.format == "PyTorch legacy")
    #expect(machine.notes.contains { $0.contains("little-endian all the same") })
    #expect(try open("pytorch/golden/quantized.pth").notes.contains { $0.hasPrefix("3 quantized tensors") })
    #expect(try open("numpy/golden/names.npz").notes == ["left out: 1 records that are no .npy files"])
    let training = try open("pytorch-legacy/golden/legacy.pth")
    #expect(training.stateDicts.map(\.name) == ["model"])
    #expect(training.metadata["epoch"] == .integer(7))
    #expect(training.notes.contains { $0.hasPrefix("left out: optimizer") })
    let dict = try training.stateDict()
    #expect(dict.tensor(named: "tied.first")?.storage === dict.tensor(named: "tied.second")?.storage)
    #expect(try open("pytorch-legacy/golden/tar.pth").format == "PyTorch tar")
    #expect(try open("pytorch-legacy/golden/legacy_module.pth").opaqueRecords == ["my.models.Net"])
  }
}
