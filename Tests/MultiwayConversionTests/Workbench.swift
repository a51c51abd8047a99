import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayTestSupport
import Testing

/// A folder for the outputs of one test, and the conversions that tests want.
struct Workbench {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// A fixture's model; the name is without `.pth`.
  func load(_ fixture: String) throws -> LoadedModel { try LoadedModel(path: Fixtures.path(fixture + ".pth")) }

  /// Quantizes a fixture, or stores it in half precision, and opens the artifact.
  func artifact(_ fixture: String, _ recipe: Recipe, name: String = "out.gguf") throws -> LoadedModel {
    _ = try Conversions.quantize(try load(fixture), recipe: recipe, to: folder.path(name), overwrite: false)
    return try LoadedModel(path: folder.path(name))
  }

  /// Converts a file and says what became of it.
  @discardableResult
  func convert(
    _ input: String, to name: String, dtype: DType? = nil, overwrite: Bool = false
  ) throws -> ConversionReport {
    try Conversions.convert(
      try ModelFile.open(input), options: InputOptions(), dtype: dtype, to: folder.path(name), overwrite: overwrite)
  }

  /// The tensors of a checkpoint in the folder, by name.
  func tensors(_ name: String) throws -> [String: StoredTensor] { try Workbench.tensors(folder.path(name)) }

  static func tensors(_ path: String) throws -> [String: StoredTensor] {
    let tensors = try CheckpointFormats.open(path: path).stateDict().tensors
    return Dictionary(uniqueKeysWithValues: tensors.map { ($0.name, $0) })
  }
}

extension StoredTensor {
  /// The elements in C order, as bytes.
  var plainBytes: [UInt8] {
    get throws { try contiguousBytes().array(of: UInt8.self) }
  }
}

/// Fails unless `body` throws an error of a code.
@discardableResult
func expect<Code: FailureCode>(
  _ code: Code, sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Void
) -> Diagnosis? {
  let error = #expect(throws: Failure<Code>.self, sourceLocation: sourceLocation) { try body() }
  #expect(error?.code == code, sourceLocation: sourceLocation)
  return error?.diagnosis
}
