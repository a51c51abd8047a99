import MultiwayCheckpoint
import MultiwayCore
import Testing

/// What a pickle may say and what makes the file refused.
@Suite struct PickleTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func code(_ pickle: (inout PickleBuilder) -> Void) -> CheckpointErrorCode? {
    errorCode { try readEverything(try folder.write(torchArchive(pickle: pickle))) }
  }

  /// A state dict with something beside its tensor.
  private func beside(_ value: @escaping (inout PickleBuilder) -> Void) -> CheckpointErrorCode? {
    code { $0.dict([("w", { $0.tensor("0", count: 6) }), ("x", value)]) }
  }

  @Test(arguments: [
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("builtins", "eval"), ("__builtin__", "eval"),
    ("builtins", "getattr"), ("builtins", "open"), ("subprocess", "Popen"), ("runpy", "run_path"), ("pip", "main"),
    ("pty", "spawn"), ("socket", "create_connection"), ("importlib", "import_module"), ("pickle", "loads"),
    ("_pickle", "loads"), ("operator", "attrgetter"), ("functools", "reduce"), ("ctypes", "CDLL"), ("os.path", "join"),
    ("torch", "serialization.os.getpid"), ("torch.hub", "load"), ("torch", "load"),
    ("torch.storage", "_load_from_bytes"),
    ("torch.jit", "load"), ("torch.utils.cpp_extension", "load"), ("numpy.testing._private.utils", "runstring"),
    ("numpy", "load"), ("os", "getpidStorage"), ("dill._dill", "_create_function"), ("evil.module", "run"),
    ("torch._utils", "_rebuild_evil"), ("timeit", "timeit"), ("cProfile", "run"), ("webbrowser", "open"),
    ("logging", "FileHandler"), ("torch.nn.functional", "relu"), ("copyreg", "_evil"), ("collections", "namedtuple"),
    ("", ""), ("builtins", ""), ("fairseq", "Module.os.system"),
  ])
  func refusesCalls(module: String, name: String) {
    #expect(beside { $0.reduce(module, name) { $0.text("true") } } == .forbiddenCall)
  }

  @Test(arguments: ["i", "o", "\u{81}", "\u{92}", "S"])
  func refusesEveryWayToCall(opcode: String) {
    let result = beside { builder in
      switch opcode {
      case "i":
        builder.op("(")
        builder.op("i")
        builder.bytes += Array("os\nsystem\n".utf8)
      case "o":
        builder.op("(")
        builder.global("os", "system")
        builder.op("o")
      case "S":
        builder.text("os")
        builder.text("system")
        builder.op(0x93)
      default:
        builder.global("os", "system")
        builder.op(")")
        if opcode == "\u{92}" { builder.op("}") }
        builder.op(opcode == "\u{92}" ? UInt8(0x92) : 0x81)
      }
    }
    #expect(result == .forbiddenCall)
  }

  @Test(arguments: [
    ("pathlib", "PosixPath"), ("datetime", "datetime"), ("functools", "partial"), ("fairseq.dataclass", "Choice"),
    ("__main__", "Config"), ("omegaconf.dictconfig", "DictConfig"), ("torch.optim.adamw", "AdamW"), ("re", "_compile"),
    ("collections", "deque"), ("builtins", "complex"), ("torch.nn.modules.linear", "Linear"), ("lib", "Outer.Inner"),
    ("numpy.random._pickle", "__randomstate_ctor"),
  ])
  func keepsRecordsOfClasses(module: String, name: String) throws {
    let path = try folder.write(
      torchArchive { builder in
        builder.dict([
          ("w", { $0.tensor("0", count: 6) }), ("x", { $0.reduce(module, name) { $0.text("a") } }),
        ])
      })
    let checkpoint = try CheckpointFormats.open(path: path)
    #expect(checkpoint.opaqueRecords == [module + "." + name])
    #expect(try checkpoint.stateDict().tensors.count == 1)
  }

  @Test func messagesName() {
    do {
      try readEverything(
        try folder.write(torchArchive { $0.reduce("os", "system") { $0.text("true") } }, as: "evil.pth"))
    } catch {
      let text = "\(error)"
      #expect(text.contains("os.system"))
      #expect(text.contains("evil.pth"))
      #expect(text.contains("not called"))
      #expect(text.contains("byte "))
    }
  }

  @Test(
    arguments: [
      0x2E, 0x30, 0x31, 0x32, 0x52, 0x61, 0x65, 0x73, 0x75, 0x62, 0x74, 0x64, 0x6C, 0x6F, 0x85, 0x86, 0x87,
      0x81, 0x92, 0x93, 0x94, 0x90, 0x91, 0x98, 0x51,
    ] as [UInt8])
  func emptyStacks(opcode: UInt8) {
    #expect(code { $0.op(opcode) } == .malformed)
    #expect(
      code {
        $0.op("("); $0.op(opcode); $0.op("N")
      } != nil)
  }

  @Test func oddStreams() {
    #expect(
      code {
        $0.op("h"); $0.op(UInt8(5))
      } == .malformed)
    #expect(code { $0.op(0xFF) } == .malformed)
    #expect(
      code {
        $0.op(0x80); $0.op(UInt8(6))
      } == .unsupported)
    #expect(code { $0.op(0x97) } == .unsupported)
    #expect(
      code {
        $0.op(0x82); $0.op(UInt8(1))
      } == .unsupported)
    #expect(
      code {
        $0.op(0x8D); $0.bytes += [1, 0, 0, 0, 0, 0, 0, 0x80]
      } == .truncated)
    #expect(
      code {
        $0.op(0x8E); $0.bytes += [UInt8](repeating: 0xFF, count: 8)
      } == .truncated)
    #expect(
      code {
        $0.op(0x96); $0.bytes += [0, 0, 0, 0, 0, 0, 0, 0x40]
      } == .truncated)
    #expect(
      code {
        $0.op(0x95); $0.bytes += [0, 0, 0, 0, 0, 0, 0, 0x80]
      } == .truncated)
    #expect(
      code {
        $0.op(0x8B); $0.bytes += [0xFF, 0xFF, 0xFF, 0xFF]
      } == .malformed)
    #expect(
      code {
        $0.op("T"); $0.bytes += [0xFF, 0xFF, 0xFF, 0xFF]
      } == .truncated)
    #expect(
      code {
        $0.op("I"); $0.bytes += [UInt8](repeating: 0x39, count: 60_000) + [10]
      } == .overBudget)
    #expect(
      code {
        $0.op("I"); $0.bytes += Array("12x\n".utf8)
      } == .malformed)
    #expect(
      code {
        $0.op("c"); $0.bytes += Array("os".utf8)
      } == .truncated)
    #expect(
      code {
        $0.op("X"); $0.little(2, 4); $0.bytes += [0xFF, 0xFE]
      } == .malformed)
    #expect(
      code {
        $0.op("}"); $0.op("("); $0.text("a"); $0.op("u")
      } == .malformed)
    #expect(
      code {
        $0.int(1); $0.op(")"); $0.op("R")
      } == .malformed)
    #expect(
      code {
        $0.global("torch", "Size"); $0.int(1); $0.op("R")
      } == .malformed)
    #expect(
      code {
        $0.tensor("0", count: 6); $0.int(0); $0.int(7); $0.op("s")
      } == .malformed)
    #expect(
      code {
        $0.int(1); $0.int(1); $0.op("b")
      } == .malformed)
    #expect(
      code {
        $0.op("N"); $0.op("."); $0.op("N")
      } == .trailingData)
    #expect(code { for _ in 0..<400_001 { $0.op("(") } } == .overBudget)
    #expect(
      code {
        $0.op("N"); for _ in 0..<400_001 { $0.op("2") }
      } == .overBudget)
    #expect(code { $0.op("N") } == .noTensors)
  }

  @Test func storages() {
    #expect(
      code {
        $0.text("storage"); $0.op("Q")
      } == .malformed)
    #expect(
      code {
        $0.tuple({ $0.text("storage") }, { $0.text("x") }); $0.op("Q")
      } == .malformed)
    #expect(code { $0.storage("0", "EvilStorage", count: 6) } == .unsupported)
    #expect(code { $0.storage("0", "OrderedDict", module: "collections", count: 6) } == .unsupported)
    #expect(code { $0.storage("1", count: 6) } == .missingRecord)
    #expect(code { $0.storage("../data/0", count: 6) } == .missingRecord)
    #expect(code { $0.storage("0\0", count: 6) } == .missingRecord)
    #expect(code { $0.storage("0", count: 5) } == .sizeMismatch)
    #expect(code { $0.storage("0", count: -6) } == .malformed)
    #expect(code { $0.storage("0", count: 1 << 62) } == .sizeMismatch)
    #expect(
      code {
        $0.storage("0", count: 6); $0.op("0"); $0.storage("0", "DoubleStorage", count: 3)
      } == .malformed)
  }

  /// The same dictionary in the opcodes of protocols 0 to 5.
  @Test func everyProtocol() throws {
    let call = "ctorch._utils\n_rebuild_tensor_v2\n"
    let zero = Array(
      "(dp0\nVw\np1\n\(call)p2\n((S'storage'\np3\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI6\ntQI0\n(I6\nt(L1L\ntI00\n(dtRs."
        .utf8)
    let four: [UInt8] = {
      func short(_ text: String) -> [UInt8] { [0x8C, UInt8(text.utf8.count)] + Array(text.utf8) }
      var body: [UInt8] =
        [0x7D, 0x94] + short("w") + [0x94] + short("torch._utils") + short("_rebuild_tensor_v2") + [0x93]
      body +=
        [0x28, 0x28] + short("storage") + short("torch") + short("FloatStorage") + [0x93] + short("0") + short("cpu")
      body += [0x4B, 6, 0x74, 0x51, 0x4B, 0, 0x4B, 6, 0x85, 0x4B, 1, 0x85, 0x89, 0x7D, 0x74, 0x52, 0x73, 0x2E]
      let count = (0..<8).map { UInt8(truncatingIfNeeded: body.count >> ($0 * 8)) }
      return [0x80, 4, 0x95] + count + body
    }()
    var five = four
    five[1] = 5
    for pickle in [zero, four, five] {
      let bytes = torchArchive(change: { $0.records[0].data = pickle }) { _ in }
      let read = try readEverything(try folder.write(bytes))
      #expect(read.map(\.tensor.name) == ["w"])
      #expect(read.map(\.bytes) == [floats(6)])
    }
  }

  @Test func textForms() throws {
    let path = try folder.write(
      torchArchive { builder in
        builder.dict([
          ("w", { $0.tensor("0", count: 6) }),
          (
            "s",
            {
              $0.op("S"); $0.bytes += Array("'a\\x41\\n\\\\'\n".utf8)
            }
          ),
          (
            "v",
            {
              $0.op("V"); $0.bytes += Array("a\\u00e9\\U0001F600\n".utf8)
            }
          ),
          (
            "f",
            {
              $0.op("F"); $0.bytes += Array("1.5\n".utf8)
            }
          ),
          (
            "t",
            {
              $0.op("I"); $0.bytes += Array("01\n".utf8)
            }
          ),
          (
            "l",
            {
              $0.op(0x8A); $0.bytes += [2, 0xFE, 0xFF]
            }
          ),
          (
            "big",
            {
              $0.op(0x8A); $0.bytes += [9] + Array(1...9)
            }
          ),
          (
            "py2",
            {
              $0.op("U"); $0.bytes += [2] + Array("hi".utf8)
            }
          ),
        ])
      })
    let metadata = try CheckpointFormats.open(path: path).metadata
    #expect(metadata["s"] == .string("aA\n\\"))
    #expect(metadata["v"] == .string("aé😀"))
    #expect(metadata["f"] == .real(1.5))
    #expect(metadata["t"] == .bool(true))
    #expect(metadata["l"] == .integer(-2))
    #expect(metadata["big"] == nil)
    #expect(metadata["py2"] == .string("hi"))
  }
}

/// Small files that ask for much work or memory.
@Suite struct PickleBombTests {
  private func code(
    deflated: Bool = true, _ pickle: (inout PickleBuilder) -> Void
  ) throws -> CheckpointErrorCode? {
    let folder = try TemporaryFolder()
    let bytes = torchArchive(change: { $0.records[0].isDeflated = deflated }, pickle: pickle)
    return errorCode { try readEverything(try? folder.write(bytes)) }
  }

  private func readEverything(_ path: String?) throws {
    if let path { try MultiwayCheckpointTests.readEverything(path) }
  }

  private func remember(_ key: UInt8, _ builder: inout PickleBuilder) {
    builder.op("q")
    builder.op(key)
  }

  private func recall(_ key: UInt8, _ builder: inout PickleBuilder) {
    builder.op("h")
    builder.op(key)
  }

  /// Every member of the root leads to the same large list.
  @Test func sharedLists() throws {
    let result = try code { builder in
      builder.op("]")
      builder.op("(")
      for _ in 0..<20_000 { builder.op("N") }
      builder.op("e")
      remember(0, &builder)
      builder.op("0")
      builder.op("]")
      builder.op("(")
      for _ in 0..<20_000 {
        builder.op("]")
        recall(0, &builder)
        builder.op("a")
      }
      builder.op("e")
    }
    #expect(result == .overBudget)
  }

  /// A long key above many tensors makes long names.
  @Test func longNames() throws {
    let result = try code { builder in
      builder.op("}")
      builder.text(String(repeating: "x", count: 200_000))
      builder.op("}")
      builder.op("(")
      builder.text("0")
      builder.tensor("0", count: 6)
      remember(0, &builder)
      for index in 1..<1000 {
        builder.text(String(index))
        recall(0, &builder)
      }
      builder.op("u")
      builder.op("s")
    }
    #expect(result == .overBudget)
  }

  @Test func longGlobals() throws {
    #expect(try code { $0.reduce(String(repeating: "x", count: 2000), "Y") { _ in } } == .overBudget)
  }

  /// Metadata that is a lattice of shared lists is cut off, not followed to its end.
  @Test func metadataLattice() throws {
    let result = try code { builder in
      builder.op("}")
      builder.text("w")
      builder.tensor("0", count: 6)
      builder.op("s")
      builder.text("args")
      builder.text("leaf")
      for level in 0..<30 {
        remember(UInt8(level), &builder)
        builder.op("0")
        builder.op("(")
        for _ in 0..<10 { recall(UInt8(level), &builder) }
        builder.op("l")
      }
      builder.op("s")
    }
    #expect(result == nil)
  }

  /// Views whose strides are 0 add up to more than the file justifies.
  @Test func expandedViews() throws {
    let result = try code { builder in
      builder.dict(
        (0..<20).map { index in
          ("\(index)", { $0.tensor("0", count: 6, size: [1 << 20, 6], stride: [0, 1]) })
        })
    }
    #expect(result == .overBudget)
  }
}
