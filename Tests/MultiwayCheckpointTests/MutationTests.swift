import Foundation
import MultiwayCheckpoint
import MultiwayCore
import Testing

/// Random damage to every file of the corpora: whatever comes out, it is a result or an error of the project, never a trap.
/// Set MULTIWAY_MUTATIONS for more rounds, MULTIWAY_SEED for others.
@Suite struct MutationTests {
  private struct Generator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var value = state
      value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
      value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
      return value ^ value >> 31
    }
  }

  private static func setting(_ name: String, _ fallback: Int) -> Int {
    ProcessInfo.processInfo.environment[name].flatMap { Int($0) } ?? fallback
  }

  @Test(arguments: ["safetensors", "pytorch", "gguf", "zstd"]) func damage(format: String) throws {
    let folder = try TemporaryFolder()
    var generator = Generator(state: UInt64(MutationTests.setting("MULTIWAY_SEED", 1)))
    for part in ["golden", "malformed"] {
      let path = "\(repositoryRoot)/Formats/\(format)/\(part)"
      for item in try CorpusCase.cases(in: path) where !item.path.contains("deep_") {
        let bytes = try contents(of: item.path)
        guard !bytes.isEmpty, bytes.count < 8000 else { continue }
        for _ in 0..<MutationTests.setting("MULTIWAY_MUTATIONS", 5) {
          let file = try folder.write(MutationTests.mutated(bytes, &generator))
          do {
            try readEverything(file)
          } catch is any DiagnosedError {
            // An error is a good answer.
          } catch {
            Issue.record("\(item.path): an error of a foreign type: \(error)")
          }
        }
      }
    }
  }

  /// The same for pickles, in archives whose checksums are right, so that the damage reaches the interpreter.
  @Test func damagedPickles() throws {
    let folder = try TemporaryFolder()
    var generator = Generator(state: UInt64(MutationTests.setting("MULTIWAY_SEED", 1)))
    let seed = PickleBuilder.pickle { MutationTests.everything(&$0) }
    #expect(throws: Never.self) {
      try readEverything(try folder.write(torchArchive(change: { $0.records[0].data = seed }) { _ in }))
    }
    for _ in 0..<MutationTests.setting("MULTIWAY_MUTATIONS", 5) * 100 {
      let pickle = MutationTests.mutated(seed, &generator)
      let file = try folder.write(torchArchive(change: { $0.records[0].data = pickle }) { _ in })
      do {
        try readEverything(file)
      } catch is any DiagnosedError {
        // An error is a good answer.
      } catch {
        Issue.record("an error of a foreign type: \(error)")
      }
    }
  }

  /// A pickle with a little of everything.
  private static func everything(_ builder: inout PickleBuilder) {
    builder.dict([
      (
        "model",
        { model in
          model.reduce("collections", "OrderedDict") { _ in }
          model.op("(")
          model.text("a.w")
          model.tensor("0", count: 6, size: [2, 3], stride: [3, 1])
          model.text("a.t")
          model.tensor("0", count: 6, offset: 1, size: [2, 2], stride: [1, 2])
          model.text("p")
          model.reduce("torch._utils", "_rebuild_parameter") {
            $0.tensor("0", count: 6, size: [1], stride: [1])
            $0.op(0x88)
            $0.op("}")
          }
          model.op("u")
          model.dict([("_metadata", { $0.dict([("", { $0.dict([("version", { $0.int(1) })]) })]) })])
          model.op("b")
        }
      ),
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
                $0.op("F"); $0.bytes += Array("1.5\n".utf8)
              }
            ), ("x", { $0.ints([1, 2, 1 << 40]) }),
          ])
          args.op("b")
        }
      ),
      (
        "array",
        { array in
          array.reduce("numpy.core.multiarray", "_reconstruct") {
            $0.global("numpy", "ndarray")
            $0.ints([0])
            $0.text("b")
          }
          array.op("(")
          array.int(1)
          array.ints([2])
          array.reduce("numpy", "dtype") {
            $0.text("i2"); $0.op(0x89); $0.op(0x88)
          }
          array.op(0x88)
          array.op("C")
          array.bytes += [4, 1, 2, 3, 4]
          array.op("t")
          array.op("b")
        }
      ),
      (
        "memo",
        { memo in
          memo.op("]")
          memo.op("q")
          memo.op(UInt8(1))
          memo.op("(")
          memo.op("h")
          memo.op(UInt8(1))
          memo.op("V")
          memo.bytes += Array("\\u00e9\n".utf8)
          memo.op("S")
          memo.bytes += Array("'x\\n'\n".utf8)
          memo.op(0x8F)
          memo.op("(")
          memo.op("N")
          memo.op(0x90)
          memo.op("e")
        }
      ),
    ])
  }

  private static let interesting: [UInt8] = [
    0, 1, 0x7F, 0x80, 0xFE, 0xFF, 0x28, 0x29, 0x2E, 0x30, 0x31, 0x32, 0x52, 0x5D, 0x7D,
  ]

  private static func mutated(_ bytes: [UInt8], _ generator: inout Generator) -> [UInt8] {
    var bytes = bytes
    for _ in 0..<Int.random(in: 1...6, using: &generator) where bytes.count > 16 {
      let position = Int.random(in: 0..<bytes.count, using: &generator)
      let count = min(Int.random(in: 1...8, using: &generator), bytes.count - position)
      switch Int.random(in: 0..<7, using: &generator) {
      case 0: bytes[position] = UInt8.random(in: 0...255, using: &generator)
      case 1: bytes[position] = interesting.randomElement(using: &generator) ?? 0
      case 2: for index in position..<position + count { bytes[index] = 0xFF }
      case 3: for index in position..<position + count { bytes[index] = 0 }
      case 4: bytes.removeSubrange(position..<position + count)
      case 5: bytes.insert(contentsOf: bytes[position..<position + count], at: position)
      default:
        let other = Int.random(in: 0...bytes.count - count, using: &generator)
        bytes.replaceSubrange(position..<position + count, with: Array(bytes[other..<other + count]))
      }
    }
    return bytes
  }
}
