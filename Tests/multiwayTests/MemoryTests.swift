import Foundation
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
    ["prune", "out.safetensors", "--keep", "vision"], ["quantize", "out.gguf", "--recipe", "int4"],
    ["quantize", "out.gguf", "--recipe", "int8-weights"],
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

  /// Work of which no budget is known beforehand: what is too small is refused with nothing written, and the budget that the error names
  /// holds, with the same bytes.
  @Test(arguments: [
    ["convert", "out.onnx"], ["convert", "out.onnx", "--int8", "dynamic"],
    ["convert", "out.onnx", "--int8", "qdq", "--calibration", "tiny/classification_inputs.safetensors"],
    ["quantize", "out.gguf", "--calibration", "tiny/classification_inputs.safetensors"],
  ]) func theBudgetThatIsNamedHolds(command: [String]) throws {
    let (verb, name) = (command[0], command[1])
    let options = command[2...].map { $0.hasSuffix(".safetensors") ? Fixtures.path($0) : $0 }
    let free = try CommandLineRun([verb, checkpoint, folder.path(name)] + options)
    #expect(free.status == 0, "\(free.errors)")
    let files = try folder.names().filter { $0.hasPrefix(name) }
    let unlimited = try files.map(digest)
    for file in files { try FileManager.default.removeItem(atPath: folder.path(file)) }
    var budget = 48_000_000
    // The first error may be of the run on examples, the next of what is written.
    for _ in 0..<3 {
      let run = try CommandLineRun([verb, checkpoint, folder.path(name)] + options + ["--max-memory", "\(budget)"])
      guard run.status != 0 else { break }
      #expect(run.status == 64 && run.errors.contains("too small"), "\(run.errors)")
      #expect(try !folder.names().contains { $0.hasPrefix(name) })
      let size = try #require(run.errors.split(whereSeparator: \.isWhitespace).first { $0.hasSuffix("MB") })
      let named = try MemoryBudget(String(size)).byteCount
      #expect(named > budget)
      budget = named + 4_000_000
    }
    #expect(budget < 900_000_000)
    #expect(try folder.names().filter { $0.hasPrefix(name) } == files)
    #expect(try files.map(digest) == unlimited)
  }

  @Test func nonsenseIsAUsageError() throws {
    let run = try multiway("convert", checkpoint, folder.path("o.gguf"), "--max-memory", "lots", expecting: 64)
    #expect(run.errors.contains("'lots' is no amount of memory"))
  }
}
