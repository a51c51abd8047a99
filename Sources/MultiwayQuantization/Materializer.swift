public import MultiwayCore
public import MultiwayGraph
import MultiwayKernels

/// Computes constants from their expressions, one tensor at a time.
///
/// Every result is the same on every machine and run: sums have one shape (Docs/Numerics.md), and double precision where they feed a bias.
public struct Materializer {
  /// Let the pages of source tensors go once they have been read, so that memory does not grow with the model.
  let discardsSources: Bool
  /// Leave checksums to whoever verifies the sources before anything comes of the results.
  let peeks: Bool
  /// Is told what is read.
  let claim: SourceClaim?
  /// The matrix quantized last: its three tensors are asked for one after the other.
  var quantized: (matrix: QuantizedMatrix, tensors: QuantizedWeightPanels)?
  /// The threads of the kernels.
  private let threads: Int
  /// The kernels, started when they are first needed.
  private var kernels: KernelContext?

  /// Makes a materializer.
  /// - Parameter discardsSources: true when every tensor is needed once, as when converting.
  public init(discardsSources: Bool) {
    self.discardsSources = discardsSources
    (peeks, claim) = (false, nil)
    threads = KernelContext.coreCount
  }

  /// Makes a materializer for one of several threads that work side by side. Checksums of sources are compared only as far as their bytes
  /// pass in order: the caller settles the claim, or verifies the sources, before anything comes of the results.
  /// - Parameter keepsPages: true where the pages of sources stay for later readers.
  public init(peekingFor claim: SourceClaim? = nil, keepsPages: Bool = false) {
    (discardsSources, peeks) = (!keepsPages, true)
    self.claim = claim
    threads = 1
  }

  /// The kernels that do the work: the results do not depend on how many threads there are.
  mutating func context() throws -> KernelContext {
    if let kernels { return kernels }
    let context = try KernelContext(isa: try ISA.selected(), threads: threads)
    kernels = context
    return context
  }

  /// The elements of a stored tensor or a view of one.
  func elements(of stored: StoredTensor) throws(TensorError) -> TensorBytes {
    try peeks ? stored.peekedBytes(noting: claim) : stored.contiguousBytes()
  }

  /// The elements in C order and little-endian, in the dtype of the expression. Stored tensors that lie in C order come in place.
  public mutating func bytes(of expression: TensorExpression) throws -> TensorBytes {
    if let stored = Materializer.view(of: expression) { return try elements(of: stored) }
    switch expression {
    case .reshaped(let source, _): return try bytes(of: source)
    case .permuted(let source, let axes): return try permuted(source, axes).contiguousBytes()
    case .rows(let source, let range):
      let rowBytes = try Materializer.rowByteCount(source)
      return try bytes(of: source).extracting(range.lowerBound * rowBytes..<range.upperBound * rowBytes)
    case .columns(let source, let range):
      let elements = try bytes(of: source)
      return try StoredTensor(
        name: "columns", dtype: source.dtype, shape: expression.shape, strides: source.shape.contiguousStrides,
        elementOffset: range.lowerBound, storage: MemoryStorage(elements)
      ).contiguousBytes()
    case .cast(let source, let dtype): return try cast(source, to: dtype)
    case .quantized(let matrix, let component):
      let tensors = try quantize(matrix)
      switch component {
      case .panels: return tensors.panels
      case .scales: return tensors.scales
      case .sums: return tensors.sums
      }
    case .joinedRows(let parts): return try joinedRows(parts)
    case .blockBytes(let source, let type): return try encode(source, type)
    case .blocks(let source, let type): return try decoded(source, type).load()
    case .stored, .scaled, .columnsScaled, .rowsScaled, .shiftedBias, .sum, .resampled, .batchNormScale,
      .batchNormShift:
      return TensorBytes(copying: try floats(of: expression))
    }
  }

  /// The elements as fp32, for floating-point expressions.
  public mutating func floats(of expression: TensorExpression) throws -> [Float] {
    if let stored = Materializer.view(of: expression) {
      defer { discard(expression) }
      return try stored.floats(from: try elements(of: stored))
    }
    switch expression {
    case .reshaped(let source, _): return try floats(of: source)
    case .permuted(let source, let axes): return try permuted(source, axes).floats()
    case .batchNormScale(let norm): return try scale(of: norm).map { Float($0) }
    case .batchNormShift(let norm, let bias): return try shift(of: norm, bias)
    case .rows(let source, let range):
      let width = source.shape.elementCount / max(1, source.shape[0])
      return Array(try floats(of: source)[range.lowerBound * width..<range.upperBound * width])
    case .scaled(let source, let factor): return try floats(of: source).map { $0 * factor }
    case .columns(let source, let range):
      let (width, elements) = (source.shape[1], try floats(of: source))
      return (0..<source.shape[0]).flatMap { row in
        elements[row * width + range.lowerBound..<row * width + range.upperBound]
      }
    case .columnsScaled(let source, let scales): return try columnsScaled(source, scales)
    case .rowsScaled(let source, let scales): return try rowsScaled(source, scales)
    case .shiftedBias(let start, let weight, let shift): return try foldedBias(start, weight, shift)
    case .sum(let left, let right): return try sum(left, right)
    case .resampled(let source, let resampling): return try resampled(source, resampling)
    case .blocks(let source, let type): return try decoded(source, type).load().array(of: Float.self)
    case .joinedRows:
      let elements = try bytes(of: expression)
      return try StoredTensor(
        name: "joined", dtype: expression.dtype, shape: expression.shape, storage: MemoryStorage(elements)
      ).floats()
    case .cast(_, let dtype):
      let elements = try bytes(of: expression)
      return try StoredTensor(
        name: "cast", dtype: dtype, shape: expression.shape, storage: MemoryStorage(elements)
      ).floats()
    case .stored, .quantized, .blockBytes:
      throw TensorError(.unsupported, "\(expression.dtype.rawValue) elements cannot be read as numbers")
    }
  }
}

extension Materializer {
  /// The stored tensor that an expression is a mere view of, nil if something has to be computed.
  static func view(of expression: TensorExpression) -> StoredTensor? {
    switch expression {
    case .stored(let tensor): return tensor
    case .reshaped(let source, let shape):
      guard var tensor = view(of: source), tensor.isContiguous else { return nil }
      tensor.shape = shape
      tensor.strides = shape.contiguousStrides
      return tensor
    case .permuted(let source, let axes): return view(of: source).map { $0.permuted(axes) }
    case .rows(let source, let range):
      guard var tensor = view(of: source), let stride = tensor.strides.first else { return nil }
      let (offset, overflow) = range.lowerBound.multipliedReportingOverflow(by: stride)
      let (start, overflow2) = tensor.elementOffset.addingReportingOverflow(offset)
      guard !overflow, !overflow2 else { return nil }
      tensor.elementOffset = start
      tensor.shape = expression.shape
      return tensor
    case .columns(let source, let range):
      guard var tensor = view(of: source), tensor.strides.count == 2 else { return nil }
      let (offset, overflow) = range.lowerBound.multipliedReportingOverflow(by: tensor.strides[1])
      let (start, overflow2) = tensor.elementOffset.addingReportingOverflow(offset)
      guard !overflow, !overflow2 else { return nil }
      tensor.elementOffset = start
      tensor.shape = expression.shape
      return tensor
    default: return nil
    }
  }

  /// True where row `i` of the result depends on row `i` of the source alone, so that the work can be cut into pieces.
  static func isRowwise(_ expression: TensorExpression) -> Bool {
    switch expression {
    case .stored: true
    case .cast(let source, _), .scaled(let source, _), .columnsScaled(let source, _), .rowsScaled(let source, _),
      .rows(let source, _), .columns(let source, _), .blocks(let source, _), .blockBytes(let source, _):
      isRowwise(source)
    case .reshaped(let source, let shape): keepsRows(source, shape) && isRowwise(source)
    case .permuted: view(of: expression) != nil
    case .shiftedBias, .batchNormScale, .batchNormShift, .quantized, .joinedRows, .sum, .resampled: false
    }
  }

  /// A range of the first axis, taken before the arithmetic where that is done row by row.
  static func rows(_ range: Range<Int>, of expression: TensorExpression) -> TensorExpression {
    switch expression {
    case .cast(let source, let dtype): .cast(rows(range, of: source), dtype)
    case .blocks(let source, let type): .blocks(rows(range, of: source), type)
    case .blockBytes(let source, let type): .blockBytes(rows(range, of: source), type)
    case .scaled(let source, let factor): .scaled(rows(range, of: source), by: factor)
    case .columnsScaled(let source, let scales): .columnsScaled(rows(range, of: source), by: scales)
    case .columns(let source, let columns): .columns(rows(range, of: source), columns)
    case .rowsScaled(let source, let scales): .rowsScaled(rows(range, of: source), by: .rows(scales, range))
    case .reshaped(let source, let shape) where keepsRows(source, shape):
      .reshaped(rows(range, of: source), Shape([range.count] + shape.dimensions.dropFirst()))
    default: .rows(expression, range)
    }
  }

  /// True where another shape leaves the first axis as it is.
  private static func keepsRows(_ source: TensorExpression, _ shape: Shape) -> Bool {
    shape.rank > 0 && source.shape.dimensions.first == shape[0]
  }

  private static func rowByteCount(_ expression: TensorExpression) throws(TensorError) -> Int {
    let rows = max(1, expression.shape[0])
    guard let size = expression.shape.byteCount(of: expression.dtype), size % rows == 0 else {
      throw TensorError(.unsupported, "rows of \(expression.dtype.rawValue)\(expression.shape) do not fill whole bytes")
    }
    return size / rows
  }

  private mutating func columnsScaled(_ source: TensorExpression, _ scales: TensorExpression) throws -> [Float] {
    let factors = try floats(of: scales)
    var matrix = try floats(of: source)
    let width = factors.count
    precondition(matrix.count % max(1, width) == 0)
    var column = 0
    for index in matrix.indices {
      matrix[index] *= factors[column]
      column = column + 1 == width ? 0 : column + 1
    }
    return matrix
  }

  private mutating func rowsScaled(_ source: TensorExpression, _ scales: TensorExpression) throws -> [Float] {
    let factors = try floats(of: scales)
    var elements = try floats(of: source)
    let width = elements.count / max(1, factors.count)
    for row in factors.indices {
      for index in row * width..<(row + 1) * width { elements[index] *= factors[row] }
    }
    return elements
  }
}

extension Materializer {
  private mutating func cast(_ source: TensorExpression, to dtype: DType) throws -> TensorBytes {
    let values = try floats(of: source)
    switch dtype {
    case .f32: return TensorBytes(copying: values)
    case .f16:
      let halves = try context().f16(values.span)
      if halves.overflows > 0 {
        try checkOverflow(values, source) { HalfPrecision.float(fromF16: HalfPrecision.f16(from: $0)).isInfinite }
      }
      return TensorBytes(copying: halves.bytes)
    case .bf16:
      let halves = try context().bf16(values.span)
      if halves.overflows > 0 {
        try checkOverflow(values, source) { HalfPrecision.float(fromBF16: HalfPrecision.bf16(from: $0)).isInfinite }
      }
      return TensorBytes(copying: halves.bytes)
    default:
      throw TensorError(.unsupported, "a cast to \(dtype.rawValue)", expected: "f32, f16 or bf16")
    }
  }

  /// Refuses a cast in which a finite value becomes infinite.
  private func checkOverflow(
    _ values: [Float], _ source: TensorExpression, becomesInfinite: (Float) -> Bool
  ) throws(QuantizationError) {
    guard let index = values.indices.first(where: { values[$0].isFinite && becomesInfinite(values[$0]) }) else {
      return
    }
    throw QuantizationError(
      .overflow, "element \(index) is \(values[index]), which is too large for the 16-bit type",
      remedy: "use bf16, which has the range of fp32, or keep this tensor in fp32", tensor: source.sources.first?.name)
  }
}
