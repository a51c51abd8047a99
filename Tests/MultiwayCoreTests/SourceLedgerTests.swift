import MultiwayCore
import MultiwayTestSupport
import Testing

/// Digests that are taken while tensors are read for something else.
@Suite struct SourceLedgerTests {
  private let folder: TemporaryFolder
  private let tensor: StoredTensor
  private let digest: String

  /// A tensor of 300,000 bytes in the middle of a file.
  init() throws {
    folder = try TemporaryFolder()
    var generator = SeededGenerator(seed: 3)
    let bytes = (0..<320_000).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
    try folder.write(bytes, to: "file")
    let file = try MappedFile(path: folder.path("file"))
    tensor = StoredTensor(
      name: "t", dtype: .u8, shape: [1000, 300], storage: FileRange(file: file, range: 1234..<301_234))
    var running = TensorDigest()
    let part = TensorBytes(copying: Array(bytes[1234..<301_234]))
    running.update(part.span)
    digest = running.finish()
  }

  private func view(_ rows: Range<Int>) -> StoredTensor {
    var view = tensor
    view.shape = [rows.count, 300]
    view.elementOffset = rows.lowerBound * 300
    return view
  }

  /// Whatever of a tensor is read, in whatever order and however often, its digest is that of all of it.
  @Test(arguments: [
    [], [0..<1000], [0..<10, 10..<500, 500..<1000], [500..<1000, 0..<500], [0..<400], [3..<4],
    [0..<10, 0..<20, 10..<30],
  ]) func everyWayOfReadingGivesTheDigest(reads: [Range<Int>]) throws {
    let ledger = SourceLedger(of: [tensor])
    #expect(ledger.current.digests == [TensorDigest.placeholder])
    let claim = ledger.claim([tensor])
    for rows in reads { _ = try view(rows).peekedBytes(noting: claim) }
    try claim.settle()
    #expect(ledger.current.names == ["t"] && ledger.current.digests == [digest])
  }

  @Test func piecesOfAStreamAreNoted() throws {
    let ledger = SourceLedger(of: [tensor])
    let claim = ledger.claim([tensor, tensor])
    var sizes: [Int] = []
    try tensor.stream(pieceSize: 70_000, noting: claim) { sizes.append($0.byteCount) }
    #expect(sizes == [70_000, 70_000, 70_000, 70_000, 20_000])
    try claim.settle()
    #expect(ledger.current.digests == [digest])
  }

  /// A tensor has one claimant, so that its digest is taken once.
  @Test func onlyTheFirstClaimCounts() throws {
    let ledger = SourceLedger(of: [tensor])
    let first = ledger.claim([tensor])
    try ledger.claim([tensor]).settle()
    #expect(ledger.current.digests == [TensorDigest.placeholder])
    try first.settle()
    #expect(ledger.current.digests == [digest])
  }

  /// The digest is that of the elements in C order, however they are stored.
  @Test func aTransposedTensorIsDigestedInOrder() throws {
    var transposed = tensor
    transposed.shape = [300, 1000]
    transposed.strides = [1, 300]
    let ledger = SourceLedger(of: [transposed])
    try ledger.claim([transposed]).settle()
    var expected = TensorDigest()
    let bytes = try transposed.contiguousBytes()
    expected.update(bytes.span)
    let text = expected.finish()
    #expect(ledger.current.digests == [text] && text != digest)
  }
}
