public import MultiwayCore

/// The checkpoint formats that are read. A new format is one reader and one line here.
public enum CheckpointFormats {
  /// Every reader, in the order in which they are asked.
  public static let all: [any CheckpointReader.Type] = [
    GGUFCheckpointReader.self,
    NPZReader.self,
    NPYReader.self,
    PyTorchZipReader.self,
    LegacyReader.self,
    // Before safetensors: the length of a header ends in zeros, which no field of a model starts with.
    ONNXReader.self,
    // Before bare pickles: the length of a safetensors header may begin as a pickle does.
    SafetensorsReader.self,
    BarePickleReader.self,
    TarReader.self,
  ]

  /// How many bytes a reader may look at to recognise its format.
  static let headerSize = 1024

  /// Opens a checkpoint: a file, the index of a sharded one, or the folder of a Hugging Face model. The format is found from the
  /// file's bytes, never from its name.
  public static func open(path: String) throws -> Checkpoint {
    if Folder.exists(path) { return try ModelFolder.read(path) }
    return try read(try source(path: path))
  }

  /// Opens a file, as its contents where it is compressed by zstd.
  public static func source(path: String) throws -> any ByteSource {
    try ZstdSource.unpacked(try MappedFile(path: path))
  }

  /// Reads a checkpoint from a file that is open already. Shards and JSON files are looked for beside it.
  public static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    let file = try ZstdSource.unpacked(file)
    let start = try file.contents(in: 0..<min(headerSize, file.byteCount))
    var checkpoint = try ShardIndex.recognizes(start.span) ? ShardedReader.read(file) : readOne(file)
    ModelFolder.restore(&checkpoint.metadata)
    for (name, key, value) in try ModelFolder.metadata(beside: file.path) {
      checkpoint.metadata[key] = .object(value)
      checkpoint.notes.append("\(name), which lies beside it, was read")
    }
    return checkpoint
  }

  /// Reads a checkpoint that lies in one file.
  static func readOne(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    let file = try ZstdSource.unpacked(file)
    let start = try file.contents(in: 0..<min(headerSize, file.byteCount))
    let header = start.span
    for reader in all where reader.recognizes(header) { return try reader.read(file) }
    throw ForeignFormat.diagnose(header, path: file.path, byteCount: file.byteCount)
  }
}

/// Formats that are not read, told apart so that the error can say what to do.
enum ForeignFormat {
  private struct Signature {
    var bytes: [UInt8]
    var code = CheckpointErrorCode.unsupported
    var found: String
    var remedy: String
  }

  private static let unpack = "unpack it and give the file inside"

  private static let signatures: [Signature] = [
    Signature(bytes: [0x1F, 0x8B], found: "this is a gzip archive", remedy: unpack),
    Signature(bytes: Array("7z".utf8) + [0xBC, 0xAF, 0x27, 0x1C], found: "this is a 7z archive", remedy: unpack),
    Signature(bytes: Array("Rar!".utf8), found: "this is a rar archive", remedy: unpack),
    Signature(bytes: [0xFD] + Array("7zXZ".utf8), found: "this is an xz archive", remedy: unpack),
    Signature(bytes: Array("BZh".utf8), found: "this is a bzip2 archive", remedy: unpack),
    Signature(bytes: [0x89] + Array("HDF".utf8), found: "this is an HDF5 file", remedy: "export it as safetensors"),
    Signature(
      bytes: Array("version https://git-lfs".utf8), code: .unrecognized,
      found: "this is a Git LFS pointer, not the file that it stands for", remedy: "run `git lfs pull`"),
    Signature(
      bytes: Array("PK".utf8) + [0x05, 0x06], code: .noTensors, found: "this is a zip archive without records",
      remedy: "fetch the file again"),
  ]

  static func diagnose(_ header: RawSpan, path: String, byteCount: Int) -> CheckpointError {
    for signature in signatures where header.starts(with: signature.bytes) {
      return CheckpointError(signature.code, signature.found, remedy: signature.remedy, file: path)
    }
    if byteCount < 8 {
      return CheckpointError(
        .truncated, "the file has \(byteCount) bytes", expected: "a checkpoint", remedy: "fetch the file again",
        file: path)
    }
    let start = header.array(in: 0..<min(64, header.byteCount))
    let text = String(decoding: start, as: UTF8.self).lowercased()
    if let first = text.first(where: { !$0.isWhitespace }), first == "<" {
      return CheckpointError(
        .unrecognized, "this is an HTML or XML page, probably an error page that was saved in place of the file",
        remedy: "download the checkpoint again, from its direct link", file: path)
    }
    return CheckpointError(
      .unrecognized, "the file starts with " + start.prefix(8).map { hexadecimal($0) }.joined(separator: " "),
      expected: CheckpointFormats.all.map { $0.formatName }.joined(separator: ", "),
      remedy: "check that the download is complete", file: path)
  }

  private static func hexadecimal(_ byte: UInt8) -> String {
    let digits = String(byte, radix: 16)
    return digits.count == 1 ? "0" + digits : digits
  }
}
