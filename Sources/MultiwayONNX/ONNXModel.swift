/// An ONNX model as values: what of a `ModelProto` we write and read. Formats/onnx/README.md says what it holds.
public struct ONNXModel: Hashable, Sendable {
  /// The version of the file format.
  public var irVersion: Int
  /// The version of the standard operators.
  public var opset: Int
  /// The program that wrote it.
  public var producerName: String
  /// The program's version.
  public var producerVersion: String
  /// A text for people.
  public var description: String
  /// The computation.
  public var graph: ONNXGraph
  /// Facts about the model, in order.
  public var properties: [ONNXProperty]

  /// Makes a model.
  public init(
    irVersion: Int, opset: Int, producerName: String, producerVersion: String, description: String, graph: ONNXGraph,
    properties: [ONNXProperty]
  ) {
    self.irVersion = irVersion
    self.opset = opset
    self.producerName = producerName
    self.producerVersion = producerVersion
    self.description = description
    self.graph = graph
    self.properties = properties
  }
}

/// A key and a value.
public struct ONNXProperty: Hashable, Sendable {
  /// The key.
  public var key: String
  /// The value.
  public var value: String

  /// Makes a property.
  public init(_ key: String, _ value: String) {
    self.key = key
    self.value = value
  }
}

/// A `GraphProto`. Values are named by strings; an empty name as an input stands for one that is left out.
public struct ONNXGraph: Hashable, Sendable {
  /// The graph's name.
  public var name: String
  /// The operations in execution order.
  public var nodes: [ONNXNode] = []
  /// The weights and other constants.
  public var initializers: [ONNXTensor] = []
  /// What comes in.
  public var inputs: [ONNXValueInfo] = []
  /// What goes out.
  public var outputs: [ONNXValueInfo] = []
  /// The types of values in between, as far as they are told.
  public var values: [ONNXValueInfo] = []

  /// Makes an empty graph.
  public init(name: String) { self.name = name }
}

/// A `NodeProto` of the standard domain.
public struct ONNXNode: Hashable, Sendable {
  /// The operator: `MatMul`.
  public var type: String
  /// A name, unique in the graph.
  public var name: String
  /// The values read.
  public var inputs: [String]
  /// The values made.
  public var outputs: [String]
  /// The attributes in order.
  public var attributes: [ONNXAttribute]

  /// Makes a node.
  public init(_ type: String, name: String, inputs: [String], outputs: [String], attributes: [ONNXAttribute] = []) {
    self.type = type
    self.name = name
    self.inputs = inputs
    self.outputs = outputs
    self.attributes = attributes
  }
}

/// An `AttributeProto`.
public struct ONNXAttribute: Hashable, Sendable {
  /// What an attribute holds.
  public enum Value: Hashable, Sendable {
    /// INT.
    case integer(Int)
    /// FLOAT.
    case real(Float)
    /// STRING.
    case text(String)
    /// INTS.
    case integers([Int])
    /// FLOATS.
    case reals([Float])
    /// A type of the standard that is not read, by its number.
    case other(type: Int)
  }

  /// The name.
  public var name: String
  /// The value.
  public var value: Value

  /// Makes an attribute.
  public init(_ name: String, _ value: Value) {
    self.name = name
    self.value = value
  }
}

/// The element types that we write, with the standard's numbers.
public enum ONNXElementType: Int, CaseIterable, Hashable, Sendable {
  /// fp32.
  case float = 1
  /// Unsigned 8-bit integers.
  case uint8 = 2
  /// Signed 8-bit integers.
  case int8 = 3
  /// Signed 32-bit integers.
  case int32 = 6
  /// Signed 64-bit integers.
  case int64 = 7
  /// Truth values.
  case bool = 9
  /// IEEE half precision.
  case float16 = 10
  /// The upper half of fp32.
  case bfloat16 = 16

  /// The size of an element in bytes.
  public var byteWidth: Int {
    switch self {
    case .uint8, .int8, .bool: 1
    case .float16, .bfloat16: 2
    case .float, .int32: 4
    case .int64: 8
    }
  }
}

/// A `TensorProto`.
public struct ONNXTensor: Hashable, Sendable {
  /// Where the elements are, little-endian and in C order.
  public enum Content: Hashable, Sendable {
    /// In the model itself.
    case inline([UInt8])
    /// In a file beside it.
    case external(location: String, offset: Int, byteCount: Int)
  }

  /// The name that nodes read it by.
  public var name: String
  /// The number of the element type; see `ONNXElementType`.
  public var elementType: Int
  /// The dimensions.
  public var dimensions: [Int]
  /// The elements.
  public var content: Content

  /// Makes a tensor.
  public init(name: String, elementType: ONNXElementType, dimensions: [Int], content: Content) {
    self.init(name: name, elementType: elementType.rawValue, dimensions: dimensions, content: content)
  }

  init(name: String, elementType: Int, dimensions: [Int], content: Content) {
    self.name = name
    self.elementType = elementType
    self.dimensions = dimensions
    self.content = content
  }
}

/// A `ValueInfoProto` of a tensor.
public struct ONNXValueInfo: Hashable, Sendable {
  /// A dimension.
  public enum Dimension: Hashable, Sendable {
    /// A number.
    case size(Int)
    /// A name; empty where nothing is known.
    case symbol(String)
  }

  /// The value's name.
  public var name: String
  /// The number of the element type; see `ONNXElementType`.
  public var elementType: Int
  /// The dimensions.
  public var dimensions: [Dimension]

  /// Makes a description.
  public init(name: String, elementType: Int, dimensions: [Dimension]) {
    self.name = name
    self.elementType = elementType
    self.dimensions = dimensions
  }
}
