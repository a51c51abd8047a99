/// Numbers in blocks of ggml as the fp32 numbers that they stand for. A part is decoded without the rest.
public final class BlockStorage: TensorStorage {
  /// The number of bytes of the fp32 numbers.
  public let byteCount: Int
  /// The type of the blocks.
  public let type: BlockType
  /// The blocks as they are stored.
  public let blocks: any TensorStorage

  /// - Parameter elementCount: fills whole blocks, and `blocks` holds so many; so many fp32 numbers fit in an `Int` of bytes.
  public init(_ type: BlockType, elementCount: Int, blocks: any TensorStorage) {
    precondition(elementCount % type.elementCount == 0)
    precondition(blocks.byteCount / type.byteCount >= elementCount / type.elementCount)
    self.type = type
    self.blocks = blocks
    byteCount = elementCount * MemoryLayout<Float>.size
  }

  /// All numbers, decoded.
  public func load() throws(TensorError) -> TensorBytes { try load(in: 0..<byteCount) }

  /// The numbers in a range of their bytes, decoded.
  public func load(in range: Range<Int>) throws(TensorError) -> TensorBytes {
    precondition(range.lowerBound >= 0 && range.upperBound <= byteCount)
    if range.isEmpty { return AlignedBuffer(byteCount: 0).bytes }
    let width = type.elementCount * MemoryLayout<Float>.size
    let first = range.lowerBound / width
    let last = (range.upperBound - 1) / width
    let stored = try blocks.load(in: first * type.byteCount..<(last + 1) * type.byteCount)
    let decoded = AlignedBuffer(byteCount: (last + 1 - first) * width)
    decoded.fill { target in
      for block in 0...last - first {
        BlockDecoding.decode(type, stored.span, at: block * type.byteCount) { index, value in
          target.storeBytes(of: value, toByteOffset: block * width + index * MemoryLayout<Float>.size, as: Float.self)
        }
      }
    }
    return decoded.bytes.extracting(range.lowerBound - first * width..<range.upperBound - first * width)
  }

  /// True where the blocks are packed.
  public var isPacked: Bool { blocks.isPacked }
  /// What reading blocks takes.
  public var workingByteCount: Int { blocks.workingByteCount }
  /// Lets the pages of the blocks go.
  public func discard() { blocks.discard() }
}

extension StoredTensor {
  /// The type of the blocks and the bytes of them, u8 [rows, bytes of a row], of a tensor whose rows are whole blocks in C order; nil for
  /// any other.
  public var blocks: (type: BlockType, bytes: StoredTensor)? {
    guard dtype == .f32, let storage = storage as? BlockStorage, let range = contiguousRange, !range.isEmpty,
      let byteShape = storage.type.byteShape(of: shape)
    else { return nil }
    let width = storage.type.elementCount * MemoryLayout<Float>.size
    guard range.lowerBound % width == 0 else { return nil }
    let start = range.lowerBound / width * storage.type.byteCount
    return (
      storage.type,
      StoredTensor(name: name, dtype: .u8, shape: byteShape, elementOffset: start, storage: storage.blocks)
    )
  }

  /// What the file calls the type of the elements: `q8_0` where they lie in blocks, the dtype's name elsewhere.
  public var typeName: String { blocks?.type.rawValue ?? dtype.shortName }

  /// The bytes that the elements take in the file.
  public var storedByteCount: Int { blocks?.bytes.byteCount ?? byteCount }
}
