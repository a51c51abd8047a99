public import MultiwayCore

/// Reads a single NumPy array from a `.npy` file. The tensor is called `tensor`, as a bare tensor in a pickle is.
public enum NPYReader: CheckpointReader {
  /// `NumPy array`.
  public static let formatName = "NumPy array"
  /// What is read.
  public static let summary = "`.npy`, any plain dtype and order"

  /// True for the magic of `.npy`.
  public static func recognizes(_ header: RawSpan) -> Bool { header.starts(with: NPYHeader.magic) }

  /// Reads the header; the elements are not touched.
  public static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    do throws(CheckpointError) {
      let start = try file.contents(in: 0..<min(NPYHeader.maximumSize, file.byteCount))
      let header = try NPYHeader(start.span, byteCount: file.byteCount)
      var tensor = header.tensor(FileRange(file: file, range: header.dataOffset..<file.byteCount))
      tensor.name = "tensor"
      return Checkpoint(format: formatName, file: file, stateDicts: [StateDict(name: "", tensors: [tensor])])
    } catch {
      throw error.naming(file)
    }
  }
}

/// Reads NumPy's zip archives of arrays (`numpy.savez`, `numpy.savez_compressed`).
public enum NPZReader: CheckpointReader {
  /// `NumPy zip`.
  public static let formatName = "NumPy zip"
  /// What is read.
  public static let summary = "`.npz`, stored or compressed"

  private static let suffix = Array(".npy".utf8)

  /// True for a zip archive whose first record is a `.npy` file.
  public static func recognizes(_ header: RawSpan) -> Bool {
    guard header.starts(with: [0x50, 0x4B, 0x03, 0x04]), let size = header.load(UInt16.self, at: 26) else {
      return false
    }
    return header.starts(with: suffix, at: 30 + Int(size) - suffix.count)
  }

  /// Reads the archive's directory and the arrays' headers; deflated arrays are unpacked for that, one at a time.
  public static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    do throws(CheckpointError) {
      return try checkpoint(try ZipArchive(file: file))
    } catch {
      throw error.naming(file)
    }
  }

  private static func checkpoint(_ zip: ZipArchive) throws(CheckpointError) -> Checkpoint {
    let file = zip.file
    let arrays = zip.entries.filter { $0.name.count > suffix.count && $0.name.suffix(suffix.count) == suffix[...] }
    try checkSizes(arrays, fileSize: file.byteCount)
    var tensors: [StoredTensor] = []
    for entry in arrays {
      guard let name = String(validating: entry.name.dropLast(suffix.count), as: UTF8.self) else {
        throw CheckpointError(
          .malformed, "an array whose name is not UTF-8, '\(entry.displayName)'", byteOffset: entry.localOffset)
      }
      tensors.append(try tensor(entry, named: name, file: file))
    }
    guard !tensors.isEmpty else {
      throw CheckpointError(.noTensors, "there are no arrays in the archive", expected: "records called NAME.npy")
    }
    var notes: [String] = []
    let others = zip.entries.count - arrays.count
    if others > 0 { notes.append("left out: \(others) records that are no .npy files") }
    let unchecked = arrays.filter(\.lacksChecksum).count
    if unchecked > 0 {
      notes.append("checksums absent: \(unchecked) records have the CRC-32 0, so damage would not be noticed")
    }
    return Checkpoint(
      format: formatName, file: file, stateDicts: [StateDict(name: "", tensors: tensors)], notes: notes)
  }

  /// Bounds what unpacking may cost, as the views of a pickle's storages are bounded.
  private static func checkSizes(_ entries: [ZipEntry], fileSize: Int) throws(CheckpointError) {
    let (product, overflow) = fileSize.multipliedReportingOverflow(by: 64)
    var left = overflow ? Int.max : max(product, 64 << 20)
    for entry in entries {
      left = left.subtractingReportingOverflow(entry.size).partialValue
      guard left >= 0 else {
        throw CheckpointError(
          .overBudget, "the arrays unpack to far more bytes than the file has",
          expected: "at most 64 times its \(fileSize) bytes", remedy: "do not trust this file")
      }
    }
  }

  private static func tensor(
    _ entry: ZipEntry, named name: String, file: any ByteSource
  ) throws(CheckpointError) -> StoredTensor {
    let storage = ZipRecordStorage(file: file, entry: entry)
    do throws(CheckpointError) {
      let start = try start(of: entry, storage, file: file)
      let header = try NPYHeader(start.span, byteCount: entry.size)
      storage.discard()
      var tensor = header.tensor(StorageSlice(of: storage, range: header.dataOffset..<entry.size))
      tensor.name = name
      return tensor
    } catch {
      var error = error
      error.diagnosis.tensor = name
      // Offsets in the record become offsets in the file, where it is not compressed.
      let base = entry.isDeflated ? nil : entry.range.lowerBound
      error.diagnosis.byteOffset = error.diagnosis.byteOffset.flatMap { offset in base.map { $0 + offset } }
      throw error
    }
  }

  /// The first bytes of a record: from the file where it is stored, unpacked otherwise.
  private static func start(
    of entry: ZipEntry, _ storage: ZipRecordStorage, file: any ByteSource
  ) throws(CheckpointError) -> TensorBytes {
    let size = min(entry.size, NPYHeader.maximumSize)
    if !entry.isDeflated {
      return try file.contents(in: entry.range.lowerBound..<entry.range.lowerBound + size)
    }
    do throws(TensorError) {
      return try storage.load(in: 0..<size)
    } catch {
      var diagnosis = error.diagnosis
      diagnosis.byteOffset = nil
      throw CheckpointError(.corrupt, diagnosis)
    }
  }
}
