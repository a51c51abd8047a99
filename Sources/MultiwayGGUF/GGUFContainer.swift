public import MultiwayCore

/// A GGUF file (versions 2 and 3, little-endian): its metadata, and where its tensors are. It knows nothing of models.
public struct GGUFContainer: Sendable {
  /// The file.
  public let file: any ByteSource
  /// The version of the format.
  public let version: Int
  /// The metadata in file order; the keys are unique.
  public let metadata: [(key: String, value: GGUFValue)]
  /// What every tensor's offset is a multiple of.
  public let alignment: Int
  /// The tensors in file order; the names are unique.
  public let tensors: [GGUFTensorInfo]
  /// Where the data section starts in the file.
  public let dataOffset: Int
  private let keys: [String: Int]
  private let names: [String: Int]

  init(file: any ByteSource, header: GGUFHeader) {
    self.file = file
    version = header.version
    metadata = header.metadata
    alignment = header.alignment
    tensors = header.tensors
    dataOffset = header.dataOffset
    keys = header.keys
    names = header.names
  }

  /// True where the first bytes are those of a GGUF file.
  public static func recognizes(_ header: RawSpan) -> Bool { header.starts(with: GGUFHeader.magic) }

  /// Reads the header and checks everything in it; tensor bytes are not touched.
  public static func read(_ file: any ByteSource) throws(GGUFError) -> GGUFContainer {
    // The header does not say how long it is: where bytes cost memory, they are asked for by and by.
    var count = file.isInPlace ? file.byteCount : min(firstPrefix, file.byteCount)
    while true {
      let bytes = try contents(of: file, in: 0..<count)
      var parser = GGUFParser(bytes.span, fileSize: file.byteCount, path: file.path)
      do throws(GGUFError) {
        return GGUFContainer(file: file, header: try parser.parse())
      } catch {
        guard parser.needsMore else { throw error }
      }
      guard count < file.headerLimit else {
        throw GGUFError(
          .malformed, "the header takes more than \(count) bytes", expected: "at most \(file.headerLimit)",
          file: file.path)
      }
      count = min(count * 2, file.headerLimit)
    }
  }

  /// How many bytes of a packed file are looked at first.
  private static let firstPrefix = 1 << 20

  /// The metadata value of `key`.
  public subscript(key: String) -> GGUFValue? { keys[key].map { metadata[$0].value } }

  /// The tensor of that name.
  public func tensor(named name: String) -> GGUFTensorInfo? { names[name].map { tensors[$0] } }

  /// Where a tensor's bytes are in the file.
  public func range(of tensor: GGUFTensorInfo) throws(GGUFError) -> Range<Int> {
    let (start, overflow) = dataOffset.addingReportingOverflow(tensor.offset)
    guard let size = tensor.type.byteCount(of: tensor.dimensions), !overflow, tensor.offset >= 0,
      start <= file.byteCount, size <= file.byteCount - start
    else {
      throw GGUFError(.badOffset, "the tensor does not lie in the file", file: file.path, tensor: tensor.name)
    }
    return start..<start + size
  }

  /// A tensor's bytes, in place where the file is mapped.
  public func bytes(of tensor: GGUFTensorInfo) throws(GGUFError) -> TensorBytes {
    try GGUFContainer.contents(of: file, in: try range(of: tensor))
  }

  private static func contents(of file: any ByteSource, in range: Range<Int>) throws(GGUFError) -> TensorBytes {
    do throws(TensorError) {
      return try file.bytes(in: range)
    } catch {
      throw GGUFError(.corrupt, error.diagnosis)
    }
  }
}

/// What the header of a GGUF file says, checked.
struct GGUFHeader {
  static let magic: [UInt8] = [0x47, 0x47, 0x55, 0x46]
  static let alignmentKey = "general.alignment"
  static let defaultAlignment = 32
  static let maximumKeySize = 65_535
  static let maximumNameSize = 63
  static let maximumRank = 4

  var version = 0
  var metadata: [(key: String, value: GGUFValue)] = []
  var keys: [String: Int] = [:]
  var alignment = GGUFHeader.defaultAlignment
  var tensors: [GGUFTensorInfo] = []
  var names: [String: Int] = [:]
  var dataOffset = 0
}
