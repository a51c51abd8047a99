import MultiwayCheckpoint
import MultiwayCore
import MultiwayGGUF

/// Reads a file of ours and compares its bytes with the digests that it records: of every tensor, and of everything else.
public enum DigestVerification {
  /// What was compared.
  public struct Report: Sendable {
    /// The number of tensors.
    public var tensorCount: Int
    /// The number of their bytes.
    public var byteCount: Int
    /// True where everything else was compared, too. Files of earlier versions record no digest of it.
    public var coversHeader: Bool
    /// The algorithm's name.
    public var algorithm: String
  }

  /// Verifies a safetensors or PyTorch file, an ONNX model, an artifact or another GGUF file that multiway wrote.
  ///
  /// The error names the first tensor whose bytes are not those that were written, in the file's order.
  public static func verify(_ path: String, progress: Progress? = nil) throws -> Report {
    if Folder.exists(path) {
      throw ConversionError(.unsupportedInput, "this is a folder", expected: "a single file", file: path)
    }
    let source = try CheckpointFormats.source(path: path)
    let start = try source.bytes(in: 0..<min(4, source.byteCount))
    let record =
      GGUFContainer.recognizes(start.span)
      ? try Record(try GGUFContainer.read(source)) : try Record(try CheckpointFormats.read(source))
    let total = record.pieces.reduce(0) { $0 &+ $1.tensor.byteCount }
    let places = record.pieces.compactMap(\.tensor.place)
    let own = record.coversTensors ? [] : places.filter { $0.file === source }.map(\.range)
    var header = HeaderReader(
      source, recorded: record.header ?? HeaderDigest.placeholder, tensors: own, zeros: record.zeros)
    var done = 0
    for (tensor, digest) in record.pieces {
      // In one pass, as packed files are unpacked from their beginning.
      if record.header != nil, let place = tensor.place, place.file === source {
        try header.read(before: place.range.lowerBound)
      }
      try compare(try TensorDigest.of(tensor), digest, "the tensor's bytes have", path, tensor: tensor.name)
      done += tensor.byteCount
      progress?(done, total)
    }
    if let recorded = record.header {
      try compare(
        try header.finish(), recorded, "the header, or what else of the file is no tensor, has", path)
      try checkSums(record.zeros, in: source)
      try checkFillers(places.filter { $0.file !== source })
    }
    return Report(
      tensorCount: record.pieces.count, byteCount: total, coversHeader: record.header != nil,
      algorithm: TensorDigest.algorithm)
  }

  private static func compare(
    _ found: String, _ recorded: String, _ what: String, _ path: String, tensor: String? = nil
  ) throws(ConversionError) {
    guard found != recorded else { return }
    throw ConversionError(
      .damaged, "\(what) the digest \(found)", expected: "\(recorded), as the file records",
      remedy: "the file is damaged: make or fetch it again", file: path, tensor: tensor)
  }

  /// The checksums that the digest leaves out stand twice in an archive, and one of them is compared when it is read.
  private static func checkSums(_ places: [Range<Int>], in file: any ByteSource) throws {
    var sums: Set<[UInt8]> = []
    for place in places { try file.read(place) { bytes in sums.insert(bytes.array) } }
    guard sums.count <= 1 else {
      throw ConversionError(
        .damaged, "the record that holds the digests has two checksums", expected: "the same twice",
        remedy: "the file is damaged: make or fetch it again", file: file.path, byteOffset: places.first?.lowerBound)
    }
  }

  /// Files beside a model hold nothing but its tensors, and zeros between them.
  private static func checkFillers(_ places: [FilePlace]) throws {
    var files: [any ByteSource] = []
    for place in places where !files.contains(where: { $0 === place.file }) { files.append(place.file) }
    for file in files {
      for gap in file.gaps(between: places.filter { $0.file === file }.map(\.range)) {
        try file.read(gap) { bytes in
          for place in 0..<bytes.byteCount where bytes.byte(at: place) != 0 {
            throw ConversionError(
              .damaged, "a byte that belongs to no tensor is not zero", expected: "zeros between the tensors",
              remedy: "the file is damaged: make or fetch it again", file: file.path)
          }
        }
      }
    }
  }

  /// What a file says about its own bytes.
  private struct Record {
    /// The tensors in the file's order, and their digests.
    var pieces: [(tensor: StoredTensor, digest: String)]
    /// The digest of everything else.
    var header: String?
    /// Bytes that count as zeros in it.
    var zeros: [Range<Int>] = []
    /// True where it is of the tensors, too.
    var coversTensors = false

    init(_ container: GGUFContainer) throws {
      guard let digests = try GGUFDigests.tensorDigests(of: container) else {
        throw DigestVerification.nothing(container.file.path)
      }
      header = GGUFDigests.headerDigest(of: container)
      pieces = try zip(container.tensors, digests).map { info, digest in
        // The digest is that of the bytes, whatever they mean.
        let range = info.byteCount == 0 ? 0..<0 : try container.range(of: info)
        let tensor = StoredTensor(
          name: info.name, dtype: .u8, shape: [range.count], storage: FileRange(file: container.file, range: range))
        return (tensor, digest)
      }
    }

    init(_ checkpoint: Checkpoint) throws {
      guard let digests = try checkpoint.recordedDigests() else { throw DigestVerification.nothing(checkpoint.path) }
      let tensors = try checkpoint.filedTensors ?? checkpoint.stateDict().tensors
      let names = Set(tensors.map(\.name))
      let unnamed = tensors.map(\.name).filter { digests[$0] == nil }
      let absent = digests.keys.filter { !names.contains($0) }.sorted()
      guard unnamed.isEmpty, absent.isEmpty else {
        let problems =
          unnamed.prefix(20).map { "no digest of '\($0)'" }
          + absent.prefix(20).map { "a digest of '\($0)', which is absent" }
        throw ConversionError(
          .damaged, "the digests are not those of the file's tensors: " + problems.joined(separator: "; "),
          remedy: "another program has changed the file: make or fetch it again", file: checkpoint.path)
      }
      pieces = tensors.map { ($0, digests[$0.name] ?? "") }
      header = checkpoint.recordedHeaderDigest
      zeros = checkpoint.checksumsOfDigests
      coversTensors = checkpoint.container == ONNXReader.formatName
    }
  }

  private static func nothing(_ path: String) -> ConversionError {
    ConversionError(
      .unsupportedInput, "the file records no digests of its tensors",
      expected: "a safetensors, PyTorch, GGUF or ONNX file that multiway wrote by convert, quantize or prune",
      file: path)
  }
}
