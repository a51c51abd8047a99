import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayParity
import MultiwayTestSupport
import Testing

/// What `diff` finds: by names, and across containers and layouts by parameters.
@Suite struct DifferenceTests {
  private let bench: Workbench

  init() throws { bench = try Workbench() }

  private func difference(_ first: String, _ second: String) throws -> Difference {
    try Difference(try ModelFile.open(first), try ModelFile.open(second), options: InputOptions())
  }

  @Test(arguments: ["out.safetensors", "out.pth", "out.gguf"])
  func anotherContainerIsNoDifference(name: String) throws {
    let source = Fixtures.path("tiny/features.pth")
    try bench.convert(source, to: name)
    let found = try difference(source, bench.folder.path(name))
    // An artifact holds what the graph reads, in the shapes in which it does.
    #expect(found.pairs.allSatisfy(\.hasEqualBytes) && !found.pairs.isEmpty)
    #expect(found.usesCanonicalNames == (name == "out.gguf"))
    #expect(found.isEmpty == (name != "out.gguf"))
    #expect(found.onlyInSecond.isEmpty)
  }

  @Test(arguments: ["timm.safetensors", "huggingface"])
  func anotherLayoutIsNoDifference(other: String) throws {
    let folder = "family/beit_classification/"
    let found = try difference(Fixtures.path(folder + "unilm.pth"), Fixtures.path(folder + other))
    #expect(found.usesCanonicalNames)
    #expect(found.pairs.count > 20 && found.pairs.allSatisfy(\.isEqual))
  }

  @Test func whatDiffersIsMeasured() throws {
    func file(_ name: String, _ tensors: [StoredTensor]) throws -> String {
      try SafetensorsWriter.write(tensors, to: bench.folder.path(name))
      return bench.folder.path(name)
    }
    func tensor(_ name: String, _ values: [Float], _ shape: Shape? = nil) -> StoredTensor {
      StoredTensor(name: name, dtype: .f32, shape: shape ?? [values.count], elements: values)
    }
    let first = try file(
      "a.safetensors",
      [
        tensor("same", [1, 2]), tensor("value", [3, 4, 0]), tensor("shape", [1, 2], [2, 1]), tensor("dtype", [1, 0.5]),
        tensor("gone", [1]),
      ])
    let second = try file(
      "b.safetensors",
      [
        tensor("same", [1, 2]), tensor("value", [3, 4, 0.5]), tensor("shape", [1, 2]), tensor("new", [1]),
        StoredTensor(name: "dtype", dtype: .f16, shape: [2], elements: [0x3C00, 0x3800] as [UInt16]),
      ])
    let found = try difference(first, second)
    #expect(!found.isEmpty && !found.usesCanonicalNames)
    #expect(found.onlyInFirst == ["gone"] && found.onlyInSecond == ["new"])
    let pairs = Dictionary(uniqueKeysWithValues: found.pairs.map { ($0.name, $0) })
    #expect(pairs.count == 4 && pairs["same"]?.isEqual == true && pairs["same"]?.comparison == nil)
    #expect(pairs["value"]?.comparison?.maximumDifference == 0.5)
    // 10 · log₁₀(25 / 0.25).
    #expect(abs((pairs["value"]?.comparison?.sqnr ?? 0) - 20) < 1e-9)
    #expect(pairs["shape"]?.isEqual == false && pairs["shape"]?.hasEqualBytes == true)
    #expect(pairs["dtype"]?.isEqual == false && pairs["dtype"]?.comparison?.isExact == true)
    #expect(try difference(first, first).isEmpty)
  }
}
