import MultiwayCore
import MultiwayDelivery
import MultiwayTestSupport
import Testing

/// Packing, unpacking, deltas: what goes in comes out, and nothing appears that is not right.
@Suite struct DeliveryTests {
  let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// Bytes like those of weights: noise in the low bits, the same high bits over long runs.
  private func weights(_ count: Int, seed: UInt64) -> [UInt8] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { $0 % 4 < 2 ? UInt8.random(in: 0...255, using: &generator) : UInt8($0 / 4096 % 8) }
  }

  private func pack(_ name: String, to packed: String, threads: Int = 1) throws -> DeliveryReport {
    try Delivery.pack(folder.path(name), to: folder.path(packed), threads: threads, overwrite: false)
  }

  @Test(arguments: [0, 1, 1000, 1 << 20, 12_000_000])
  func whatIsPackedComesBack(size: Int) throws {
    let bytes = weights(size, seed: 1)
    try folder.write(bytes, to: "file")
    let report = try pack("file", to: "packed")
    #expect(report.inputBytes == size)
    #expect(report.outputBytes == (try folder.bytes("packed").count))
    if size >= 1000 { #expect(report.outputBytes < size) }
    _ = try Delivery.unpack(folder.path("packed"), to: folder.path("back"), overwrite: false)
    #expect(try folder.bytes("back") == bytes)
  }

  @Test func threadsDoNotChangeTheBytes() throws {
    try folder.write(weights(12_000_000, seed: 2), to: "file")
    _ = try pack("file", to: "one")
    for threads in [2, 3, 8] {
      _ = try pack("file", to: "many\(threads)", threads: threads)
      #expect(try folder.bytes("many\(threads)") == folder.bytes("one"))
    }
  }

  @Test func framesAfterOneAnotherAreOneFile() throws {
    try folder.write(weights(5000, seed: 3), to: "first")
    try folder.write(weights(70_000, seed: 4), to: "second")
    _ = try pack("first", to: "first.zst")
    _ = try pack("second", to: "second.zst")
    // A frame that decoders skip.
    let skippable: [UInt8] = [0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3]
    try folder.write(try folder.bytes("first.zst") + skippable + folder.bytes("second.zst"), to: "both")
    _ = try Delivery.unpack(folder.path("both"), to: folder.path("back"), overwrite: false)
    #expect(try folder.bytes("back") == folder.bytes("first") + folder.bytes("second"))
  }

  @Test func aDeltaOfSiblingsIsSmall() throws {
    let old = weights(8_000_000, seed: 5)
    var new = old
    // One layer in twenty is another.
    new.replaceSubrange(3_000_000..<3_400_000, with: weights(400_000, seed: 6))
    try folder.write(old, to: "old")
    try folder.write(new, to: "new")
    let report = try Delivery.delta(
      from: folder.path("old"), to: folder.path("new"), output: folder.path("delta"), overwrite: false)
    #expect(report.outputBytes * 100 < new.count * 8, "\(report.outputBytes) bytes")
    _ = try Delivery.apply(folder.path("delta"), to: folder.path("old"), output: folder.path("made"), overwrite: false)
    #expect(try folder.bytes("made") == new)
  }

  /// Files of several slices, whose blocks end where a slice does, so that the encoder has nothing left to give in between.
  @Test(arguments: [16 << 20, 32 << 20, 33 << 20])
  func aDeltaOfSeveralSlicesIsWhole(size: Int) throws {
    let old = [UInt8](repeating: 7, count: size)
    var new = old
    new[size / 2] = 8
    new[size - 1] = 9
    try folder.write(old, to: "old")
    try folder.write(new, to: "new")
    _ = try Delivery.delta(
      from: folder.path("old"), to: folder.path("new"), output: folder.path("delta"), overwrite: false)
    _ = try Delivery.apply(folder.path("delta"), to: folder.path("old"), output: folder.path("made"), overwrite: false)
    #expect(try folder.bytes("made") == new)
    _ = try pack("new", to: "packed")
    _ = try Delivery.unpack(folder.path("packed"), to: folder.path("back"), overwrite: false)
    #expect(try folder.bytes("back") == new)
  }

  private func refused(
    _ code: DeliveryErrorCode, output: String = "out", sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () throws -> Void
  ) throws {
    let error = #expect(throws: DeliveryError.self, sourceLocation: sourceLocation) { try body() }
    #expect(error?.code == code, sourceLocation: sourceLocation)
    #expect(try folder.names().allSatisfy { !$0.contains(output) }, sourceLocation: sourceLocation)
  }

  private func unpack(_ name: String) throws {
    _ = try Delivery.unpack(folder.path(name), to: folder.path("out"), overwrite: false)
  }

  @Test func theWrongBaseIsNoticed() throws {
    let old = weights(300_000, seed: 7)
    try folder.write(old, to: "old")
    try folder.write(Array(old[1000...]) + old[..<1000], to: "new")
    try folder.write(weights(300_000, seed: 8), to: "other")
    _ = try Delivery.delta(
      from: folder.path("old"), to: folder.path("new"), output: folder.path("delta"), overwrite: false)
    try refused(.wrongBase) {
      _ = try Delivery.apply(
        folder.path("delta"), to: folder.path("other"), output: folder.path("out"), overwrite: false)
    }
    // A delta is no whole file.
    try refused(.corrupt) { try unpack("delta") }
  }

  /// Ten bytes that ask for a window of 2 GiB, which no change of so few bytes can need.
  @Test func aWindowThatTheSizesDoNotJustify() throws {
    try folder.write(weights(100, seed: 7), to: "old")
    try folder.write([0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xA8, 0x09, 0x00, 0x00, 0x61], to: "delta")
    try refused(.memory) {
      _ = try Delivery.apply(
        folder.path("delta"), to: folder.path("old"), output: folder.path("out"), overwrite: false)
    }
  }

  @Test func everyTruncationIsNoticed() throws {
    try folder.write(weights(3000, seed: 9), to: "file")
    _ = try pack("file", to: "packed")
    let packed = try folder.bytes("packed")
    for size in stride(from: 0, to: packed.count, by: 7) {
      try folder.write(Array(packed[..<size]), to: "cut")
      let error = #expect(throws: DeliveryError.self, "\(size) bytes") { try unpack("cut") }
      #expect([.truncated, .notPacked, .corrupt].contains(error?.code))
    }
    #expect(try folder.names().sorted() == ["cut", "file", "packed"])
  }

  @Test func damageIsNoticed() throws {
    try folder.write(weights(3000, seed: 10), to: "file")
    _ = try pack("file", to: "packed")
    let packed = try folder.bytes("packed")
    // Bytes of the magic number, of the contents, and of the checksum.
    for (place, code) in [(0, DeliveryErrorCode.notPacked), (packed.count / 2, .corrupt), (packed.count - 1, .corrupt)]
    {
      var damaged = packed
      damaged[place] ^= 0x40
      try folder.write(damaged, to: "damaged")
      try refused(code) { try unpack("damaged") }
    }
    try folder.write(packed + [1, 2, 3, 4, 5], to: "longer")
    try refused(.notPacked) { try unpack("longer") }
  }

  @Test func aFrameThatClaimsTerabytesIsRefusedBeforeAnythingIsWritten() throws {
    // Magic number; a frame header with eight bytes of content size, 2⁵⁰; then nothing.
    let claim: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0xE0] + [0, 0, 0, 0, 0, 0, 4, 0]
    try folder.write(claim, to: "claim")
    try refused(.tooLarge) { try unpack("claim") }
  }

  @Test func nothingIsReplacedUnasked() throws {
    try folder.write([1, 2, 3], to: "file")
    try folder.write([9], to: "packed")
    let error = #expect(throws: FileError.self) { _ = try pack("file", to: "packed") }
    #expect(error?.code == .exists)
    #expect(throws: FileError.self) {
      _ = try Delivery.pack(folder.path("file"), to: folder.path("file"), threads: 1, overwrite: true)
    }
    #expect(try folder.bytes("file") == [1, 2, 3])
  }
}
