import MultiwayCheckpoint
import MultiwayCore
import Testing

@Suite struct PyTorchTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func open(_ bytes: [UInt8]) throws -> Checkpoint {
    try CheckpointFormats.open(path: try folder.write(bytes))
  }

  private func code(_ bytes: [UInt8]) -> CheckpointErrorCode? {
    errorCode { try readEverything(try folder.write(bytes)) }
  }

  private func tensor(_ builder: inout PickleBuilder) { builder.tensor("0", count: 6) }

  @Test func bareStateDict() throws {
    let checkpoint = try open(torchArchive { $0.dict([("w", tensor)]) })
    #expect(checkpoint.format == "PyTorch zip")
    #expect(checkpoint.stateDicts.map(\.name) == [""])
    let w = try #require(checkpoint.stateDict().tensor(named: "w"))
    #expect(w.shape == [6])
    #expect(try w.floats() == [0, 1, 2, 3, 4, 5])
    #expect(checkpoint.notes == [])
    #expect(checkpoint.identities == [try MappedFile(path: checkpoint.path).identity])
  }

  @Test func wrappersInOrder() throws {
    let checkpoint = try open(
      torchArchive { builder in
        builder.dict([
          ("model_ema", { $0.dict([("w", tensor)]) }),
          ("optimizer", { $0.dict([("state", { $0.dict([("0", tensor)]) })]) }),
          ("epoch", { $0.int(3) }), ("model", { $0.dict([("a", { $0.dict([("b", tensor)]) }), ("w", tensor)]) }),
        ])
      })
    #expect(checkpoint.stateDicts.map(\.name) == ["model", "model_ema"])
    #expect(try checkpoint.stateDict().tensors.map(\.name) == ["a.b", "w"])
    #expect(try checkpoint.stateDict(named: "model_ema").tensors.map(\.name) == ["w"])
    #expect(checkpoint.metadata["epoch"] == .integer(3))
    #expect(checkpoint.notes == ["left out: optimizer (1 tensor, 24 bytes)"])
    #expect(errorCode { _ = try checkpoint.stateDict(named: "x") } == .noSuchStateDict)
  }

  @Test func wrapperNameWithoutTensorsIsData() throws {
    let checkpoint = try open(
      torchArchive { $0.dict([("model", { $0.text("beit3_base") }), ("weights", { $0.dict([("w", tensor)]) })]) })
    #expect(checkpoint.stateDicts.map(\.name) == ["weights"])
    #expect(checkpoint.metadata["model"] == .string("beit3_base"))
  }

  @Test func nestedAndListed() throws {
    let checkpoint = try open(
      torchArchive { builder in
        builder.dict([
          ("enc", { $0.dict([("x", tensor)]) }),
          (
            "list",
            { list in
              list.op("]")
              list.op("(")
              tensor(&list)
              tensor(&list)
              list.op("e")
            }
          ),
          ("optimizer", { $0.dict([("m", tensor)]) }),
        ])
      })
    #expect(try checkpoint.stateDict().tensors.map(\.name) == ["enc.x", "list.0", "list.1"])
    #expect(checkpoint.notes.count == 1)
  }

  @Test func topLevelTensorAndList() throws {
    #expect(try open(torchArchive(pickle: tensor)).stateDict().tensors.map(\.name) == ["tensor"])
    let list = torchArchive { builder in
      builder.op("]")
      tensor(&builder)
      builder.op("a")
    }
    #expect(try open(list).stateDict().tensors.map(\.name) == ["0"])
  }

  @Test func sharedStoragesAreOneObject() throws {
    let dict = try open(torchArchive { $0.dict([("a", tensor), ("b", tensor)]) }).stateDict()
    #expect(dict.tensors[0].storage === dict.tensors[1].storage)
  }

  @Test func opaqueObjectsAreRecorded() throws {
    let checkpoint = try open(
      torchArchive { builder in
        builder.dict([
          ("model", { $0.dict([("w", tensor)]) }),
          (
            "args",
            { args in
              args.global("argparse", "Namespace")
              args.op(")")
              args.op(0x81)
              args.dict([
                (
                  "lr",
                  {
                    $0.op("G"); $0.bytes += [0x3F, 0xE0, 0, 0, 0, 0, 0, 0]
                  }
                ), ("model", { $0.text("beit") }),
              ])
              args.op("b")
            }
          ),
          ("dict", { $0.reduce("fairseq.data.dictionary", "Dictionary") { _ in } }),
          ("dtype", { $0.global("torch", "float16") }),
        ])
      })
    #expect(checkpoint.opaqueRecords == ["argparse.Namespace", "fairseq.data.dictionary.Dictionary"])
    #expect(checkpoint.metadata["args"]?["lr"] == .real(0.5))
    #expect(checkpoint.metadata["args"]?["model"] == .string("beit"))
    #expect(checkpoint.metadata["dtype"] == .string("torch.float16"))
  }

  @Test func numpyScalarsAndArrays() throws {
    func dtype(_ code: String, _ order: String, _ builder: inout PickleBuilder) {
      builder.reduce("numpy", "dtype") {
        $0.text(code); $0.op(0x89); $0.op(0x88)
      }
      builder.tuple({ $0.int(3) }, { $0.text(order) }, { $0.op("N") }, { $0.op("N") }, { $0.op("N") }, { $0.int(-1) })
      builder.op("b")
    }
    func encoded(_ bytes: [UInt8], _ builder: inout PickleBuilder) {
      let text = String(String.UnicodeScalarView(bytes.map { Unicode.Scalar($0) }))
      builder.reduce("_codecs", "encode") {
        $0.text(text); $0.text("latin1")
      }
    }
    let checkpoint = try open(
      torchArchive { builder in
        builder.dict([
          ("w", tensor),
          (
            "array",
            { array in
              array.reduce("numpy.core.multiarray", "_reconstruct") {
                $0.global("numpy", "ndarray")
                $0.ints([0])
                $0.text("b")
              }
              array.tuple(
                { $0.int(1) }, { $0.ints([2, 3]) }, { dtype("i2", ">", &$0) }, { $0.op(0x88) },
                { encoded([0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 255], &$0) })
              array.op("b")
            }
          ),
          (
            "best",
            { scalar in
              scalar.reduce("numpy._core.multiarray", "scalar") {
                dtype("f8", "<", &$0)
                encoded([0, 0, 0, 0, 0, 0, 0xF8, 0x3F], &$0)
              }
            }
          ),
        ])
      })
    let array = try #require(checkpoint.stateDict().tensor(named: "array"))
    #expect(array.dtype == .i16)
    #expect(try array.integers() == [1, 3, 5, 2, 4, 255])
    #expect(checkpoint.metadata["best"] == .real(1.5))
    #expect(checkpoint.opaqueRecords == [])
  }

  @Test func rebuildFunctions() throws {
    let bytes = torchArchive(["0": floats(6), "1": [1, 2, 3, 4]]) { builder in
      builder.dict([
        (
          "v1",
          {
            $0.reduce("torch._utils", "_rebuild_tensor") {
              $0.storage("0", count: 6)
              $0.int(2)
              $0.ints([2, 2])
              $0.ints([2, 1])
            }
          }
        ),
        (
          "v3",
          {
            $0.reduce("torch._utils", "_rebuild_tensor_v3") {
              $0.storage("1", "UntypedStorage", module: "torch.storage", count: 4)
              $0.int(1)
              $0.ints([1])
              $0.ints([1])
              $0.op(0x89)
              $0.op("}")
              $0.global("torch", "uint16")
            }
          }
        ),
        (
          "p",
          {
            $0.reduce("torch._utils", "_rebuild_parameter") {
              tensor(&$0); $0.op(0x88); $0.op("}")
            }
          }
        ),
        (
          "sub",
          {
            $0.reduce("torch._tensor", "_rebuild_from_type_v2") {
              $0.global("torch._utils", "_rebuild_tensor_v2")
              $0.global("my.lib", "MyTensor")
              $0.tuple(
                { $0.storage("0", count: 6) }, { $0.int(0) }, { $0.ints([]) }, { $0.ints([]) }, { $0.op(0x89) },
                { $0.op("}") })
              $0.op("}")
            }
          }
        ),
      ])
    }
    let checkpoint = try open(bytes)
    let dict = try checkpoint.stateDict()
    #expect(try dict.tensors[0].floats() == [2, 3, 4, 5])
    #expect(dict.tensors[1].dtype == .u16)
    #expect(try dict.tensors[1].integers() == [0x0403])
    #expect(dict.tensors[2].shape == [6])
    #expect(dict.tensors[3].shape == [])
    #expect(checkpoint.opaqueRecords == ["my.lib.MyTensor"])
  }

  /// A whole pickled module, or a TorchScript archive: parameters are reached through the attributes.
  @Test func modules() throws {
    func object(_ name: String, _ state: [(String, (inout PickleBuilder) -> Void)], _ builder: inout PickleBuilder) {
      builder.global("__torch__.net", name)
      builder.op(")")
      builder.op(0x81)
      builder.dict(state)
      builder.op("b")
    }
    let script = torchArchive(change: { $0.add("archive/constants.pkl", [0x80, 2, 0x29, 0x2E]) }) {
      object("Net", [("training", { $0.op(0x88) }), ("fc", { object("Linear", [("weight", tensor)], &$0) })], &$0)
    }
    let checkpoint = try open(script)
    #expect(try checkpoint.stateDict().tensors.map(\.name) == ["fc.weight"])
    #expect(checkpoint.notes.contains { $0.contains("TorchScript") })
    let eager = torchArchive { builder in
      object(
        "Net",
        [
          ("_parameters", { $0.dict([("bias", tensor)]) }), ("_buffers", { $0.dict([]) }),
          (
            "_modules",
            { $0.dict([("fc", { object("Linear", [("_parameters", { $0.dict([("weight", tensor)]) })], &$0) })]) }
          ),
        ], &builder)
    }
    #expect(try open(eager).stateDict().tensors.map(\.name) == ["bias", "fc.weight"])
  }

  @Test func bigEndian() throws {
    let swapped = stride(from: 0, to: 24, by: 4).flatMap { floats(6)[$0..<$0 + 4].reversed() }
    let checkpoint = try open(torchArchive(["0": swapped], byteOrder: "big") { $0.dict([("w", tensor)]) })
    #expect(try checkpoint.stateDict().tensors[0].floats() == [0, 1, 2, 3, 4, 5])
    #expect(checkpoint.notes == ["byte order: big (turned while reading)"])
    #expect(code(torchArchive(byteOrder: "middle") { $0.dict([("w", tensor)]) }) == .malformed)
  }

  @Test func duplicateNames() throws {
    let bytes = torchArchive { $0.dict([("a.b", tensor), ("a", { $0.dict([("b", tensor)]) })]) }
    #expect(code(bytes) == .duplicateName)
    let twice = torchArchive { $0.dict([("a", { $0.int(1) }), ("a", tensor)]) }
    #expect(try open(twice).stateDict().tensors.count == 1)
  }

  @Test func circularAndSharedStructures() throws {
    let circular = torchArchive { builder in
      builder.op("}")
      builder.op("q")
      builder.op(UInt8(0))
      builder.text("me")
      builder.op("h")
      builder.op(UInt8(0))
      builder.op("s")
      builder.text("w")
      tensor(&builder)
      builder.op("s")
    }
    #expect(try open(circular).stateDict().tensors.map(\.name) == ["w"])
    let deep = torchArchive { builder in
      for _ in 0..<1000 { builder.op("]") }
      tensor(&builder)
      for _ in 0..<1000 { builder.op("a") }
    }
    #expect(code(deep) == .noTensors)
  }

  @Test func viewsMustStayInTheirStorage() throws {
    func view(_ size: [Int], _ stride: [Int], offset: Int = 0) -> CheckpointErrorCode? {
      code(torchArchive { $0.dict([("w", { $0.tensor("0", count: 6, offset: offset, size: size, stride: stride) })]) })
    }
    #expect(view([2, 3], [3, 1]) == nil)
    #expect(view([0, 3], [1 << 62, 1], offset: 1 << 62) == nil)
    #expect(view([1, 6], [.max, 1]) == nil)
    #expect(view([7], [1]) == .sizeMismatch)
    #expect(view([6], [1], offset: 1) == .sizeMismatch)
    #expect(view([2], [1 << 62]) == .sizeMismatch)
    #expect(view([3, 3], [1 << 62, 1 << 62]) == .sizeMismatch)
    #expect(view([-1], [1]) == .malformed)
    #expect(view([2], [-1]) == .malformed)
    #expect(view([2], [1], offset: -1) == .malformed)
    #expect(view([2], [1, 1]) == .malformed)
    #expect(view([1 << 33, 1 << 33], [0, 0]) == .malformed)
    #expect(view([1 << 40], [0]) == .overBudget)
    #expect(view([Int](repeating: 1, count: 65), [Int](repeating: 1, count: 65)) == .malformed)
  }
}
