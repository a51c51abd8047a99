import Synchronization

/// Takes the digests of source tensors, and compares the checksums of their containers, while the tensors are read for other ends.
///
/// Each tensor is claimed by the first job that reads it. What that job reads in order goes into the digest as it passes; what it did not
/// read, or read in another order, is read when the job ends.
public final class SourceLedger: Sendable {
  private let digests: Mutex<SourceDigests>
  private let claimed = Mutex<Set<String>>([])

  /// Lists the tensors that will be read.
  public init(of tensors: [StoredTensor]) { digests = Mutex(SourceDigests(of: tensors)) }

  /// The digests so far.
  public var current: SourceDigests { digests.withLock { $0 } }

  /// Takes a digest that was computed on the way.
  public func note(_ digest: String, of tensor: StoredTensor) { digests.withLock { $0.note(digest, of: tensor) } }

  /// Claims those of `tensors` that nobody has claimed.
  /// - Parameter keepsPages: true where the pages stay for later readers.
  public func claim(_ tensors: [StoredTensor], keepsPages: Bool = false) -> SourceClaim {
    let free = claimed.withLock { claimed in
      tensors.filter { !($0.storage is MemoryStorage) && claimed.insert($0.name).inserted }
    }
    return SourceClaim(free, ledger: self, keepsPages: keepsPages)
  }
}

/// The source tensors that a job answers for. Belongs to one thread.
public final class SourceClaim {
  private final class Entry {
    let tensor: StoredTensor
    /// Where the elements lie in the storage, nil where they do not lie there as they are digested.
    let range: Range<Int>?
    var digest = TensorDigest()
    var position = 0

    init(_ tensor: StoredTensor) {
      self.tensor = tensor
      range = tensor.contiguousRange
    }
  }

  private let entries: [Entry]
  private let ledger: SourceLedger
  private let keepsPages: Bool

  init(_ tensors: [StoredTensor], ledger: SourceLedger, keepsPages: Bool) {
    entries = tensors.map(Entry.init)
    self.ledger = ledger
    self.keepsPages = keepsPages
  }

  /// Tells that `bytes` were read, which lie at `start` in a storage.
  public func note(_ bytes: TensorBytes, at start: Int, of storage: any TensorStorage) {
    for entry in entries where entry.tensor.storage === storage {
      guard let range = entry.range, start == range.lowerBound + entry.position else { continue }
      let part = bytes.extracting(0..<min(bytes.byteCount, range.count - entry.position))
      entry.digest.update(part.span)
      entry.position += part.byteCount
    }
  }

  /// Reads what is left, compares checksums, and records the digests.
  public func settle() throws {
    for entry in entries {
      guard let range = entry.range else {
        ledger.note(try TensorDigest.of(entry.tensor), of: entry.tensor)
        continue
      }
      let rest = range.lowerBound + entry.position..<range.upperBound
      try entry.tensor.storage.stream(in: rest, pieceSize: StoredTensor.pieceSize, noting: nil) { piece in
        entry.digest.update(piece.span)
        if !keepsPages { entry.tensor.discard() }
      }
      entry.position = range.count
      try entry.tensor.storage.verify()
      if !keepsPages { entry.tensor.discard() }
      ledger.note(entry.digest.finish(), of: entry.tensor)
    }
  }

  /// Compares the checksums of everything claimed: what explains another error is thrown in its place.
  public func verify() throws(TensorError) { for entry in entries { try entry.tensor.storage.verify() } }
}
