import MultiwayCheckpoint
import MultiwayCore
import MultiwayTestSupport
import Testing

/// Numbers that repeat, so that a large checkpoint costs no memory to make.
private final class RepeatingStorage: TensorStorage {
  let byteCount: Int
  private let pattern: TensorBytes

  init(byteCount: Int) {
    self.byteCount = byteCount
    var generator = SeededGenerator(seed: 1)
    pattern = TensorBytes(copying: generator.floats(StoredTensor.pieceSize / 4))
  }

  var workingByteCount: Int { 0 }
  func load() throws(TensorError) -> TensorBytes { throw TensorError(.unsupported, "only parts can be loaded") }
  func load(in range: Range<Int>) -> TensorBytes { pattern.extracting(0..<range.count) }
  func discard() {}
}

/// `--max-memory` is a promise: what the system counts for the process stays below it, and the output is the same.
@Suite struct MemoryTests {
  private let folder: TemporaryFolder
  private let checkpoint: String

  /// The tiny classifier with a head of 1.5 million classes: one tensor of 192 MB.
  init() throws {
    folder = try TemporaryFolder()
    checkpoint = folder.path("large.safetensors")
    let tiny = try Fixtures.checkpoint("tiny/classification.pth")
    let tensors = try tiny.stateDict().tensors.map { tensor in
      guard tensor.name.hasPrefix("head.") else { return tensor }
      let shape = Shape([1_500_000] + tensor.shape.dimensions.dropFirst())
      return StoredTensor(
        name: tensor.name, dtype: .f32, shape: shape,
        storage: RepeatingStorage(byteCount: shape.elementCount * 4))
    }
    try SafetensorsWriter.write(tensors, metadata: ["num_attention_heads": "4"], to: checkpoint)
  }

  private func digest(_ name: String) throws -> String {
    let file = try MappedFile(path: folder.path(name))
    return try TensorDigest.of(
      StoredTensor(
        name: name, dtype: .u8, shape: [file.byteCount], storage: FileRange(file: file, range: 0..<file.byteCount)))
  }

  @Test(arguments: [
    ["quantize", "out.gguf"], ["convert", "out.safetensors"], ["convert", "out.gguf", "--dtype", "bf16"],
    ["prune", "out.safetensors", "--keep", "vision"],
  ]) func theBudgetHoldsAndTheBytesAreTheSame(command: [String]) throws {
    let (verb, name, options) = (command[0], command[1], Array(command[2...]))
    let free = try CommandLineRun([verb, checkpoint, folder.path(name)] + options)
    #expect(free.status == 0, "\(free.errors)")
    let unlimited = try digest(name)
    let limit = 96_000_000
    let run = try CommandLineRun(
      [verb, checkpoint, folder.path(name), "--force", "--json", "--max-memory", "96MB"] + options)
    #expect(run.status == 0, "\(run.errors)")
    let peak = try #require(try run.json["peak_memory_bytes"]?.integer)
    // Less than a tensor, and more than an empty process: the figure is no accident.
    #expect(peak <= limit && peak > 8_000_000)
    #expect(try digest(name) == unlimited)
  }

  /// A budget that cannot hold is refused before anything is written, and the error tells one that does.
  @Test func aBudgetThatIsTooSmallIsRefused() throws {
    let output = folder.path("small.gguf")
    let run = try multiway("quantize", checkpoint, output, "--max-memory", "1MB", expecting: 64)
    #expect(run.errors.contains("too small"))
    let size = try #require(run.errors.split(separator: " ").first { $0.hasSuffix("MB") && $0 != "1MB" })
    #expect(try !folder.names().contains("small.gguf"))
    let budget = try MemoryBudget(String(size.prefix { $0 != "\n" }))
    #expect(budget.byteCount < 96_000_000)
    try multiway("quantize", checkpoint, output, "--max-memory", "\(budget.byteCount + 4_000_000)")
  }

  @Test func nonsenseIsAUsageError() throws {
    let run = try multiway("convert", checkpoint, folder.path("o.gguf"), "--max-memory", "lots", expecting: 64)
    #expect(run.errors.contains("'lots' is no amount of memory"))
  }
}
