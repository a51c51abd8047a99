public import MultiwayCore

/// A value's place in `Graph.values`.
public struct ValueID: Hashable, Sendable {
  /// The index.
  public let index: Int
  /// Names the value at `index`.
  public init(_ index: Int) { self.index = index }
}

/// A constant's place in `Graph.constants`.
public struct ConstantID: Hashable, Sendable {
  /// The index.
  public let index: Int
  /// Names the constant at `index`.
  public init(_ index: Int) { self.index = index }
}

/// One dimension of a value: a number, or a symbol plus a number.
public struct Dimension: Hashable, Sendable {
  /// What is only known when inputs arrive: `batch`, `text_tokens`.
  public var symbol: String?
  /// The dimension itself, or what is added to the symbol.
  public var offset: Int

  /// What a size, or what is added to a symbol, may be.
  public static let limits = 0...Int(Int32.max)

  /// A dimension known in advance.
  public static func fixed(_ size: Int) -> Dimension { Dimension(symbol: nil, offset: size) }
  /// A dimension known when inputs arrive.
  public static func symbol(_ name: String, plus offset: Int = 0) -> Dimension {
    Dimension(symbol: name, offset: offset)
  }

  /// The size, nil where it depends on the inputs.
  public var size: Int? { symbol == nil ? offset : nil }

  /// The size once the symbols are known; nil for an unknown symbol.
  public func resolved(_ symbols: [String: Int]) -> Int? {
    guard let symbol else { return offset }
    return symbols[symbol].map { $0 + offset }
  }
}

extension Dimension: CustomStringConvertible, ExpressibleByIntegerLiteral {
  /// `197`, `batch`, `text_tokens+197`.
  public var description: String {
    guard let symbol else { return String(offset) }
    return offset == 0 ? symbol : "\(symbol)+\(offset)"
  }
  /// A dimension known in advance.
  public init(integerLiteral value: Int) { self = .fixed(value) }
}

/// The dtype and dimensions of a value.
public struct ValueType: Hashable, Sendable, CustomStringConvertible {
  /// f32 for activations, i64 for token ids, u8 for masks.
  public var dtype: DType
  /// The dimensions, outermost first.
  public var dimensions: [Dimension]

  /// Makes a type.
  public init(_ dtype: DType, _ dimensions: [Dimension]) {
    self.dtype = dtype
    self.dimensions = dimensions
  }

  /// `f32[batch, 197, 768]`.
  public var description: String {
    "\(dtype.shortName)[\(dimensions.map(\.description).joined(separator: ", "))]"
  }
}

/// An edge of the graph: made by one node, or an input.
public struct Value: Hashable, Sendable {
  /// A name such as `layers.3.vision.query`. A pass that changes what a value means gives it another name, so equal names in two
  /// graphs of one model mean equal values.
  public var name: String
  /// Dtype and dimensions.
  public var type: ValueType

  /// Makes a value.
  public init(name: String, type: ValueType) {
    self.name = name
    self.type = type
  }
}

/// A weight: its name, its part in the model, and where its elements come from.
public struct Constant: Sendable {
  /// A name such as `layers.3.vision.query.weight`, unique in the graph.
  public var name: String
  /// What it is for.
  public var role: Role
  /// Which tokens it serves.
  public var modality: Modality
  /// Its elements.
  public var data: TensorExpression

  /// Makes a constant.
  public init(name: String, role: Role, modality: Modality, data: TensorExpression) {
    self.name = name
    self.role = role
    self.modality = modality
    self.data = data
  }
}

/// One operation.
public struct Node: Hashable, Sendable {
  /// What is computed.
  public var op: Op
  /// The values read.
  public var inputs: [ValueID]
  /// The values made.
  public var outputs: [ValueID]
  /// What the node is for, where that matters to passes: linear layers and norms.
  public var role: Role?
  /// Which tokens it serves.
  public var modality: Modality

  /// Makes a node.
  public init(op: Op, inputs: [ValueID], outputs: [ValueID], role: Role?, modality: Modality) {
    self.op = op
    self.inputs = inputs
    self.outputs = outputs
    self.role = role
    self.modality = modality
  }
}

/// A result under the name that the command line uses.
public struct GraphOutput: Hashable, Sendable {
  /// `logits`, `features`, …
  public var name: String
  /// The value.
  public var value: ValueID

  /// Names a value as an output.
  public init(name: String, value: ValueID) {
    self.name = name
    self.value = value
  }
}

/// A model as data: the one description that passes, reference, runtime and exporters read.
///
/// Nodes stand in an order in which every value is made before it is read. Vision tokens and text tokens are separate values that
/// meet only in `attention`.
public struct Graph: Sendable {
  /// All values; a node refers to them by place.
  public var values: [Value] = []
  /// All weights.
  public var constants: [Constant] = []
  /// The operations in execution order.
  public var nodes: [Node] = []
  /// The inputs.
  public var inputs: [ValueID] = []
  /// The outputs.
  public var outputs: [GraphOutput] = []

  /// Makes an empty graph.
  public init() {}

  /// The value named by `id`.
  public subscript(id: ValueID) -> Value {
    get { values[id.index] }
    set { values[id.index] = newValue }
  }

  /// The constant named by `id`.
  public subscript(id: ConstantID) -> Constant {
    get { constants[id.index] }
    set { constants[id.index] = newValue }
  }

  /// The number of weights' elements, panels counted with their logical size.
  public var parameterCount: Int {
    var count = 0
    // Layers may share their panels.
    var counted: Set<ConstantID> = []
    for node in nodes {
      guard case .quantizedLinear(let linear) = node.op, counted.insert(linear.panels).inserted else { continue }
      count += linear.inputs * linear.outputs
    }
    for constant in constants {
      switch constant.data.dtype {
      case .i8, .i16, .i32: continue
      default: if !isScale(constant) { count += constant.data.shape.elementCount }
      }
    }
    return count
  }

  private func isScale(_ constant: Constant) -> Bool {
    nodes.contains { node in
      if case .quantizedLinear(let linear) = node.op { return self[linear.scales].name == constant.name }
      return false
    }
  }

  /// The number of bytes of all constants as they will be stored.
  public var constantByteCount: Int {
    constants.reduce(0) { $0 + ($1.data.shape.byteCount(of: $1.data.dtype) ?? 0) }
  }

  /// The value with a name, nil if there is none.
  public func value(named name: String) -> ValueID? {
    values.firstIndex { $0.name == name }.map(ValueID.init)
  }

  /// For every value the nodes that read it, by their place in `nodes`.
  public func consumers() -> [[Int]] {
    var consumers = [[Int]](repeating: [], count: values.count)
    for (position, node) in nodes.enumerated() {
      for input in node.inputs { consumers[input.index].append(position) }
    }
    return consumers
  }

  /// For every value the node that makes it, nil for inputs.
  public func producers() -> [Int?] {
    var producers = [Int?](repeating: nil, count: values.count)
    for (position, node) in nodes.enumerated() {
      for output in node.outputs { producers[output.index] = position }
    }
    return producers
  }
}
