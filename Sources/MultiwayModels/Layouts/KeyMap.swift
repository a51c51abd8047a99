public import MultiwayCore

/// Where a key layout keeps a parameter.
public struct KeyPlace: Hashable, Sendable {
  /// The checkpoint's key. Parameters that share a key lie in its tensor one after the other along the first axis, in the order in
  /// which they are declared: a fused query-key-value matrix.
  public var key: String
  /// The shape of the file's tensor where it is not the parameter's own; it has the same elements in the same order.
  public var shape: Shape?
  /// Rows that the file's table holds before the parameter's, and that no inference reads.
  public var leadingRows: Int

  /// Names a place.
  public init(_ key: String, shape: Shape? = nil, leadingRows: Int = 0) {
    self.key = key
    self.shape = shape
    self.leadingRows = leadingRows
  }
}

/// A key layout: under which keys, and in which form, one code base keeps the parameters of an architecture.
public struct KeyMap: Sendable {
  /// The layout's name, as `convert --layout` takes it: `unilm`, `timm`, `huggingface`.
  public var layout: String
  /// The place of a parameter of that canonical name and shape; nil where the layout has none.
  public let place: @Sendable (_ name: String, _ shape: Shape) -> KeyPlace?
  /// Keys that belong to no parameter and are known to be needless, with the reason: buffers that are computed again.
  public let leftAlone: @Sendable (_ key: String) -> String?
  /// What the layout holds beside the parameters and what follows from the sizes alone: index buffers.
  public let buffers: [StoredTensor]

  /// Describes a layout.
  public init(
    layout: String, buffers: [StoredTensor] = [], leftAlone: @escaping @Sendable (String) -> String? = { _ in nil },
    place: @escaping @Sendable (_ name: String, _ shape: Shape) -> KeyPlace?
  ) {
    self.layout = layout
    self.buffers = buffers
    self.leftAlone = leftAlone
    self.place = place
  }

  /// The key of a canonical name, nil where the layout has none.
  public func key(_ name: String) -> String? { place(name, []).map(\.key) }

  /// The same layout with a prefix before every key.
  public func prefixed(_ prefix: String) -> KeyMap {
    guard !prefix.isEmpty else { return self }
    let (place, leftAlone) = (place, leftAlone)
    return KeyMap(
      layout: layout,
      buffers: buffers.map { buffer in
        var buffer = buffer
        buffer.name = prefix + buffer.name
        return buffer
      },
      leftAlone: { key in key.hasPrefix(prefix) ? leftAlone(String(key.dropFirst(prefix.count))) : nil },
      place: { name, shape in
        place(name, shape).map { KeyPlace(prefix + $0.key, shape: $0.shape, leadingRows: $0.leadingRows) }
      })
  }
}

/// One tensor of a layout and the declared parameters that it holds.
struct KeyEntry {
  var key: String
  /// The shape of the file's tensor.
  var shape: Shape
  /// The parameters in their order along the first axis.
  var declarations: [ParameterDeclaration]
  var leadingRows: Int

  /// The tensors that a layout keeps `declarations` in, in the order of their first parameters, and the parameters for which it has
  /// no place.
  static func entries(
    of declarations: [ParameterDeclaration], in keyMap: KeyMap
  ) -> (entries: [KeyEntry], homeless: [ParameterDeclaration]) {
    var entries: [KeyEntry] = []
    var positions: [String: Int] = [:]
    var homeless: [ParameterDeclaration] = []
    for declaration in declarations {
      guard let place = keyMap.place(declaration.name, declaration.shape) else {
        homeless.append(declaration)
        continue
      }
      if let position = positions[place.key] {
        entries[position].append(declaration)
      } else {
        positions[place.key] = entries.count
        entries.append(KeyEntry(place, declaration))
      }
    }
    return (entries, homeless)
  }

  private init(_ place: KeyPlace, _ declaration: ParameterDeclaration) {
    key = place.key
    declarations = [declaration]
    leadingRows = place.leadingRows
    var dimensions = declaration.shape.dimensions
    if leadingRows > 0, !dimensions.isEmpty { dimensions[0] += leadingRows }
    shape = place.shape ?? Shape(dimensions)
  }

  private mutating func append(_ declaration: ParameterDeclaration) {
    declarations.append(declaration)
    var dimensions = shape.dimensions
    if !dimensions.isEmpty { dimensions[0] += declaration.shape.dimensions.first ?? 0 }
    shape = Shape(dimensions)
  }
}
