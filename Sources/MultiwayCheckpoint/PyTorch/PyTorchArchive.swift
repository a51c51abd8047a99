import MultiwayCore

/// One of PyTorch's zip archives being read.
struct PyTorchArchive {
  let file: any ByteSource
  let zip: ZipArchive
  let root: String

  init(file: any ByteSource) throws(CheckpointError) {
    self.file = file
    zip = try ZipArchive(file: file)
    root = try PyTorchArchive.findRoot(zip)
  }

  func checkpoint() throws(CheckpointError) -> Checkpoint {
    try checkVersion()
    let isBigEndian = try readByteOrder()
    guard let pickle = zip.entry(named: root + "/data.pkl") else {
      throw CheckpointError(.missingRecord, "the archive has no record '\(root)/data.pkl'")
    }
    let bytes = try zip.contents(pickle, limit: PickleLimits.unpackedSize(fileSize: file.fileByteCount))
    let storages = TorchStorages { key, _ throws(CheckpointError) in
      guard let entry = zip.entry(named: "\(root)/data/\(key)") else {
        throw CheckpointError(.missingRecord, "the archive has no record for the storage '\(key)'")
      }
      return ZipRecordStorage(file: file, entry: entry)
    }
    let world = TorchWorld(fileSize: file.byteCount, isBigEndian: isBigEndian, storages: storages)
    let object = try interpret(bytes, pickle, world: world)
    do throws(CheckpointError) {
      var checkpoint = try object.checkpoint(
        format: PyTorchZipReader.formatName, file: file, notes: notes(isBigEndian: isBigEndian))
      try addRecordedMetadata(to: &checkpoint)
      return checkpoint
    } catch {
      throw error.code == .noTensors && isScript ? codeWithoutParameters : error
    }
  }

  private var isScript: Bool { zip.entry(named: root + "/constants.pkl") != nil }

  private var codeWithoutParameters: CheckpointError {
    CheckpointError(
      .noTensors, "this is a TorchScript archive whose weights are constants of its code (torch.jit.freeze does that)",
      expected: "a TorchScript archive with parameters, or a state dict",
      remedy: "save the model's state_dict(), or the script before it was frozen")
  }

  private func interpret(
    _ bytes: TensorBytes, _ entry: ZipEntry, world: TorchWorld
  ) throws(CheckpointError) -> Pickled {
    do throws(CheckpointError) {
      var stream = PickleStream(MemorySource(bytes, of: file))
      let pickled = try stream.next(world: world, size: entry.compressedSize)
      try stream.checkEnd()
      return pickled
    } catch {
      // Offsets in the pickle become offsets in the file, where the pickle is not compressed.
      let base = entry.isDeflated ? nil : entry.range.lowerBound
      var error = error
      error.diagnosis.byteOffset = error.diagnosis.byteOffset.flatMap { offset in base.map { $0 + offset } }
      throw error
    }
  }

}

// MARK: - The records beside the pickle

extension PyTorchArchive {
  /// The folder that holds everything: the one with `data.pkl` in it.
  private static func findRoot(_ zip: ZipArchive) throws(CheckpointError) -> String {
    let suffix = Array("/data.pkl".utf8)
    let candidates = zip.entries.filter { entry in
      entry.name.count > suffix.count && entry.name.suffix(suffix.count) == suffix[...]
        && !entry.name.dropLast(suffix.count).contains(UInt8(ascii: "/"))
    }
    guard candidates.count <= 1 else {
      throw CheckpointError(
        .malformed,
        "the archive has \(candidates.count) pickles: "
          + candidates.prefix(5).map(\.displayName).joined(separator: ", "), expected: "one")
    }
    if let first = candidates.first,
      let root = String(validating: first.name.dropLast(suffix.count), as: UTF8.self)
    {
      return root
    }
    throw CheckpointError(
      .missingRecord, "this zip archive holds no 'data.pkl', so PyTorch did not write it",
      expected: "a file written by torch.save", remedy: "if the checkpoint is inside it, unpack it first")
  }

  /// The text of a small record, without white space around it.
  private func text(_ name: String) throws(CheckpointError) -> String? {
    guard let entry = zip.entry(named: root + "/" + name) else { return nil }
    guard entry.size <= 64 else {
      throw CheckpointError(.malformed, "the record '\(name)' has \(entry.size) bytes", expected: "a word")
    }
    let bytes = try zip.contents(entry, limit: 64)
    return String(String(decoding: bytes.array(of: UInt8.self), as: UTF8.self).filter { !$0.isWhitespace })
  }

  private func checkVersion() throws(CheckpointError) {
    var text = try text("version")
    if text == nil { text = try self.text(".data/version") }
    guard let text else { return }
    guard let version = Int(text), (1...10).contains(version) else {
      throw CheckpointError(
        .unsupported, "version '\(text)' of PyTorch's archive format", expected: "1 to 10",
        remedy: "look for a newer multiway")
    }
  }

  private func readByteOrder() throws(CheckpointError) -> Bool {
    switch try text("byteorder") {
    case nil, "little": return false
    case "big": return true
    case let text?:
      throw CheckpointError(.malformed, "the byte order is '\(text)'", expected: "'little' or 'big'")
    }
  }

  /// Adds what `PyTorchWriter` kept beside the pickle. What the pickle says itself goes before it.
  private func addRecordedMetadata(to checkpoint: inout Checkpoint) throws(CheckpointError) {
    guard let entry = zip.entry(named: "\(root)/\(PyTorchWriter.metadataRecord)") else { return }
    let bytes = try zip.contents(entry, limit: PickleLimits.unpackedSize(fileSize: file.fileByteCount))
    checkpoint.checksumsOfDigests = entry.checksumPlaces
    do throws(JSONError) {
      let object = try JSONParser.parse(bytes.array(of: UInt8.self)).object
      for (key, value) in object?.members ?? [] where value.string != nil && checkpoint.metadata[key] == nil {
        checkpoint.metadata[key] = value
      }
    } catch {
      throw CheckpointError(
        .malformed, "the record '\(PyTorchWriter.metadataRecord)' is no JSON: \(error.message)",
        remedy: "the file was damaged: fetch it again", byteOffset: entry.localOffset)
    }
  }

  private func notes(isBigEndian: Bool) -> [String] {
    var notes: [String] = []
    if isBigEndian { notes.append("byte order: big (turned while reading)") }
    let unchecked = zip.entries.filter(\.lacksChecksum).count
    if unchecked > 0 {
      notes.append("checksums absent: \(unchecked) records have the CRC-32 0, so damage would not be noticed")
    }
    if isScript {
      notes.append("TorchScript archive: its code was not read, only its parameters")
    }
    return notes
  }
}
