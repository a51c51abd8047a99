import MultiwayCore
import MultiwayGGUF

/// Decodes the block-quantized types of GGUF to fp32, with the operations and their order of the `gguf` package of Python
/// (`gguf.quants.dequantize`), so that every bit agrees with it.
enum GGUFBlocks {
  /// The types that are decoded.
  static let supported: [GGUFType] = [.q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q4_k, .q5_k, .q6_k]

  /// Decodes one block at `start` of `bytes` and gives each element with its place in the block.
  static func decode(_ type: GGUFType, _ bytes: RawSpan, at start: Int, _ emit: (Int, Float) -> Void) {
    switch type {
    case .q4_0, .q4_1, .q5_0, .q5_1: decodeSmall(type, bytes, start, emit)
    case .q8_0:
      let scale = half(bytes, start)
      for index in 0..<32 { emit(index, Float(Int8(bitPattern: bytes.byte(at: start + 2 + index))) * scale) }
    case .q4_k, .q5_k: decodeK(type, bytes, start, emit)
    case .q6_k: decodeQ6(bytes, start, emit)
    default: preconditionFailure("\(type.name) blocks are not decoded")
    }
  }

  /// The binary16 number at `offset`, as fp32.
  private static func half(_ bytes: RawSpan, _ offset: Int) -> Float {
    HalfPrecision.float(fromF16: UInt16(bytes.byte(at: offset)) | UInt16(bytes.byte(at: offset + 1)) << 8)
  }

  /// Blocks of 32: a scale, with `_1` a minimum, with Q5 a fifth bit for each element, then the low four bits of elements
  /// 0…15 and 16…31 in the halves of 16 bytes.
  private static func decodeSmall(
    _ type: GGUFType, _ bytes: RawSpan, _ start: Int, _ emit: (Int, Float) -> Void
  ) {
    let hasMinimum = type == .q4_1 || type == .q5_1
    let hasFifthBit = type == .q5_0 || type == .q5_1
    let scale = half(bytes, start)
    let minimum = hasMinimum ? half(bytes, start + 2) : 0
    let fifths = start + (hasMinimum ? 4 : 2)
    let fours = fifths + (hasFifthBit ? 4 : 0)
    for index in 0..<32 {
      var value = Int(bytes.byte(at: fours + index % 16)) >> (index < 16 ? 0 : 4) & 0xF
      if hasFifthBit { value |= (Int(bytes.byte(at: fifths + index / 8)) >> (index % 8) & 1) << 4 }
      if hasMinimum {
        let product = scale * Float(value)
        emit(index, product + minimum)
      } else {
        emit(index, scale * Float(value - (hasFifthBit ? 16 : 8)))
      }
    }
  }

  /// Blocks of 256 in eight parts: scales of the scales and of the minima, six bits of each for every part, with Q5_K a
  /// fifth bit for each element, then the low four bits.
  private static func decodeK(_ type: GGUFType, _ bytes: RawSpan, _ start: Int, _ emit: (Int, Float) -> Void) {
    let scaleOfScales = half(bytes, start)
    let scaleOfMinima = half(bytes, start + 2)
    let fifths = start + 16
    let fours = fifths + (type == .q5_k ? 32 : 0)
    for part in 0..<8 {
      let (scaleBits, minimumBits) = sixBits(bytes, start + 4, part)
      let scale = scaleOfScales * Float(scaleBits)
      let minimum = scaleOfMinima * Float(minimumBits)
      for index in 0..<32 {
        var value = Int(bytes.byte(at: fours + part / 2 * 32 + index)) >> (part % 2 * 4) & 0xF
        if type == .q5_k { value |= (Int(bytes.byte(at: fifths + index)) >> part & 1) << 4 }
        let product = scale * Float(value)
        emit(part * 32 + index, product - minimum)
      }
    }
  }

  /// The scale and the minimum of a part from the twelve bytes that hold eight of each in six bits.
  private static func sixBits(_ bytes: RawSpan, _ start: Int, _ part: Int) -> (scale: Int, minimum: Int) {
    func byte(_ index: Int) -> Int { Int(bytes.byte(at: start + index)) }
    if part < 4 { return (byte(part) & 0x3F, byte(part + 4) & 0x3F) }
    let low = byte(part + 4)
    return (low & 0xF | byte(part - 4) >> 2 & 0x30, low >> 4 | byte(part) >> 2 & 0x30)
  }

  /// Blocks of 256 in sixteen parts: the low four bits, the high two bits, a signed scale for each part, their scale.
  private static func decodeQ6(_ bytes: RawSpan, _ start: Int, _ emit: (Int, Float) -> Void) {
    let scaleOfScales = half(bytes, start + 208)
    for index in 0..<256 {
      let (side, place) = (index / 128, index % 128)
      let low = Int(bytes.byte(at: start + side * 64 + place % 64)) >> (place / 64 * 4) & 0xF
      let high = Int(bytes.byte(at: start + 128 + side * 32 + place % 32)) >> (place / 32 * 2) & 3
      let scale = scaleOfScales * Float(Int8(bitPattern: bytes.byte(at: start + 192 + index / 16)))
      emit(index, scale * Float((low | high << 4) - 32))
    }
  }
}

/// Block-quantized elements of a GGUF file as the fp32 numbers that they stand for. A part is decoded without the rest.
final class GGUFBlockStorage: TensorStorage {
  let byteCount: Int
  private let type: GGUFType
  private let blocks: any TensorStorage

  /// - Parameter elementCount: fills whole blocks, and `blocks` holds so many.
  init(_ type: GGUFType, elementCount: Int, blocks: any TensorStorage) {
    precondition(GGUFBlocks.supported.contains(type))
    self.type = type
    self.blocks = blocks
    byteCount = elementCount * MemoryLayout<Float>.size
  }

  func load() throws(TensorError) -> TensorBytes { try load(in: 0..<byteCount) }

  func load(in range: Range<Int>) throws(TensorError) -> TensorBytes {
    precondition(range.lowerBound >= 0 && range.upperBound <= byteCount)
    if range.isEmpty { return AlignedBuffer(byteCount: 0).bytes }
    let width = type.blockSize * MemoryLayout<Float>.size
    let first = range.lowerBound / width
    let last = (range.upperBound - 1) / width
    let stored = try blocks.load(in: first * type.typeSize..<(last + 1) * type.typeSize)
    let decoded = AlignedBuffer(byteCount: (last + 1 - first) * width)
    decoded.fill { target in
      for block in 0...last - first {
        GGUFBlocks.decode(type, stored.span, at: block * type.typeSize) { index, value in
          target.storeBytes(of: value, toByteOffset: block * width + index * MemoryLayout<Float>.size, as: Float.self)
        }
      }
    }
    return decoded.bytes.extracting(range.lowerBound - first * width..<range.upperBound - first * width)
  }

  var isPacked: Bool { blocks.isPacked }
  var workingByteCount: Int { blocks.workingByteCount }

  func discard() { blocks.discard() }
}
