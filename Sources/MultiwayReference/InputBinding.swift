import MultiwayCore
import MultiwayGraph

/// Compares tensors with the types that the graph gives them, and finds the sizes of the symbols on the way.
struct InputBinding {
  /// Everything found wrong so far.
  var problems: [String] = []
  private var symbols: [String: (size: Int, source: String)] = [:]

  /// Checks one tensor.
  /// - Returns: the tensor, a mask with every padded place made 1.
  mutating func bind(_ declared: Value, to value: TensorValue) -> TensorValue {
    let dimensions = declared.type.dimensions
    guard dimensions.count == value.shape.rank else {
      problems.append("'\(declared.name)' has the shape \(value.shape), not \(declared.type)")
      return value
    }
    for (dimension, size) in zip(dimensions, value.shape.dimensions) where dimension.symbol != nil {
      bind(dimension, to: size, declared, value.shape)
    }
    let fixed = zip(dimensions, value.shape.dimensions).filter { $0.0.symbol == nil }
    if fixed.contains(where: { $0.0.offset != $0.1 }) {
      problems.append("'\(declared.name)' has the shape \(value.shape), not \(declared.type)")
    }
    return converted(declared, value)
  }

  private mutating func bind(_ dimension: Dimension, to size: Int, _ declared: Value, _ shape: Shape) {
    guard let symbol = dimension.symbol else { return }
    let (found, overflow) = size.subtractingReportingOverflow(dimension.offset)
    guard !overflow, found >= 1 else {
      problems.append("'\(declared.name)' has the shape \(shape), which leaves nothing for \(symbol)")
      return
    }
    guard let known = symbols[symbol] else {
      symbols[symbol] = (found, declared.name)
      return
    }
    if known.size != found {
      problems.append("'\(declared.name)' says that \(symbol) is \(found), '\(known.source)' says \(known.size)")
    }
  }

  private mutating func converted(_ declared: Value, _ value: TensorValue) -> TensorValue {
    switch (declared.type.dtype, value.elements) {
    case (.u8, .integers(let elements)):
      return TensorValue(value.shape, integers: elements.map { $0 == 0 ? 0 : 1 })
    case (.u8, .floats(let elements)):
      return TensorValue(value.shape, integers: elements.map { $0 == 0 ? 0 : 1 })
    case (.f32, .floats), (.i64, .integers): return value
    case (.f32, .integers):
      problems.append("'\(declared.name)' holds integers, not f32")
    case (.i64, .floats):
      problems.append("'\(declared.name)' holds floating-point numbers, not integers")
    default:
      problems.append("'\(declared.name)' is declared \(declared.type.dtype.shortName), which no op reads")
    }
    return value
  }

  /// Checks that token ids are rows of their table.
  mutating func checkIDs(_ name: String, _ ids: TensorValue, rows: Int) {
    guard case .integers(let elements) = ids.elements,
      let wrong = elements.first(where: { $0 < 0 || $0 >= rows })
    else { return }
    problems.append("'\(name)' holds the token id \(wrong), which is not in 0..<\(rows)")
  }

  /// Throws one error for all problems, if there are any.
  func throwProblems(node: String?) throws(ReferenceError) {
    guard !problems.isEmpty else { return }
    throw ReferenceError(.invalidInput, "the inputs do not fit: " + problems.joined(separator: "; "), node: node)
  }

  /// The shape of a value now that the symbols are known.
  func shape(of value: Value) throws(ReferenceError) -> Shape {
    var sizes: [Int] = []
    for dimension in value.type.dimensions {
      let size = dimension.symbol.map { symbols[$0]?.size ?? 0 } ?? 0
      let (sum, overflow) = size.addingReportingOverflow(dimension.offset)
      sizes.append(overflow ? -1 : sum)
    }
    guard let shape = Shape(checking: sizes), shape.elementCount <= Reference.maximumElements else {
      throw ReferenceError(
        .tooLarge, "a value of the shape \(sizes)", expected: "at most \(Reference.maximumElements) elements",
        node: value.name)
    }
    return shape
  }
}
