public import MultiwayCore

/// The metadata keys by which a GGUF file tells where it comes from and what its tensors' digests are. The registry is
/// Formats/gguf/README-artifact.md.
public enum GGUFDigests {
  /// The source files' names.
  public static let sourceNames = "multiway.source.names"
  /// The source files' sizes.
  public static let sourceByteCounts = "multiway.source.byte_counts"
  /// The SHA-256 of the source files, empty where it is not known.
  public static let sourceSHA256 = "multiway.source.sha256"
  /// What the source says about itself, as JSON.
  public static let sourceMetadata = "multiway.source.metadata"
  static let sourceTensorNames = "multiway.source.tensor_names"
  static let sourceTensorDigests = "multiway.source.tensor_digests"
  static let algorithm = "multiway.digest"
  static let tensorDigests = "multiway.tensor_digests"

  /// The pairs about source files.
  public static func pairs(_ files: [SourceFile], metadata: JSONObject) -> [(key: String, value: GGUFValue)] {
    var pairs: [(key: String, value: GGUFValue)] = [
      (sourceNames, .array(.string(files.map(\.name)))),
      (sourceByteCounts, .array(.u64(files.map { UInt64(max(0, $0.byteCount)) }))),
    ]
    if files.contains(where: { $0.sha256 != nil }) {
      pairs.append((sourceSHA256, .array(.string(files.map { $0.sha256 ?? "" }))))
    }
    if !metadata.members.isEmpty { pairs.append((sourceMetadata, .string(JSONValue.object(metadata).text()))) }
    return pairs
  }

  /// The pairs with digests: of the tensors that were read, and of the file's own in their order. `GGUFWriter.finish` adds that of
  /// everything else.
  public static func pairs(_ sources: SourceDigests, tensors: [String]) -> [(key: String, value: GGUFValue)] {
    [
      (sourceTensorNames, .array(.string(sources.names))), (sourceTensorDigests, .array(.string(sources.digests))),
      (algorithm, .string(HeaderDigest.placeholder)), (tensorDigests, .array(.string(tensors))),
    ]
  }

  /// The source files that a container names, and its digests of the tensors that were read.
  public static func files(_ container: GGUFContainer) throws(GGUFError) -> [SourceFile] {
    let names = try strings(sourceNames, container)
    let counts = container[sourceByteCounts].map { $0.integers } ?? []
    guard let counts, counts.count == names.count, counts.allSatisfy({ $0 >= 0 }) else {
      throw malformed(sourceByteCounts, container, expected: "\(names.count) sizes")
    }
    let sums = try strings(sourceSHA256, container)
    guard sums.isEmpty || sums.count == names.count else {
      throw malformed(sourceSHA256, container, expected: "\(names.count) strings")
    }
    return names.indices.map { place in
      let sum = sums.isEmpty || sums[place].isEmpty ? nil : sums[place]
      return SourceFile(path: names[place], byteCount: counts[place], sha256: sum)
    }
  }

  /// The digests of a container's own tensors in their order; nil where it has none.
  public static func tensorDigests(of container: GGUFContainer) throws(GGUFError) -> [String]? {
    guard let value = container[algorithm] else { return nil }
    guard value == .string(TensorDigest.algorithm) || value.string.map(HeaderDigest.isDigest) == true else {
      throw malformed(algorithm, container, expected: "\(TensorDigest.algorithm), alone or with a digest")
    }
    let digests = try strings(tensorDigests, container)
    guard digests.count == container.tensors.count, digests.allSatisfy(TensorDigest.isDigest) else {
      throw malformed(tensorDigests, container, expected: "\(container.tensors.count) digests of 32 hexadecimal digits")
    }
    return digests
  }

  /// The digest of what belongs to no tensor, as a container records it; nil where it records none.
  public static func headerDigest(of container: GGUFContainer) -> String? {
    container[algorithm]?.string.flatMap { HeaderDigest.isDigest($0) ? $0 : nil }
  }

  /// Pairs of a container as they are to be written again: the digest of what belongs to no tensor, if there is one, is taken anew.
  public static func renewed(
    _ pairs: [(key: String, value: GGUFValue)]
  ) -> [(key: String, value: GGUFValue)] {
    pairs.map { key, value in
      let isHeaderDigest = key == algorithm && value.string.map(HeaderDigest.isDigest) == true
      return (key, isHeaderDigest ? .string(HeaderDigest.placeholder) : value)
    }
  }

  private static func strings(_ key: String, _ container: GGUFContainer) throws(GGUFError) -> [String] {
    guard let value = container[key] else { return [] }
    guard let strings = value.strings else { throw malformed(key, container, expected: "an array of strings") }
    return strings
  }

  private static func malformed(_ key: String, _ container: GGUFContainer, expected: String) -> GGUFError {
    GGUFError(
      .malformed, "the key '\(key)' is of another type or length", expected: expected, file: container.file.path)
  }
}
