/// SHA-256 (FIPS 180-4), for comparing tensors with the digests in manifests. Small and slow, for tests only.
enum SHA256 {
  private static let constants: [UInt32] = {
    // The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
    var primes: [Int] = []
    var candidate = 2
    while primes.count < 64 {
      if primes.allSatisfy({ candidate % $0 != 0 }) { primes.append(candidate) }
      candidate += 1
    }
    return primes.map { fraction(of: $0, power: 3) }
  }()

  /// The first 32 fractional bits of the root of `value`, found by bisection in integers.
  private static func fraction(of value: Int, power: Int) -> UInt32 {
    var low: UInt64 = 0
    var high: UInt64 = 1 << 40
    while high - low > 1 {
      let middle = (low + high) / 2
      var product = [UInt64](repeating: 0, count: 1)
      product[0] = 1
      for _ in 0..<power { product = multiply(product, middle) }
      var target: [UInt64] = [0, 0, 0, 0]
      let shift = 32 * power
      target[shift / 32] = UInt64(value)
      if isGreater(product, target) { high = middle } else { low = middle }
    }
    return UInt32(truncatingIfNeeded: low)
  }

  /// Digits are 32 bits, lowest first.
  private static func multiply(_ digits: [UInt64], _ factor: UInt64) -> [UInt64] {
    var result = [UInt64](repeating: 0, count: digits.count + 2)
    for (index, digit) in digits.enumerated() {
      for (offset, part) in [factor & 0xFFFF_FFFF, factor >> 32].enumerated() {
        var carry = digit * part
        var position = index + offset
        while carry > 0 {
          carry += result[position]
          result[position] = carry & 0xFFFF_FFFF
          carry >>= 32
          position += 1
          if position == result.count { result.append(0) }
        }
      }
    }
    return result
  }

  private static func isGreater(_ left: [UInt64], _ right: [UInt64]) -> Bool {
    for index in (0..<max(left.count, right.count)).reversed() {
      let a = index < left.count ? left[index] : 0
      let b = index < right.count ? right[index] : 0
      if a != b { return a > b }
    }
    return false
  }

  static func hex(_ message: [UInt8]) -> String {
    var state: [UInt32] = [2, 3, 5, 7, 11, 13, 17, 19].map { fraction(of: $0, power: 2) }
    var padded = message
    padded.append(0x80)
    while padded.count % 64 != 56 { padded.append(0) }
    for shift in stride(from: 56, through: 0, by: -8) {
      padded.append(UInt8(truncatingIfNeeded: UInt64(message.count &* 8) >> shift))
    }
    for start in stride(from: 0, to: padded.count, by: 64) { compress(&state, padded[start..<start + 64]) }
    return state.map { word in
      let digits = String(word, radix: 16)
      return String(repeating: "0", count: 8 - digits.count) + digits
    }.joined()
  }

  private static func compress(_ state: inout [UInt32], _ block: ArraySlice<UInt8>) {
    func rotate(_ value: UInt32, _ count: UInt32) -> UInt32 { value >> count | value << (32 - count) }
    var words: [UInt32] = []
    for start in stride(from: block.startIndex, to: block.endIndex, by: 4) {
      words.append(block[start..<start + 4].reduce(0) { $0 << 8 | UInt32($1) })
    }
    for index in 16..<64 {
      let a = words[index - 15]
      let b = words[index - 2]
      let s0 = rotate(a, 7) ^ rotate(a, 18) ^ a >> 3
      let s1 = rotate(b, 17) ^ rotate(b, 19) ^ b >> 10
      words.append(words[index - 16] &+ s0 &+ words[index - 7] &+ s1)
    }
    var v = state
    for index in 0..<64 {
      let s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)
      let choice = v[4] & v[5] ^ ~v[4] & v[6]
      let t1 = v[7] &+ s1 &+ choice &+ constants[index] &+ words[index]
      let s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)
      let majority = v[0] & v[1] ^ v[0] & v[2] ^ v[1] & v[2]
      v = [t1 &+ s0 &+ majority, v[0], v[1], v[2], v[3] &+ t1, v[4], v[5], v[6]]
    }
    for index in 0..<8 { state[index] = state[index] &+ v[index] }
  }
}
