import MultiwayCore
import MultiwayGraph
import MultiwayKernels

/// Matrices in blocks of ggml.
extension Materializer {
  /// The blocks of a matrix whose rows fill whole ones.
  mutating func encode(_ source: TensorExpression, _ type: BlockType) throws -> TensorBytes {
    guard let weightType = BlockWeightType(type), let shape = type.byteShape(of: source.shape) else {
      throw TensorError(
        .unsupported, "\(source.dtype.shortName)\(source.shape) as \(type.rawValue) blocks",
        expected: "q8_0, q4_0 or q4_1, and rows of a multiple of \(type.elementCount)")
    }
    let values = try floats(of: source)
    let (blocks, broken) = try context().encodeBlocks(values, type: weightType)
    precondition(blocks.byteCount == shape.elementCount)
    guard broken == 0 else { throw unencodable(broken, of: values, source, type) }
    return blocks
  }

  /// The blocks of a matrix, to be read as the numbers that they stand for.
  mutating func decoded(_ source: TensorExpression, _ type: BlockType) throws -> BlockStorage {
    let blocks = MemoryStorage(try encode(source, type))
    return BlockStorage(type, elementCount: source.shape.elementCount, blocks: blocks)
  }

  private func unencodable(
    _ broken: Int, of values: [Float], _ source: TensorExpression, _ type: BlockType
  ) -> QuantizationError {
    let tensor = source.sources.first?.name
    guard let place = values.firstIndex(where: { !$0.isFinite }) else {
      return QuantizationError(
        .overflow, "\(broken) blocks hold weights that are too large for \(type.rawValue), whose scales are fp16",
        expected: "weights of a few hundred thousand at most",
        remedy: "keep this model in bf16 or fp32", tensor: tensor)
    }
    return QuantizationError(
      .nonFinite, "\(broken) blocks hold a NaN or an infinity, the first at element \(place)",
      expected: "finite weights", remedy: "the checkpoint is damaged or its training diverged: check the source",
      tensor: tensor)
  }
}
