/// Decodes the block types of ggml to fp32, with the operations and their order of the `gguf` package of Python
/// (`gguf.quants.dequantize`), so that every bit agrees with it.
enum BlockDecoding {
  /// Decodes one block at `start` of `bytes` and gives each element with its place in the block.
  static func decode(_ type: BlockType, _ bytes: RawSpan, at start: Int, _ emit: (Int, Float) -> Void) {
    switch type {
    case .q4_0, .q4_1, .q5_0, .q5_1: decodeSmall(type, bytes, start, emit)
    case .q8_0:
      let scale = half(bytes, start)
      for index in 0..<32 { emit(index, Float(Int8(bitPattern: bytes.byte(at: start + 2 + index))) * scale) }
    case .q4_k, .q5_k: decodeK(type, bytes, start, emit)
    case .q6_k: decodeQ6(bytes, start, emit)
    }
  }

  /// The binary16 number at `offset`, as fp32.
  private static func half(_ bytes: RawSpan, _ offset: Int) -> Float {
    HalfPrecision.float(fromF16: UInt16(bytes.byte(at: offset)) | UInt16(bytes.byte(at: offset + 1)) << 8)
  }

  /// Blocks of 32: a scale, with `_1` a minimum, with Q5 a fifth bit for each element, then the low four bits of elements
  /// 0…15 and 16…31 in the halves of 16 bytes.
  private static func decodeSmall(
    _ type: BlockType, _ bytes: RawSpan, _ start: Int, _ emit: (Int, Float) -> Void
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
  private static func decodeK(_ type: BlockType, _ bytes: RawSpan, _ start: Int, _ emit: (Int, Float) -> Void) {
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
