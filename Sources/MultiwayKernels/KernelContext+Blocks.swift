import CMultiwayKernels
public import MultiwayCore

/// The types of blocks that linear layers compute with.
public enum BlockWeightType: Sendable, CaseIterable {
  /// A scale and 32 signed bytes.
  case q8_0
  /// A scale and 32 times four bits, −8 … 7.
  case q4_0
  /// A scale, an offset and 32 times four bits, 0 … 15.
  case q4_1

  /// The type for a block type, nil for any other.
  public init?(_ type: BlockType) {
    switch type {
    case .q8_0: self = .q8_0
    case .q4_0: self = .q4_0
    case .q4_1: self = .q4_1
    default: return nil
    }
  }

  /// The block type.
  public var blockType: BlockType {
    switch self {
    case .q8_0: .q8_0
    case .q4_0: .q4_0
    case .q4_1: .q4_1
    }
  }

  /// The inputs of a block.
  public static let inputs = 32

  var code: mwk_block_type {
    switch self {
    case .q8_0: mwk_block_q8_0
    case .q4_0: mwk_block_q4_0
    case .q4_1: mwk_block_q4_1
    }
  }
}

/// Weights [outputs, inputs] in blocks of 32 inputs, row-major, at any address of a mapped file.
public struct BlockWeights: Sendable {
  /// The number of outputs.
  public let outputs: Int
  /// The number of inputs, a multiple of 32.
  public let inputs: Int
  /// The blocks.
  public let bytes: TensorBytes
  /// Their type.
  public let type: BlockWeightType

  /// Checks the size; a constant that is too small stops the program.
  public init(outputs: Int, inputs: Int, bytes: TensorBytes, type: BlockWeightType) {
    precondition(inputs % BlockWeightType.inputs == 0, "rows do not fill whole blocks")
    precondition(bytes.byteCount >= Self.byteCount(outputs: outputs, inputs: inputs, type), "the weights are too small")
    self.outputs = outputs
    self.inputs = inputs
    self.bytes = bytes
    self.type = type
  }

  /// The bytes that the blocks of a layer take.
  public static func byteCount(outputs: Int, inputs: Int, _ type: BlockWeightType) -> Int {
    product(outputs, inputs / BlockWeightType.inputs, type.blockType.byteCount)
  }
}

extension KernelContext {
  /// y [rows, outputs] = epilogue(x · weightsᵀ) in fp32 with the numbers that the blocks stand for: 16 chains of fma in the order of the
  /// inputs, added as a tree.
  ///
  /// `xStride` and `yStride` are elements from one row to the next; nil means `inputs` and `outputs`.
  public func linear(
    _ arena: inout Arena, rows: Int, x: Region, xStride: Int? = nil, weights: BlockWeights,
    epilogue: Epilogue = Epilogue(), into y: Region, yStride: Int? = nil
  ) {
    defer { withExtendedLifetime((weights, epilogue)) {} }
    let stride = yStride ?? weights.outputs
    let reach = extent(rows: rows, width: weights.outputs, stride: stride)
    precondition(!y.overlaps(x) || rows == 0, "the result overlaps its input")
    let inputReach = extent(rows: rows, width: weights.inputs, stride: xStride ?? weights.inputs)
    var job = unsafe mwk_linear_blocks_job()
    unsafe job.rows = rows
    unsafe job.inputs = weights.inputs
    unsafe job.outputs = weights.outputs
    unsafe job.x = UnsafePointer(arena.pointer(x, count: inputReach))
    unsafe job.x_stride = xStride ?? weights.inputs
    let size = BlockWeights.byteCount(outputs: weights.outputs, inputs: weights.inputs, weights.type)
    unsafe job.blocks = UnsafeRawPointer(weights.bytes.pointer(count: size, of: UInt8.self))
    unsafe job.type = weights.type.code
    unsafe job.bias = epilogue.bias?.pointer(count: weights.outputs, of: Float.self)
    unsafe job.residual = epilogue.residual.map { unsafe UnsafePointer(arena.pointer($0, count: reach)) }
    unsafe job.activation = epilogue.activation.code
    unsafe job.y = arena.pointer(y, count: reach)
    unsafe job.y_stride = stride
    unsafe check(mwk_linear_blocks(pointer, &job))
  }

  /// Encodes numbers that fill whole blocks, and counts the blocks that cannot be: those with a NaN, an infinity or a number too large for
  /// scales in half precision. What is given for these means nothing.
  public func encodeBlocks(_ values: [Float], type: BlockWeightType) -> (blocks: TensorBytes, broken: Int) {
    precondition(values.count % BlockWeightType.inputs == 0, "the numbers do not fill whole blocks")
    let count = values.count / BlockWeightType.inputs
    let blocks = AlignedBuffer(byteCount: product(count, type.blockType.byteCount))
    var broken = 0
    unsafe values.withUnsafeBufferPointer { source in
      guard let first = source.baseAddress else { return }
      unsafe check(
        mwk_encode_blocks(pointer, type.code, count, first, blocks.mutablePointer(to: UInt8.self), &broken))
    }
    return (blocks.bytes, broken)
  }
}
