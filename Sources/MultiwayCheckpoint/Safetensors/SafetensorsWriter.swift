public import MultiwayCore

/// Writes safetensors files exactly as the reference implementation does, but for the metadata keys, which are sorted: the
/// same tensors always give the same bytes.
public enum SafetensorsWriter {
  /// Writes `tensors`, widest dtype first and by name, one at a time. The file appears under its name whole or not at all.
  /// - Parameters:
  ///   - provenance: where the tensors come from; it is written with the digests of the tensors, as the metadata value
  ///     `SafetensorsProvenance.key`. Nil for neither.
  ///   - inputs: files that are being read; the output may not be one of them.
  ///   - progress: is told how many bytes of how many are written.
  public static func write(
    _ tensors: [StoredTensor], metadata: [String: String] = [:], provenance: Provenance? = nil, to path: String,
    overwrite: Bool = false, inputs: [FileIdentity] = [], progress: ((Int, Int) -> Void)? = nil
  ) throws {
    var output = try OutputFile(path: path, overwrite: overwrite, inputs: inputs)
    try write(tensors, metadata: metadata, provenance: provenance, to: &output, progress: progress)
    try output.commit()
  }

  /// Writes `tensors` to a file that is empty, which then waits to be committed.
  static func write(
    _ tensors: [StoredTensor], metadata: [String: String], provenance: Provenance?, to output: inout OutputFile,
    progress: ((Int, Int) -> Void)?
  ) throws {
    let path = output.path
    let ordered = try order(tensors, path: path)
    var digests = provenance.map { SafetensorsProvenance($0, of: ordered) }
    var metadata = metadata
    if let text = digests?.text { metadata[SafetensorsProvenance.key] = text }
    let header = try header(ordered, metadata: metadata, path: path)
    let stream = try SourceStream(ordered.map(SourceStream.Item.init), ledger: digests?.sources ?? SourceLedger(of: []))
    try output.write([UInt64(header.count)])
    try output.write(header)
    let total = StateDict(name: "", tensors: ordered).byteCount
    var done = 0
    try stream.run(ordered) { piece in
      digests?.update(piece.span)
      try output.write(piece.span)
      done += piece.byteCount
      progress?(done, total)
    } finish: { index, unchanged in
      digests?.finish(at: index, unchanged: unchanged)
    }
    guard let text = digests?.text else { return }
    // Digests have a fixed width, so the header is as long as before.
    metadata[SafetensorsProvenance.key] = text
    digests?.header = HeaderDigest.of(
      size: UInt64(header.count), try self.header(ordered, metadata: metadata, path: path))
    if let text = digests?.text { metadata[SafetensorsProvenance.key] = text }
    try output.rewrite(try self.header(ordered, metadata: metadata, path: path), at: MemoryLayout<UInt64>.size)
  }

  /// The tensors in the order of the file: widest dtype first, then by name. Refuses what no safetensors file can hold.
  static func order(_ tensors: [StoredTensor], path: String) throws(CheckpointError) -> [StoredTensor] {
    var names: Set<[UInt8]> = []
    for tensor in tensors {
      guard tensor.name != SafetensorsReader.metadataKey else {
        throw CheckpointError(
          .unrepresentable, "a tensor cannot have this name in a safetensors file", remedy: "rename it", file: path,
          tensor: tensor.name)
      }
      guard names.insert(Array(tensor.name.utf8)).inserted else {
        throw CheckpointError(.duplicateName, "two tensors have this name", file: path, tensor: tensor.name)
      }
    }
    let complex = tensors.filter { $0.dtype == .c128 }.map(\.name)
    guard complex.isEmpty else {
      throw CheckpointError(
        .unrepresentable, "safetensors has no 128-bit complex numbers, which these tensors hold: \(complex.prefix(20))",
        remedy: "split them into real and imaginary parts, or leave them out", file: path)
    }
    // The enum's order is that of the reference implementation, which writes the last dtype first.
    let ranks = Dictionary(uniqueKeysWithValues: DType.allCases.enumerated().map { ($1, $0) })
    return tensors.map { (ranks[$0.dtype, default: 0], $0) }.sorted { left, right in
      if left.0 != right.0 { return left.0 > right.0 }
      return left.1.name.utf8.lexicographicallyPrecedes(right.1.name.utf8)
    }.map(\.1)
  }

  private static func header(
    _ tensors: [StoredTensor], metadata: [String: String], path: String
  ) throws(CheckpointError) -> [UInt8] {
    var text = "{"
    if !metadata.isEmpty {
      let pairs = metadata.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
        .map { JSONValue.string($0.key).text() + ":" + JSONValue.string($0.value).text() }
      text += "\"\(SafetensorsReader.metadataKey)\":{" + pairs.joined(separator: ",") + "}"
    }
    var offset = 0
    for tensor in tensors {
      let (end, overflow) = offset.addingReportingOverflow(tensor.byteCount)
      guard !overflow else {
        throw CheckpointError(.unrepresentable, "the tensors together take more than 2^63 bytes", file: path)
      }
      if text.utf8.count > 1 { text += "," }
      text += JSONValue.string(tensor.name).text() + ":{\"dtype\":\"\(tensor.dtype.rawValue)\",\"shape\":["
      text += tensor.shape.dimensions.map(String.init).joined(separator: ",")
      text += "],\"data_offsets\":[\(offset),\(end)]}"
      offset = end
    }
    text += "}"
    var bytes = Array(text.utf8)
    bytes += [UInt8](repeating: 0x20, count: (8 - bytes.count % 8) % 8)
    guard bytes.count <= SafetensorsReader.maximumHeaderSize else {
      throw CheckpointError(
        .unrepresentable, "the header would take \(bytes.count) bytes",
        expected: "at most \(SafetensorsReader.maximumHeaderSize)", remedy: "write the tensors to several files",
        file: path)
    }
    return bytes
  }
}

extension HeaderDigest {
  /// The digest of a safetensors file's beginning, which is all that is no tensor.
  fileprivate static func of(size: UInt64, _ header: [UInt8]) -> String {
    var digest = HeaderDigest()
    digest.update((0..<8).map { UInt8(truncatingIfNeeded: size >> ($0 * 8)) })
    digest.update(header)
    return digest.finish()
  }
}
