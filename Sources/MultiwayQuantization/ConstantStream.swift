public import MultiwayCore
public import MultiwayGraph

extension SourceStream {
  /// A stream of a graph's constants; see `runConstants`.
  public init(_ constants: [Constant], ledger: SourceLedger) throws(MemoryError) {
    let items = constants.indices.map { index in
      let data = constants[index].data
      return Item(
        name: constants[index].name, sources: data.sources.flatMap(\.sources), unchanged: data.unchanged,
        // The three tensors of a quantized matrix are made at once.
        continuesJob: index > 0 && data.sharesMatrix(with: constants[index - 1].data)
      ) { Materializer.workingByteCount(of: data, pieceSize: $0) }
    }
    try self.init(items, ledger: ledger)
  }

  /// Computes the constants that the stream was made of.
  public func run(
    _ constants: [Constant], consume: (TensorBytes) throws -> Void,
    finish: (_ item: Int, _ unchanged: StoredTensor?) throws -> Void
  ) throws {
    try run(
      reader: { [keepsPages] claim in
        var materializer = Materializer(peekingFor: claim, keepsPages: keepsPages)
        return { item, pieceSize, emit in
          try materializer.stream(constants[item].data, pieceSize: pieceSize, emit)
        }
      }, consume: consume, finish: finish)
  }
}

extension TensorExpression {
  /// The tensor whose elements are the constant's, nil where something is computed.
  fileprivate var unchanged: StoredTensor? {
    if case .stored(let tensor) = self, tensor.storage.origins == nil { return tensor }
    return nil
  }

  fileprivate func sharesMatrix(with other: TensorExpression) -> Bool {
    guard case .quantized(let own, _) = self, case .quantized(let others, _) = other else { return false }
    return own === others
  }
}
