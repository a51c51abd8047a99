import MultiwayArtifact
import MultiwayCheckpoint
public import MultiwayCore
import MultiwayModels
public import MultiwayParity

/// What differs between two files, tensor by tensor.
public struct Difference: Sendable {
  /// A tensor that both have.
  public struct Pair: Sendable {
    /// The name under which both have it.
    public var name: String
    /// The dtypes, of the first file and of the second.
    public var dtypes: (DType, DType)
    /// The shapes.
    public var shapes: (Shape, Shape)
    /// True where both have the same bytes.
    public var hasEqualBytes: Bool
    /// How far the second's elements are from the first's; nil where the bytes are equal, the counts of
    /// elements are not, or elements cannot be decoded.
    public var comparison: Comparison?

    /// True where nothing of name, dtype, shape and bytes differs.
    public var isEqual: Bool { hasEqualBytes && dtypes.0 == dtypes.1 && shapes.0 == shapes.1 }
  }

  /// The tensors that both have, in the order of the first file.
  public var pairs: [Pair]
  /// Names that only the first has.
  public var onlyInFirst: [String]
  /// Names that only the second has.
  public var onlyInSecond: [String]
  /// True where names are those that the architecture gives to parameters, and not the files' own.
  public var usesCanonicalNames: Bool

  /// True where the files hold the same tensors.
  public var isEmpty: Bool { onlyInFirst.isEmpty && onlyInSecond.isEmpty && pairs.allSatisfy(\.isEqual) }
}

extension Difference {
  /// How much of two tensors is compared at once, in elements.
  private static let sliceSize = 4 << 20

  /// Compares two checkpoints or artifacts. Models of one architecture are compared by their parameters, whatever container and key layout they
  /// come in; all other files by the names of their tensors.
  public init(
    _ first: ModelFile, _ second: ModelFile, options: InputOptions, progress: Progress? = nil
  ) throws {
    var (left, right) = (try first.storedTensors(options), try second.storedTensors(options))
    usesCanonicalNames = false
    if let models = try Difference.parameters(first, second, options: options),
      // The same names: there is nothing to translate, and what is no parameter is compared, too.
      Set(left.map(\.name)) != Set(right.map(\.name))
    {
      (left, right) = models
      usesCanonicalNames = true
    }
    let others = Dictionary(right.map { ($0.name, $0) }) { first, _ in first }
    let names = Set(left.map(\.name))
    onlyInFirst = left.map(\.name).filter { others[$0] == nil }
    onlyInSecond = right.map(\.name).filter { !names.contains($0) }
    pairs = []
    let common = left.compactMap { tensor in others[tensor.name].map { (tensor, $0) } }
    let total = common.reduce(0) { $0 &+ $1.0.byteCount }
    var done = 0
    for (tensor, other) in common {
      pairs.append(try Difference.compare(tensor, other))
      tensor.discard()
      other.discard()
      done += tensor.byteCount
      progress?(done, total)
    }
  }

  /// The parameters of both under the architecture's names; nil where one has none, or they are of different architectures.
  private static func parameters(
    _ first: ModelFile, _ second: ModelFile, options: InputOptions
  ) throws -> ([StoredTensor], [StoredTensor])? {
    do {
      let (left, right) = (
        try LoadedModel(first, options: options), try LoadedModel(second, options: options)
      )
      guard left.architecture == right.architecture else { return nil }
      return (left.namedParameters, right.namedParameters)
    } catch is ModelError {
      return nil
    }
  }

  private static func compare(_ first: StoredTensor, _ second: StoredTensor) throws -> Pair {
    var pair = Pair(
      name: first.name, dtypes: (first.dtype, second.dtype), shapes: (first.shape, second.shape), hasEqualBytes: false)
    let (left, right) = (try first.contiguousBytes(), try second.contiguousBytes())
    if first.dtype == second.dtype {
      pair.hasEqualBytes = left.byteCount == right.byteCount && left.span.isEqual(to: right.span)
    }
    let isComparable = first.dtype.isDecodable && second.dtype.isDecodable
    guard !pair.hasEqualBytes, first.shape.elementCount == second.shape.elementCount, isComparable else {
      return pair
    }
    var sums = ComparisonAccumulator()
    for start in stride(from: 0, to: first.shape.elementCount, by: sliceSize) {
      let range = start..<min(first.shape.elementCount, start + sliceSize)
      sums.add(
        reference: try floats(of: left, first.dtype, range), candidate: try floats(of: right, second.dtype, range))
    }
    pair.comparison = sums.result(name: first.name)
    return pair
  }

  /// A run of elements; those that can be decoded are whole bytes.
  private static func floats(
    of bytes: TensorBytes, _ dtype: DType, _ range: Range<Int>
  ) throws(TensorError) -> [Float] {
    let width = dtype.byteWidth ?? 1
    let part = bytes.extracting(range.lowerBound * width..<range.upperBound * width)
    return try StoredTensor(name: "", dtype: dtype, shape: [range.count], storage: MemoryStorage(part)).floats()
  }
}

extension RawSpan {
  /// True where both hold the same bytes; they must be equally many.
  fileprivate func isEqual(to other: RawSpan) -> Bool {
    var offset = 0
    while offset + 8 <= byteCount {
      if load(UInt64.self, at: offset) != other.load(UInt64.self, at: offset) { return false }
      offset += 8
    }
    while offset < byteCount {
      if byte(at: offset) != other.byte(at: offset) { return false }
      offset += 1
    }
    return true
  }
}

extension ModelFile {
  /// All tensors under the file's own names.
  fileprivate func storedTensors(_ options: InputOptions) throws -> [StoredTensor] {
    switch self {
    case .checkpoint(let checkpoint): try checkpoint.stateDict(named: options.stateDict).tensors
    case .artifact(let artifact): artifact.storedTensors
    }
  }
}

extension LoadedModel {
  /// The architecture's name.
  fileprivate var architecture: String {
    if case .artifact(let artifact) = file { return artifact.metadata.architecture }
    return model?.architecture ?? ""
  }

  /// The parameters under the names that the architecture declares; of an artifact, its constants, which have the same names where nothing
  /// was quantized or folded.
  fileprivate var namedParameters: [StoredTensor] {
    guard let model else { return storedTensors }
    return model.parameters.parameters.map { StoredTensor(name: $0.declaration.name, computedFrom: $0.data) }
  }
}
