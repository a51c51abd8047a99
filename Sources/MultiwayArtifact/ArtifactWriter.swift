public import MultiwayCore
import MultiwayGGUF
public import MultiwayGraph
import MultiwayQuantization

/// Writes artifacts. The same graph and metadata give the same bytes on every run: nothing of the time, the machine or the folder
/// goes in.
public enum ArtifactWriter {
  /// The revision of quantized formats that `general.quantization_version` names.
  static let quantizationVersion: UInt32 = 2

  /// Computes the constants of a graph one at a time and writes them with the graph. The file appears whole or not at all.
  /// - Parameters:
  ///   - inputs: files that are being read; the output may not be one of them.
  ///   - progress: called after each tensor with the number written and the number of all.
  public static func write(
    _ graph: Graph, metadata: ArtifactMetadata, to path: String, overwrite: Bool, inputs: [FileIdentity] = [],
    progress: ((_ done: Int, _ total: Int) -> Void)? = nil
  ) throws {
    // Matrices in blocks are written as these.
    let constants = graph.constants.map { constant in
      var constant = constant
      constant.data = constant.data.encoded?.bytes ?? constant.data
      return constant
    }
    let ledger = SourceLedger(of: constants.flatMap(\.data.sources).flatMap(\.sources))
    let placeholders = constants.map { _ in TensorDigest.placeholder }
    let pairs = try pairs(graph, metadata, digests: GGUFDigests.pairs(ledger.current, tensors: placeholders))
    let tensors = try tensors(graph)
    let stream = try SourceStream(constants, ledger: ledger)
    var writer = try GGUFWriter(
      path: path, overwrite: overwrite, inputs: inputs, metadata: pairs, tensors: tensors,
      alignment: Artifact.alignment)
    try stream.run(
      constants,
      consume: { piece in try writer.writeTensor(piece.span) },
      finish: { index, stored in
        // What is stored as it was read has the same digest.
        if let stored { ledger.note(writer.tensorDigests[index], of: stored) }
        progress?(index + 1, constants.count)
      })
    let digests = writer.tensorDigests
    try writer.finish(filling: GGUFDigests.pairs(ledger.current, tensors: digests))
  }

  /// Writes a copy of an artifact with another certificate, tensors streamed through. Throws `.damaged`, and writes nothing, where the
  /// artifact's bytes have other digests than it records.
  /// - Parameter path: may be the artifact's own path if `overwrite` is true: the file is replaced as a whole.
  public static func certify(
    _ file: MappedFile, with certificate: JSONValue, to path: String, overwrite: Bool
  ) throws {
    let container = try GGUFContainer.read(file)
    _ = try Artifact.read(container)
    var pairs = GGUFDigests.renewed(container.metadata).filter { $0.key != ArtifactKey.certificate }
    pairs.append((ArtifactKey.certificate, .string(certificate.text())))
    var writer = try GGUFWriter(
      path: path, overwrite: overwrite, metadata: pairs,
      tensors: container.tensors.map { ($0.name, $0.dimensions, $0.type) }, alignment: container.alignment)
    let bytes = file.bytes
    let recorded = GGUFDigests.headerDigest(of: container)
    let header = HeaderReader(
      file, recorded: recorded ?? HeaderDigest.placeholder, tensors: try container.tensors.map(container.range))
    let found = try header.finish()
    guard recorded == nil || recorded == found else {
      throw damaged(file, "the header has another digest than it records")
    }
    for tensor in container.tensors {
      let range = try container.range(of: tensor)
      for start in stride(from: range.lowerBound, to: range.upperBound, by: 16 << 20) {
        let part = start..<min(range.upperBound, start + 16 << 20)
        let piece = bytes.extracting(part)
        try writer.writeTensor(piece.span)
        file.discard(part)
      }
    }
    if let digests = try GGUFDigests.tensorDigests(of: container) {
      for (index, tensor) in container.tensors.enumerated() where digests[index] != writer.tensorDigests[index] {
        throw damaged(file, "the tensor has another digest than the artifact records", tensor: tensor.name)
      }
    }
    try writer.finish()
  }

  private static func damaged(_ file: MappedFile, _ found: String, tensor: String? = nil) -> ArtifactError {
    ArtifactError(
      .damaged, found, expected: "the bytes that were written", remedy: "make or fetch the artifact again",
      file: file.path, tensor: tensor)
  }

  private static func pairs(
    _ graph: Graph, _ metadata: ArtifactMetadata, digests: [(key: String, value: GGUFValue)]
  ) throws(ArtifactError) -> [(key: String, value: GGUFValue)] {
    do { try graph.verify() } catch { throw ArtifactError(.unstorable, error.diagnosis) }
    guard ArtifactMetadata.isArchitecture(metadata.architecture) else {
      throw ArtifactError(.unstorable, "the architecture '\(metadata.architecture)'", expected: "a model family's name")
    }
    let text = GraphJSON.encode(graph)
    // What cannot be read back is not written.
    var data: [String: TensorExpression] = [:]
    for constant in graph.constants { data[constant.name] = constant.data }
    do { _ = try GraphJSON.decode(text, data: data) } catch { throw ArtifactError(.unstorable, error.diagnosis) }
    var pairs = metadata.leadingPairs()
    let isQuantized = graph.hasQuantizedLayers
    if isQuantized || graph.constants.contains(where: { $0.data.encoded != nil }) {
      pairs.append((ArtifactKey.quantizationVersion, .u32(quantizationVersion)))
    }
    if !isQuantized { pairs.append((ArtifactKey.fileType, .u32(fileType(graph)))) }
    pairs.append((ArtifactKey.format, .u32(UInt32(Artifact.formatVersion))))
    pairs.append((ArtifactKey.version, .string(metadata.toolVersion)))
    if isQuantized { pairs.append((ArtifactKey.panelLayout, .string(Artifact.panelLayout))) }
    pairs.append((ArtifactKey.graph, .string(text)))
    return pairs + metadata.trailingPairs(digests: digests)
  }

  /// The file type that GGUF tools show: that of most elements. There is none for our int8 panels.
  private static func fileType(_ graph: Graph) -> UInt32 {
    var counts: [String: Int] = [:]
    for constant in graph.constants { counts[constant.data.typeName, default: 0] += constant.data.shape.elementCount }
    let types: [(name: String, number: UInt32)] = [
      ("f32", 0), ("f16", 1), ("bf16", 32), ("q8_0", 7), ("q4_0", 2), ("q4_1", 3),
    ]
    let most = types.map { counts[$0.name] ?? 0 }.max() ?? 0
    return types.first { counts[$0.name] ?? 0 == most }?.number ?? 0
  }

  /// The tensors as the container declares them; one error lists all that cannot be stored.
  private static func tensors(
    _ graph: Graph
  ) throws(ArtifactError) -> [(name: String, dimensions: [Int], type: GGUFType)] {
    var tensors: [(name: String, dimensions: [Int], type: GGUFType)] = []
    var problems: [String] = []
    for constant in graph.constants {
      let shape = constant.data.shape
      let encoded = constant.data.encoded.map { GGUFType($0.type) }
      guard let type = encoded ?? constant.data.dtype.artifactType, shape.rank <= GGUFWriter.maximumRank,
        shape.dimensions.allSatisfy({ (1...Dimension.limits.upperBound).contains($0) }),
        (1...GGUFWriter.maximumNameSize).contains(constant.name.utf8.count)
      else {
        problems.append("'\(constant.name)' \(constant.data.typeName)\(shape)")
        continue
      }
      tensors.append((constant.name, shape.dimensions, type))
    }
    guard problems.isEmpty else {
      throw ArtifactError(
        .unstorable, "artifacts cannot hold " + problems.joined(separator: ", "),
        expected: "names of at most \(GGUFWriter.maximumNameSize) bytes, at most \(GGUFWriter.maximumRank) dimensions, "
          + "and f32, f16, bf16, i8, i16 or i32")
    }
    return tensors
  }
}
