public import MultiwayCore

/// Where a safetensors or PyTorch file comes from, and the digests of its tensors: one metadata value, a JSON object
/// (Formats/safetensors/README.md).
public struct SafetensorsProvenance: ~Copyable {
  /// The key in `__metadata__`.
  public static let key = Provenance.key

  private let provenance: Provenance
  private let names: [String]
  private var digests: [String]
  /// The digests of the tensors that were read.
  let sources: SourceLedger
  private var digest = TensorDigest()
  /// The digest of what belongs to no tensor; the placeholder until it is known.
  var header = HeaderDigest.placeholder

  /// Describes a file of `tensors`, whose digests are not known yet.
  init(_ provenance: Provenance, of tensors: [StoredTensor]) {
    self.provenance = provenance
    names = tensors.map(\.name)
    digests = tensors.map { _ in TensorDigest.placeholder }
    sources = SourceLedger(of: tensors.flatMap(\.sources))
  }

  /// Adds bytes of the current tensor.
  mutating func update(_ bytes: borrowing RawSpan) { digest.update(bytes) }

  /// Ends the current tensor.
  /// - Parameter unchanged: the source that it has the elements of.
  mutating func finish(at index: Int, unchanged: StoredTensor?) {
    digests[index] = digest.finish()
    if let unchanged { sources.note(digests[index], of: unchanged) }
  }

  /// The metadata value; it is as long before the digests are known as after.
  var text: String { provenance.text(of: names, digests: digests, sources: sources.current, header: header) }
}

extension Checkpoint {
  /// The source files that a file of ours names; none where it names none that can be read.
  public var recordedFiles: [SourceFile] {
    (provenance?["source_files"]?.array ?? []).compactMap { file in
      guard let name = file["name"]?.string, let byteCount = file["bytes"]?.integer, byteCount >= 0 else { return nil }
      return SourceFile(path: name, byteCount: byteCount, sha256: file["sha256"]?.string)
    }
  }

  /// The digests of the tensors by name, as a safetensors file of ours records them; nil where it records none.
  public func recordedDigests() throws(CheckpointError) -> [String: String]? {
    guard let text = metadata[SafetensorsProvenance.key]?.string else { return nil }
    guard let object = provenance, let algorithm = object["digest"]?.string,
      algorithm == TensorDigest.algorithm || HeaderDigest.isDigest(algorithm),
      let members = object["tensors"]?.object?.members,
      members.allSatisfy({ $0.value.string.map(TensorDigest.isDigest) == true })
    else {
      throw CheckpointError(
        .malformed, "the metadata value '\(SafetensorsProvenance.key)' of \(text.utf8.count) bytes holds no digests",
        expected: "a JSON object with \(TensorDigest.algorithm) digests of all tensors", file: path)
    }
    return Dictionary(members.map { ($0.key, $0.value.string ?? "") }) { first, _ in first }
  }

  /// The digest of what belongs to no tensor, as a file of ours records it; nil where it records none.
  public var recordedHeaderDigest: String? {
    provenance?["digest"]?.string.flatMap { HeaderDigest.isDigest($0) ? $0 : nil }
  }

  private var provenance: JSONValue? {
    metadata[SafetensorsProvenance.key]?.string.flatMap { try? JSONParser.parse(Array($0.utf8)) }
  }
}
