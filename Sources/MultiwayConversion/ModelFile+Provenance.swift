import MultiwayArtifact
import MultiwayCheckpoint
public import MultiwayCore

extension ModelFile {
  /// The same file with the SHA-256 of every file that it is made of, which its outputs then record. Reads them whole.
  public func hashed() throws -> ModelFile {
    switch self {
    case .checkpoint(var checkpoint):
      for place in checkpoint.files.indices {
        checkpoint.files[place].sha256 = try SHA256.digest(of: checkpoint.files[place])
      }
      return .checkpoint(checkpoint)
    case .artifact(var artifact):
      artifact.file.sha256 = try SHA256.digest(of: artifact.file)
      for place in artifact.dataFiles.indices {
        artifact.dataFiles[place].sha256 = try SHA256.digest(of: artifact.dataFiles[place])
      }
      return .artifact(artifact)
    }
  }

  /// Where an output of this file comes from.
  /// - Parameter options: what the verb was told; what it was not told is nil.
  func provenance(verb: String, _ options: KeyValuePairs<String, String?>) -> Provenance {
    var recipe: JSONObject = ["verb": .string(verb)]
    for (key, value) in options { recipe[key] = value.map { .string($0) } }
    return Provenance(
      tool: "multiway " + MultiwayVersion.current, recipe: recipe, files: sourceFiles, metadata: sourceMetadata)
  }

  /// The files that it is made of, and then those that they say they were made from.
  var sourceFiles: [SourceFile] {
    let files =
      switch self {
      case .checkpoint(let checkpoint): checkpoint.files
      case .artifact(let artifact): artifact.files
      }
    return files.map { SourceFile(path: $0.path, byteCount: $0.byteCount, sha256: $0.sha256) } + recordedFiles
  }

  /// The files that this one says it was made from.
  public var recordedFiles: [SourceFile] {
    switch self {
    case .checkpoint(let checkpoint): checkpoint.recordedFiles
    case .artifact(let artifact): artifact.metadata.sources
    }
  }

  /// How long the source's own words may be, as JSON: more is no description of a model.
  private static let maximumMetadataSize = 1 << 20

  /// What the source says about itself, without what we said about it; of very much only what is no list and no object.
  var sourceMetadata: JSONObject {
    guard case .checkpoint(let checkpoint) = self else {
      if case .artifact(let artifact) = self { return artifact.metadata.sourceMetadata }
      return JSONObject()
    }
    var all = JSONObject()
    var plain = JSONObject()
    for (key, value) in checkpoint.metadata.members where !ModelFile.isOwn(key) {
      all[key] = value
      if value.array == nil, value.object == nil { plain[key] = value }
    }
    return [all, plain].first { JSONValue.object($0).text().utf8.count <= ModelFile.maximumMetadataSize }
      ?? JSONObject()
  }

  /// The licence that the source names.
  var license: String? {
    guard case .checkpoint(let checkpoint) = self else { return nil }
    return ["license", "general.license"].lazy.compactMap { checkpoint.metadata[$0]?.string }.first
  }

  /// True for metadata keys of ours, which another output has anew.
  static func isOwn(_ key: String) -> Bool { key == "multiway" || key.hasPrefix("multiway.") }
}
