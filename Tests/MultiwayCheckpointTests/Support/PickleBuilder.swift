/// Writes pickles opcode by opcode.
struct PickleBuilder {
  var bytes: [UInt8] = [0x80, 2]

  /// A finished pickle.
  static func pickle(_ body: (inout PickleBuilder) -> Void) -> [UInt8] {
    var builder = PickleBuilder()
    body(&builder)
    return builder.bytes + [0x2E]
  }

  mutating func op(_ letter: Character) { bytes.append(letter.asciiValue ?? 0) }
  mutating func op(_ code: UInt8) { bytes.append(code) }
  mutating func little(_ value: Int, _ count: Int) {
    for index in 0..<count { bytes.append(UInt8(truncatingIfNeeded: value >> (index * 8))) }
  }

  mutating func text(_ value: String) {
    op("X")
    little(value.utf8.count, 4)
    bytes += value.utf8
  }

  mutating func int(_ value: Int) {
    if let small = Int32(exactly: value) {
      op("J")
      little(Int(small), 4)
    } else {
      op(0x8A)
      bytes.append(8)
      little(value, 8)
    }
  }

  mutating func global(_ module: String, _ name: String) {
    op("c")
    bytes += Array(module.utf8) + [0x0A] + Array(name.utf8) + [0x0A]
  }

  mutating func tuple(_ items: ((inout PickleBuilder) -> Void)...) {
    op("(")
    for item in items { item(&self) }
    op("t")
  }

  mutating func ints(_ values: [Int]) {
    op("(")
    for value in values { int(value) }
    op("t")
  }

  /// A dict of these entries, in order.
  mutating func dict(_ entries: [(String, (inout PickleBuilder) -> Void)]) {
    op("}")
    op("(")
    for (key, value) in entries {
      text(key)
      value(&self)
    }
    op("u")
  }

  mutating func storage(_ key: String, _ type: String = "FloatStorage", module: String = "torch", count: Int) {
    tuple({ $0.text("storage") }, { $0.global(module, type) }, { $0.text(key) }, { $0.text("cpu") }, { $0.int(count) })
    op("Q")
  }

  /// A call of a function by REDUCE.
  mutating func reduce(_ module: String, _ name: String, _ arguments: (inout PickleBuilder) -> Void) {
    global(module, name)
    op("(")
    arguments(&self)
    op("t")
    op("R")
  }

  mutating func tensor(
    _ key: String, _ type: String = "FloatStorage", count: Int, offset: Int = 0, size: [Int]? = nil,
    stride: [Int]? = nil
  ) {
    reduce("torch._utils", "_rebuild_tensor_v2") { builder in
      builder.storage(key, type, count: count)
      builder.int(offset)
      builder.ints(size ?? [count])
      builder.ints(stride ?? [1])
      builder.op(0x89)
      builder.reduce("collections", "OrderedDict") { _ in }
    }
  }
}

/// An archive as `torch.save` writes it, with the given pickle and storages.
func torchArchive(
  _ storages: [String: [UInt8]] = ["0": floats(6)], byteOrder: String? = "little",
  change: (inout ZipBuilder) -> Void = { _ in }, pickle: (inout PickleBuilder) -> Void
) -> [UInt8] {
  var zip = ZipBuilder()
  zip.add("archive/data.pkl", PickleBuilder.pickle(pickle))
  if let byteOrder { zip.add("archive/byteorder", Array(byteOrder.utf8)) }
  for (key, data) in storages.sorted(by: { $0.key < $1.key }) { zip.add("archive/data/\(key)", data) }
  zip.add("archive/version", Array("3\n".utf8))
  change(&zip)
  return zip.build()
}

/// The bytes of the numbers 0, 1, 2, … as little-endian fp32.
func floats(_ count: Int) -> [UInt8] {
  (0..<count).flatMap { value in
    let bits = Float(value).bitPattern
    return (0..<4).map { UInt8(truncatingIfNeeded: bits >> UInt32($0 * 8)) }
  }
}
