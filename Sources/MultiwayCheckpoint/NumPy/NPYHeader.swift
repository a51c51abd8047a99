import MultiwayCore

/// The header of a `.npy` file: a magic, a version, and a Python dict in text.
struct NPYHeader {
  var dtype: DType
  var isBigEndian: Bool
  var isFortran: Bool
  var shape: Shape
  /// Where the elements start.
  var dataOffset: Int

  static let magic: [UInt8] = [0x93] + Array("NUMPY".utf8)
  /// How much of a file is enough for its header; NumPy itself refuses longer ones.
  static let maximumSize = 64 << 10

  /// Reads the header at the start of `bytes`, which are the first of a file of `byteCount`.
  init(_ bytes: RawSpan, byteCount: Int) throws(CheckpointError) {
    guard bytes.starts(with: NPYHeader.magic), let major = bytes.load(UInt8.self, at: 6) else {
      throw CheckpointError(.malformed, "an array that does not start with the magic of .npy", byteOffset: 0)
    }
    guard (1...3).contains(major), bytes.load(UInt8.self, at: 7) == 0 else {
      throw CheckpointError(
        .unsupported, "version \(major) of the .npy format", expected: "1.0, 2.0 or 3.0", byteOffset: 6)
    }
    let start = major == 1 ? 10 : 12
    let size =
      major == 1 ? bytes.load(UInt16.self, at: 8).map { Int($0) } : bytes.load(UInt32.self, at: 8).map { Int($0) }
    guard let size else { throw NPYHeader.truncated }
    guard size <= NPYHeader.maximumSize - start else {
      throw CheckpointError(
        .overBudget, "an array's header of \(size) bytes", expected: "at most \(NPYHeader.maximumSize)", byteOffset: 8)
    }
    guard start + size <= bytes.byteCount else { throw NPYHeader.truncated }
    var literal = PythonLiteral(bytes.array(in: start..<start + size), at: start)
    let fields = try literal.header()
    guard let (dtype, isBig) = NPYHeader.dtype(fields.descr) else {
      throw CheckpointError(
        .unsupported, "an array of the dtype '\(fields.descr)'",
        expected: "one of " + TorchTypes.numpyNames.joined(separator: ", "),
        remedy: "store it as one of these: array.astype(…)")
    }
    guard let shape = Shape(checking: fields.shape), let expected = shape.byteCount(of: dtype) else {
      throw CheckpointError(.malformed, "an array of shape \(fields.shape), which has more than 2^63 bytes")
    }
    guard expected == byteCount - start - size else {
      let code: CheckpointErrorCode = expected > byteCount - start - size ? .truncated : .trailingData
      throw CheckpointError(
        code, "an array of shape \(shape) and dtype \(fields.descr) with \(byteCount - start - size) bytes",
        expected: "\(expected)", remedy: "the file is damaged: fetch it again", byteOffset: start + size)
    }
    self.dtype = dtype
    self.shape = shape
    isBigEndian = isBig
    isFortran = fields.isFortran
    dataOffset = start + size
  }

  private static var truncated: CheckpointError {
    CheckpointError(
      .truncated, "an array that ends in its header", remedy: "the download or copy is incomplete: fetch it again")
  }

  /// The dtype of a code such as `<f4`; nil for objects, texts, records and void.
  private static func dtype(_ code: String) -> (DType, Bool)? {
    guard let order = code.first, "<>|=".contains(order), let dtype = TorchTypes.numpyDType(code) else { return nil }
    return order == "|" && dtype.bitWidth > 8 ? nil : (dtype, order == ">")
  }

  /// The array over its bytes.
  func tensor(_ storage: any TensorStorage) -> StoredTensor {
    NumPyArray.tensor(dtype, shape, isFortran: isFortran, isBigEndian: isBigEndian, storage: storage)
  }
}

/// Reads the one Python literal that a header holds: `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
private struct PythonLiteral {
  private let text: [UInt8]
  private let base: Int
  private var position = 0

  init(_ text: [UInt8], at base: Int) {
    self.text = text
    self.base = base
  }

  mutating func header() throws(CheckpointError) -> (descr: String, isFortran: Bool, shape: [Int]) {
    var descr: String?
    var isFortran: Bool?
    var shape: [Int]?
    try expect("{")
    while !take("}") {
      let key = try string()
      try expect(":")
      switch key {
      case "descr" where descr == nil: descr = try dtype()
      case "fortran_order" where isFortran == nil: isFortran = try truth()
      case "shape" where shape == nil: shape = try tuple()
      default: throw fault("the key '\(key)'", expected: "descr, fortran_order and shape, each once")
      }
      if !take(",") {
        try expect("}")
        break
      }
    }
    skipSpace()
    guard position == text.count else { throw fault("text after the dict", expected: "spaces and a line feed") }
    guard let descr, let isFortran, let shape else {
      throw fault("a dict without all its keys", expected: "descr, fortran_order and shape")
    }
    return (descr, isFortran, shape)
  }

  private func fault(_ found: String, expected: String) -> CheckpointError {
    CheckpointError(
      .malformed, "\(found) in an array's header", expected: expected, byteOffset: base + position)
  }

  private mutating func skipSpace() {
    while position < text.count, [0x20, 0x09, 0x0A, 0x0D].contains(text[position]) { position += 1 }
  }

  private mutating func take(_ word: String) -> Bool {
    skipSpace()
    let bytes = Array(word.utf8)
    guard text[position...].prefix(bytes.count) == bytes[...] else { return false }
    position += bytes.count
    return true
  }

  private mutating func expect(_ word: String) throws(CheckpointError) {
    guard take(word) else { throw fault("no '\(word)'", expected: "the Python dict that NumPy writes") }
  }

  private mutating func string() throws(CheckpointError) -> String {
    let quote = take("'") ? UInt8(ascii: "'") : UInt8(ascii: "\"")
    if quote == UInt8(ascii: "\"") { try expect("\"") }
    guard let end = text[position...].firstIndex(of: quote),
      let content = String(validating: text[position..<end], as: UTF8.self), !content.contains("\\")
    else { throw fault("an odd string", expected: "a short plain one") }
    position = end + 1
    return content
  }

  /// The dtype's code; a list describes a record.
  private mutating func dtype() throws(CheckpointError) -> String {
    if take("[") || take("(") || take("{") {
      throw CheckpointError(
        .unsupported, "an array of records (a structured dtype)",
        expected: "one of " + TorchTypes.numpyNames.joined(separator: ", "),
        remedy: "store each field as an array of its own")
    }
    let code = try string()
    if code.hasSuffix("O") {
      throw CheckpointError(
        .unsupported, "an array of Python objects, which is a pickle and not numbers",
        expected: "one of " + TorchTypes.numpyNames.joined(separator: ", "), remedy: "store plain arrays")
    }
    return code
  }

  private mutating func truth() throws(CheckpointError) -> Bool {
    if take("True") { return true }
    if take("False") { return false }
    throw fault("an odd fortran_order", expected: "True or False")
  }

  private mutating func tuple() throws(CheckpointError) -> [Int] {
    var sizes: [Int] = []
    try expect("(")
    while !take(")") {
      guard sizes.count < PickleLimits.maximumRank else {
        throw fault("too many dimensions", expected: "at most \(PickleLimits.maximumRank)")
      }
      sizes.append(try integer())
      if !take(",") {
        // A tuple of one has a comma; without it, Python reads a number.
        guard sizes.count > 1 else { throw fault("a shape that is no tuple", expected: "(2,) or (2, 3)") }
        try expect(")")
        break
      }
    }
    return sizes
  }

  private mutating func integer() throws(CheckpointError) -> Int {
    skipSpace()
    let digits = text[position...].prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    guard digits.count <= 19, let value = Int(String(decoding: digits, as: UTF8.self)) else {
      throw fault("an odd dimension", expected: "an integer below 2^63")
    }
    position = digits.endIndex
    // Python 2 wrote long integers with an L.
    if position < text.count, text[position] == UInt8(ascii: "L") { position += 1 }
    return value
  }
}
