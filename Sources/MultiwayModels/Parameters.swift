public import MultiwayCore
public import MultiwayGraph

/// A parameter that an architecture declares: what a checkpoint has to bring.
public struct ParameterDeclaration: Sendable {
  /// Whether a checkpoint may lack it.
  public enum Presence: Hashable, Sendable {
    /// It must be there.
    case required
    /// It may be absent on its own.
    case optional
    /// All parameters of the group are there, or none.
    case group(String)
  }

  /// The canonical name, which is also the constant's name in the graph: `layers.3.vision.query.weight`.
  public var name: String
  /// The shape in the checkpoint.
  public var shape: Shape
  /// What it is for.
  public var role: Role
  /// Which tokens it serves.
  public var modality: Modality
  /// Whether it may be absent.
  public var presence: Presence

  /// Declares a parameter.
  public init(_ name: String, _ shape: Shape, _ role: Role, _ modality: Modality, _ presence: Presence = .required) {
    self.name = name
    self.shape = shape
    self.role = role
    self.modality = modality
    self.presence = presence
  }
}

/// What can be wrong between a checkpoint and the architectures.
public enum ModelErrorCode: FailureCode {
  /// No architecture has keys like these.
  case unknownArchitecture
  /// The architecture is known, but a part of it is not supported.
  case unsupported
  /// Keys are missing, left over or mis-shaped.
  case keysDoNotFit

  /// The exit code class.
  public var category: FailureCategory { .data }
}

/// An error about a model.
public typealias ModelError = Failure<ModelErrorCode>

/// Names that a checkpoint uses for the canonical names of an architecture.
public struct KeyMap: Sendable {
  /// The layout's name: `unilm`, `timm`, `huggingface`.
  public var layout: String
  private let key: @Sendable (String) -> String

  /// Makes a map from a function of the canonical name.
  public init(layout: String, key: @escaping @Sendable (String) -> String) {
    self.layout = layout
    self.key = key
  }

  /// The checkpoint's key of a canonical name.
  public func callAsFunction(_ name: String) -> String { key(name) }
}

/// The parameters of a model, each bound to a tensor of a checkpoint.
public struct BoundParameters: Sendable {
  /// A declaration with its tensor.
  public struct Parameter: Sendable {
    /// What the architecture declares.
    public var declaration: ParameterDeclaration
    /// What the checkpoint holds.
    public var tensor: StoredTensor
  }

  /// All of them, in the order of declaration.
  public let parameters: [Parameter]
  private let index: [String: Int]

  /// The number of elements of all parameters.
  public var elementCount: Int { parameters.reduce(0) { $0 + $1.tensor.shape.elementCount } }

  /// The parameter with a canonical name, nil where an optional one is absent.
  public subscript(name: String) -> Parameter? { index[name].map { parameters[$0] } }

  /// Binds declared parameters to the tensors of a state dict.
  ///
  /// Throws one error that lists every missing, left-over and mis-shaped key, each under the checkpoint's own name.
  public static func bind(
    _ declarations: [ParameterDeclaration], to tensors: [StoredTensor], keyMap: KeyMap, model: String, file: String
  ) throws(ModelError) -> BoundParameters {
    var byKey: [String: StoredTensor] = [:]
    for tensor in tensors { byKey[tensor.name] = tensor }
    let present = Set(
      declarations.compactMap { declaration -> String? in
        guard case .group(let group) = declaration.presence, byKey[keyMap(declaration.name)] != nil else { return nil }
        return group
      })
    var problems = KeyProblems()
    var bound: [Parameter] = []
    for declaration in declarations {
      let key = keyMap(declaration.name)
      guard let tensor = byKey.removeValue(forKey: key) else {
        if isRequired(declaration, present) { problems.missing.append("\(key) \(declaration.shape)") }
        continue
      }
      if tensor.shape != declaration.shape {
        problems.misshapen.append("\(key) is \(tensor.shape), expected \(declaration.shape)")
      } else if !tensor.dtype.isFloatingPoint || !tensor.dtype.isDecodable {
        problems.misshapen.append("\(key) has dtype \(tensor.dtype.rawValue), expected a floating-point type")
      }
      bound.append(Parameter(declaration: declaration, tensor: tensor))
    }
    problems.leftOver = tensors.filter { byKey[$0.name] != nil }.map { "\($0.name) \($0.shape)" }
    if let error = problems.error(model: model, layout: keyMap.layout, file: file) { throw error }
    return BoundParameters(bound)
  }

  private init(_ parameters: [Parameter]) {
    self.parameters = parameters
    index = Dictionary(uniqueKeysWithValues: parameters.enumerated().map { ($1.declaration.name, $0) })
  }

  private static func isRequired(_ declaration: ParameterDeclaration, _ present: Set<String>) -> Bool {
    switch declaration.presence {
    case .required: true
    case .optional: false
    case .group(let group): present.contains(group)
    }
  }
}

/// Everything that is wrong between a checkpoint's keys and a declaration.
private struct KeyProblems {
  var missing: [String] = []
  var leftOver: [String] = []
  var misshapen: [String] = []

  func error(model: String, layout: String, file: String) -> ModelError? {
    guard !missing.isEmpty || !leftOver.isEmpty || !misshapen.isEmpty else { return nil }
    var lines = ["the keys do not fit \(model) (\(layout) layout)"]
    for (title, keys) in [("missing", missing), ("mis-shaped", misshapen), ("unexpected", leftOver)] where !keys.isEmpty
    {
      lines.append("  \(title) (\(keys.count)):")
      lines += keys.map { "    " + $0 }
    }
    return ModelError(
      .keysDoNotFit, lines.joined(separator: "\n"),
      remedy:
        "check that the file holds the whole model; `multiway convert IN OUT.safetensors` needs no known architecture",
      file: file)
  }
}
