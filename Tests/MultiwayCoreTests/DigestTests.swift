import MultiwayCore
import Testing

@Suite struct DigestTests {
  /// Values of the reference implementation (xxHash 0.8, `xxhsum -H2`).
  @Test(
    arguments: [
      ([], "99aa06d3014798d86001c324468d497f"), (Array("abc".utf8), "06b05ab6733a618578af5f94892f3950"),
      ((0..<100_000).map { UInt8($0 % 251) }, "54182c58bbb1337c42c23aeead96750d"),
    ] as [([UInt8], String)])
  func knownValues(bytes: [UInt8], expected: String) {
    let memory = TensorBytes(copying: bytes)
    var digest = TensorDigest()
    digest.update(memory.span)
    let whole = digest.finish()
    #expect(whole == expected)
    // In pieces it is the same, and the next one starts anew.
    for start in stride(from: 0, to: bytes.count, by: 999) {
      let piece = memory.extracting(start..<min(bytes.count, start + 999))
      digest.update(piece.span)
    }
    let pieces = digest.finish()
    #expect(pieces == expected)
    #expect(TensorDigest.isDigest(expected))
  }

  @Test func whatIsNoDigest() {
    #expect(TensorDigest.isDigest(TensorDigest.placeholder))
    for text in [
      "", "0", String(repeating: "G", count: 32), String(repeating: "A", count: 32), String(repeating: "0", count: 33),
    ] {
      #expect(!TensorDigest.isDigest(text))
    }
  }
}
