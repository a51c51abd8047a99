public import MultiwayCore
public import MultiwayGraph

/// The parameters of a model, each bound to what a checkpoint holds of it.
public struct BoundParameters: Sendable {
  /// A declaration with its elements.
  public struct Parameter: Sendable {
    /// What the architecture declares.
    public var declaration: ParameterDeclaration
    /// The elements, in the declared shape: a tensor of the checkpoint, or rows of one.
    public var data: TensorExpression
  }

  /// A tensor of the checkpoint that holds parameters.
  public struct Stored: Sendable {
    /// The tensor under the checkpoint's own name.
    public var tensor: StoredTensor
    /// Which tokens its parameters act on.
    public var modality: Modality
  }

  /// All of them, in the order of declaration.
  public let parameters: [Parameter]
  /// The checkpoint's tensors that they came from.
  public let stored: [Stored]
  /// What was left alone, for people.
  public let notes: [String]
  private let index: [String: Int]

  /// The number of elements of the checkpoint's tensors.
  public var elementCount: Int { stored.reduce(0) { $0 + $1.tensor.shape.elementCount } }

  /// The parameter with a canonical name, nil where an optional one is absent.
  public subscript(name: String) -> Parameter? { index[name].map { parameters[$0] } }

  private init(_ parameters: [Parameter], stored: [Stored], notes: [String]) {
    self.parameters = parameters
    self.stored = stored
    self.notes = notes
    index = Dictionary(
      parameters.enumerated().map { ($1.declaration.name, $0) }, uniquingKeysWith: { first, _ in first })
  }

  /// The same parameters with other elements, for those whose sizes are changed on the way.
  public func replacing(_ transform: (Parameter) -> Parameter) -> BoundParameters {
    BoundParameters(parameters.map(transform), stored: stored, notes: notes)
  }
}

extension BoundParameters {
  /// Binds declared parameters to the tensors of a state dict.
  ///
  /// Throws one error that lists every missing, left-over and mis-shaped key, each under the checkpoint's own name, and what may
  /// mend it.
  public static func bind(
    _ declarations: [ParameterDeclaration], to tensors: [StoredTensor], keyMap: KeyMap, model: String, file: String
  ) throws(ModelError) -> BoundParameters {
    var binder = ParameterBinder(declarations, tensors: tensors, keyMap: keyMap)
    binder.bind()
    if let error = binder.problems.error(model: model, layout: keyMap.layout, tensors: tensors, file: file) {
      throw error
    }
    return BoundParameters(binder.parameters, stored: binder.stored, notes: binder.notes)
  }
}

/// Goes through the tensors that a layout promises.
private struct ParameterBinder {
  private let declarations: [ParameterDeclaration]
  private let tensors: [StoredTensor]
  private let keyMap: KeyMap
  private var unclaimed: [String: StoredTensor] = [:]
  private var found: [String: TensorExpression] = [:]
  var stored: [BoundParameters.Stored] = []
  var problems = KeyProblems()
  var notes: [String] = []

  init(_ declarations: [ParameterDeclaration], tensors: [StoredTensor], keyMap: KeyMap) {
    self.declarations = declarations
    self.tensors = tensors
    self.keyMap = keyMap
    for tensor in tensors { unclaimed[tensor.name] = tensor }
  }

  var parameters: [BoundParameters.Parameter] {
    declarations.compactMap { declaration in
      found[declaration.name].map { BoundParameters.Parameter(declaration: declaration, data: $0) }
    }
  }

  mutating func bind() {
    let entries = KeyEntry.entries(of: declarations, in: keyMap).entries
    let groups = presentGroups(entries)
    for entry in entries {
      guard let tensor = unclaimed.removeValue(forKey: entry.key) else {
        if entry.declarations.contains(where: { isRequired($0, groups) }) {
          problems.missing.append("\(entry.key) \(entry.shape)")
        }
        continue
      }
      if tensor.shape != entry.shape {
        problems.misshapen.append("\(entry.key) is \(tensor.shape), expected \(entry.shape)")
        continue
      }
      let isCounter = entry.declarations.allSatisfy { $0.role == .trainingScalar }
      if !(tensor.dtype.isFloatingPoint && tensor.dtype.isDecodable) && !isCounter {
        problems.misshapen.append("\(entry.key) has dtype \(tensor.dtype.rawValue), expected a floating-point type")
        continue
      }
      stored.append(BoundParameters.Stored(tensor: tensor, modality: entry.declarations[0].modality))
      claim(tensor, entry)
    }
    sortLeftOvers()
  }

  /// Groups of which the checkpoint holds at least one parameter.
  private func presentGroups(_ entries: [KeyEntry]) -> Set<String> {
    var groups: Set<String> = []
    for entry in entries where unclaimed[entry.key] != nil {
      for case .group(let group) in entry.declarations.map(\.presence) { groups.insert(group) }
    }
    return groups
  }

  private func isRequired(_ declaration: ParameterDeclaration, _ groups: Set<String>) -> Bool {
    switch declaration.presence {
    case .required: true
    case .optional: false
    case .group(let group): groups.contains(group)
    }
  }

  /// Cuts a tensor into the parameters that it holds.
  private mutating func claim(_ tensor: StoredTensor, _ entry: KeyEntry) {
    let whole = TensorExpression.stored(tensor)
    var row = entry.leadingRows
    for declaration in entry.declarations {
      let shape = declaration.shape
      if entry.declarations.count == 1, entry.leadingRows == 0 {
        found[declaration.name] = tensor.shape == shape ? whole : .reshaped(whole, shape)
        continue
      }
      let rows = shape.dimensions.first ?? 0
      found[declaration.name] = .rows(whole, row..<row + rows)
      row += rows
    }
  }

  private mutating func sortLeftOvers() {
    var reasons: [(reason: String, count: Int)] = []
    for tensor in tensors where unclaimed[tensor.name] != nil {
      guard let reason = keyMap.leftAlone(tensor.name) else {
        problems.leftOver.append("\(tensor.name) \(tensor.shape)")
        continue
      }
      if let place = reasons.firstIndex(where: { $0.reason == reason }) {
        reasons[place].count += 1
      } else {
        reasons.append((reason, 1))
      }
    }
    notes = reasons.map { "left out: \($0.count) tensor\($0.count == 1 ? "" : "s") (\($0.reason))" }
  }
}

extension BoundParameters {
  /// The same parameters with positions and bias tables of another image size.
  /// - Parameters:
  ///   - from: patches along a side in the checkpoint.
  ///   - to: patches along a side in the result.
  ///   - positions: how absolute positions are found.
  ///   - leadingRows: rows of the position table before those of the patches: 1 where the class token has a position.
  ///   - tables: how relative position biases are found.
  ///   - trailingRows: rows of a bias table behind those of pairs of patches.
  func resized(
    from: Int, to: Int, positions: Resampling.Method, leadingRows: Int, tables: Resampling.Method, trailingRows: Int = 3
  ) -> BoundParameters {
    replacing { parameter in
      let resampling: Resampling
      switch parameter.declaration.role {
      case .positions where parameter.declaration.modality == .vision:
        resampling = Resampling(positions, from: from, to: to, leadingRows: leadingRows)
      case .relativePositionBias:
        resampling = Resampling(tables, from: 2 * from - 1, to: 2 * to - 1, trailingRows: trailingRows)
      default: return parameter
      }
      var resized = parameter
      let table = TensorExpression.resampled(parameter.data, resampling)
      resized.declaration.shape = table.shape
      // The original code keeps the checkpoint's dtype.
      let dtype = parameter.data.dtype
      resized.data = [.f16, .bf16].contains(dtype) ? .cast(table, dtype) : table
      return resized
    }
  }
}
