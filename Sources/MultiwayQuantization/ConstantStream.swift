public import MultiwayCore
public import MultiwayGraph

extension SourceStream {
  /// A stream of a graph's constants; see `runConstants`.
  public init(_ constants: [Constant], ledger: SourceLedger) throws(MemoryError) {
    let layers = QuantizedLayers(constants)
    let items = constants.indices.map { index in
      let data = constants[index].data
      let bias = layers.biases[index].map { constants[$0].data }
      return Item(
        name: constants[index].name, sources: data.sources.flatMap(\.sources), unchanged: data.unchanged,
        // The three tensors of a quantized matrix are made at once, and the bias with them.
        continuesJob: index > 0 && data.sharesMatrix(with: constants[index - 1].data) || layers.isMadeWithPanels(index)
      ) {
        Materializer.workingByteCount(of: data, pieceSize: $0) + (bias?.foldingByteCount() ?? 0)
      }
    }
    try self.init(items, ledger: ledger)
  }

  /// Computes the constants that the stream was made of.
  public func run(
    _ constants: [Constant], consume: (TensorBytes) throws -> Void,
    finish: (_ item: Int, _ unchanged: StoredTensor?) throws -> Void
  ) throws {
    let layers = QuantizedLayers(constants)
    try run(
      reader: { [keepsPages] claim in
        var materializer = Materializer(peekingFor: claim, keepsPages: keepsPages)
        var bias: [Float] = []
        return { item, pieceSize, emit in
          if let place = layers.biases[item], case .quantized(let matrix, .panels) = constants[item].data {
            bias = try materializer.streamPanels(matrix, with: constants[place].data, pieceSize: pieceSize) {
              try emit($0, nil)
            }
          } else if layers.isMadeWithPanels(item) {
            try emit(TensorBytes(copying: bias), nil)
          } else {
            try materializer.stream(constants[item].data, pieceSize: pieceSize, emit)
          }
        }
      }, consume: consume, finish: finish)
  }
}

/// Which constants are biases that are made with the panels of their layer.
private struct QuantizedLayers {
  /// For panels: the place of such a bias.
  let biases: [Int: Int]
  private let places: Set<Int>

  /// The components of a matrix stand before its bias, in the order of `QuantizedLinear`.
  init(_ constants: [Constant]) {
    var biases: [Int: Int] = [:]
    for panels in constants.indices {
      let bias = panels + 3
      guard bias < constants.count, Materializer.sharesRows(constants[bias].data, with: constants[panels].data),
        (panels + 1..<bias).allSatisfy({ constants[$0].data.sharesMatrix(with: constants[panels].data) })
      else { continue }
      biases[panels] = bias
    }
    self.biases = biases
    places = Set(biases.values)
  }

  /// True for a bias that is made with panels.
  func isMadeWithPanels(_ constant: Int) -> Bool { places.contains(constant) }
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
