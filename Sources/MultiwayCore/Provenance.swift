/// A file that an output was made from.
public struct SourceFile: Hashable, Sendable {
  /// The name without its folders, so that an output does not tell where it was made.
  public var name: String
  /// The size in bytes.
  public var byteCount: Int
  /// The SHA-256 of the whole file in hexadecimal digits, where somebody asked for it.
  public var sha256: String?

  /// Names a source; the folders of `path` are left out.
  public init(path: String, byteCount: Int, sha256: String? = nil) {
    name = path.split(separator: "/").last.map(String.init) ?? path
    self.byteCount = byteCount
    self.sha256 = sha256
  }
}

/// Where an output comes from: what it says of itself beside its tensors and their digests.
public struct Provenance: Hashable, Sendable {
  /// What wrote it: `multiway 0.1.0`.
  public var tool: String
  /// What was done: a verb and its options, or a recipe.
  public var recipe: JSONObject
  /// The files that were read, and then those that they say they were made from.
  public var files: [SourceFile]
  /// What the source says about itself: plain facts beside its tensors.
  public var metadata: JSONObject

  /// Describes an origin.
  public init(tool: String, recipe: JSONObject, files: [SourceFile], metadata: JSONObject = JSONObject()) {
    self.tool = tool
    self.recipe = recipe
    self.files = files
    self.metadata = metadata
  }
}

extension Provenance {
  /// The key of the metadata value that holds `text(of:digests:sources:)`, in the formats whose metadata is texts by keys.
  public static let key = "multiway"
  private static let format = 1

  /// The origin and all digests as a JSON object (Formats/safetensors/README.md). It is as long before the digests are known as after.
  /// - Parameters:
  ///   - names: the names of the output's tensors, and `digests` theirs.
  ///   - header: the digest of everything else in the file, as `HeaderDigest` gives it.
  public func text(
    of names: [String], digests: [String], sources: SourceDigests, header: String = HeaderDigest.placeholder
  ) -> String {
    let files = files.map { file in
      var object: JSONObject = ["name": .string(file.name), "bytes": .integer(file.byteCount)]
      if let sum = file.sha256 { object["sha256"] = .string(sum) }
      return JSONValue.object(object)
    }
    return JSONValue.object([
      "format": .integer(Provenance.format), "tool": .string(tool), "recipe": .object(recipe),
      "source_files": .array(files), "digest": .string(header),
      "source_tensors": Provenance.object(sources.names, sources.digests),
      "tensors": Provenance.object(names, digests),
    ]).text()
  }

  private static func object(_ names: [String], _ digests: [String]) -> JSONValue {
    var object = JSONObject()
    for (name, digest) in zip(names, digests) { object[name] = .string(digest) }
    return .object(object)
  }
}

/// The digests of the tensors that an output is computed from, each once, in the order of their first use.
///
/// The digest of a tensor is that of its elements in C order and little-endian, whatever the file holds them as.
public struct SourceDigests {
  /// The tensors' names in their file.
  public private(set) var names: [String] = []
  /// The digests; the placeholder for those that are not known yet.
  public private(set) var digests: [String] = []
  private var places: [String: Int] = [:]

  /// How much of a tensor is read before its pages are let go.
  /// Lists `tensors`. Those that were computed in memory come from no file and are left out.
  public init(of tensors: [StoredTensor]) {
    for tensor in tensors where !(tensor.storage is MemoryStorage) && places[tensor.name] == nil {
      places[tensor.name] = names.count
      names.append(tensor.name)
      digests.append(TensorDigest.placeholder)
    }
  }

  /// Reads a tensor, unless its digest is known.
  public mutating func read(_ tensor: StoredTensor) throws(TensorError) {
    guard let place = places[tensor.name], digests[place] == TensorDigest.placeholder else { return }
    digests[place] = try TensorDigest.of(tensor)
  }

  /// Takes a digest that was computed on the way.
  public mutating func note(_ digest: String, of tensor: StoredTensor) {
    guard let place = places[tensor.name] else { return }
    digests[place] = digest
  }
}

extension TensorDigest {
  /// Reads a tensor and gives the digest of its elements in C order and little-endian; pages are let go behind the reader.
  public static func of(_ tensor: StoredTensor) throws(TensorError) -> String {
    var digest = TensorDigest()
    do {
      try tensor.stream(pieceSize: StoredTensor.pieceSize) { piece in
        digest.update(piece.span)
        tensor.discard()
      }
    } catch let error as TensorError {
      throw error
    } catch let error as any DiagnosedError {
      throw TensorError(.corrupt, error.diagnosis)
    } catch {
      throw TensorError(.corrupt, "\(error)", tensor: tensor.name)
    }
    try tensor.storage.verify()
    return digest.finish()
  }
}

extension StoredTensor {
  /// The tensors of files that the elements are computed from: the tensor itself where it is stored in one.
  public var sources: [StoredTensor] { storage.origins ?? [self] }
}
