import MultiwayCore

/// What of an ONNX model the reader looks at: the weights, and the nodes as far as they tell what a weight is.
struct ONNXFile {
  /// The standard's version of the operators; nil where only others are imported.
  var opset: Int?
  var producer = ""
  var properties: [(key: String, value: String)] = []
  var initializers: [ONNXInitializer] = []
  var nodes: [ONNXFileNode] = []
  /// What torch's exporter says about values: from which parameters they were folded, and which are parameters.
  var remarks: [String: ONNXRemark] = [:]
  /// The digest of the nodes' bytes.
  var nodesDigest = ""
  /// What was left out.
  var notes: [String] = []
}

/// A tensor of the model as its message describes it.
struct ONNXInitializer {
  var name = ""
  /// The number of the element type.
  var elementType = 0
  var dimensions: [Int] = []
  /// Where the elements are in the file, as raw bytes.
  var raw: Range<Int>?
  /// Runs of packed numbers in one of the fields that have a type: the field's number and their places.
  var typed: [(field: Int, range: Range<Int>)] = []
  /// The keys and values that tell where the elements are in another file.
  var external: [(key: String, value: String)] = []
  var isExternal = false
  /// Where the message starts.
  var offset = 0
}

/// A node.
struct ONNXFileNode {
  var type = ""
  var name = ""
  var domain = ""
  var inputs: [String] = []
  var outputs: [String] = []
  /// The attributes `axis` and `transB`.
  var axis: Int?
  var isTransposed = false
  /// Torch's names of the modules around the node, outermost first; empty where it does not tell.
  var scopes: [String] = []
}

/// What torch's exporter says about a value.
struct ONNXRemark {
  /// The names of what a constant was computed from.
  var foldedFrom: [String] = []
  /// True for a parameter or a buffer of the module.
  var isParameter = false
}

/// Walks the messages of an ONNX model.
struct ONNXFileParser: ~Copyable {
  private let input: ProtobufInput
  private var model = ONNXFile()
  private var hasGraph = false
  private var edges = 0
  private var digest = TensorDigest()

  /// The most nodes, tensors, described values and metadata entries each.
  private static let maximumCount = 200_000
  /// The most inputs and outputs of all nodes.
  private static let maximumEdges = 2_000_000
  /// The most dimensions of a tensor.
  private static let maximumRank = 64
  private static let maximumKeys = 64

  static func parse(_ file: any ByteSource) throws(CheckpointError) -> ONNXFile {
    var parser = ONNXFileParser(input: try ProtobufInput(file))
    try parser.parseModel(0..<file.byteCount)
    return parser.model
  }

  private init(input: ProtobufInput) { self.input = input }

  private func limit(_ count: Int, _ what: String, _ field: ProtobufField) throws(CheckpointError) {
    guard count < ONNXFileParser.maximumCount else {
      throw input.error(.overBudget, "more than \(ONNXFileParser.maximumCount) \(what)", at: field.offset)
    }
  }

  private mutating func parseModel(_ range: Range<Int>) throws(CheckpointError) {
    var message = ProtobufMessage(input, range, name: "the model")
    while let field = try message.next() {
      switch field.number {
      case 2: model.producer = try message.text(field)
      case 7:
        guard !hasGraph else { throw input.error(.malformed, "a second graph", expected: "one", at: field.offset) }
        hasGraph = true
        try parseGraph(try message.message(field, name: "the graph"))
      case 8:
        let (domain, version) = try opset(try message.message(field, name: "an opset"))
        if ["", "ai.onnx"].contains(domain) { model.opset = version }
      case 14:
        try limit(model.properties.count, "metadata entries", field)
        model.properties.append(try entry(try message.message(field, name: "a metadata entry")))
      case 20: model.notes.append("training information was left out")
      case 25: model.notes.append("functions of the model's own were not looked into")
      default: continue
      }
    }
    guard hasGraph else {
      throw input.error(.malformed, "a model without a graph", expected: "an ONNX model", at: 0)
    }
    model.nodesDigest = digest.finish()
  }

  private func opset(_ message: ProtobufMessage) throws(CheckpointError) -> (domain: String, version: Int) {
    var message = message
    var opset = (domain: "", version: 0)
    while let field = try message.next() {
      if field.number == 1 { opset.domain = try message.text(field) }
      if field.number == 2 { opset.version = try message.integer(field) }
    }
    return opset
  }

  private func entry(_ message: ProtobufMessage) throws(CheckpointError) -> (key: String, value: String) {
    var message = message
    var entry = (key: "", value: "")
    while let field = try message.next() {
      if field.number == 1 { entry.key = try message.text(field) }
      if field.number == 2 { entry.value = try message.text(field) }
    }
    return entry
  }

  private mutating func parseGraph(_ message: ProtobufMessage) throws(CheckpointError) {
    var message = message
    while let field = try message.next() {
      switch field.number {
      case 1:
        try limit(model.nodes.count, "nodes", field)
        let range = try message.bytes(field)
        let bytes = try input.file.contents(in: range)
        digest.update(bytes.span)
        try parseNode(ProtobufMessage(input, range, name: "a node"), field)
      case 5:
        try limit(model.initializers.count, "tensors", field)
        try parseTensor(try message.message(field, name: "a tensor"), at: field.offset)
      case 13:
        try limit(model.remarks.count, "described values", field)
        try parseValue(try message.message(field, name: "a value"))
      case 15: model.notes.append("a sparse tensor was left out")
      default: continue
      }
    }
  }

  private mutating func parseNode(_ message: ProtobufMessage, _ place: ProtobufField) throws(CheckpointError) {
    var message = message
    var node = ONNXFileNode()
    while let field = try message.next() {
      switch field.number {
      case 1: node.inputs.append(try message.text(field))
      case 2: node.outputs.append(try message.text(field))
      case 3: node.name = try message.text(field)
      case 4: node.type = try message.text(field)
      case 5: try parseAttribute(try message.message(field, name: "an attribute"), &node)
      case 7: node.domain = try message.text(field)
      case 9: try parseScopes(try message.message(field, name: "a node's metadata"), &node)
      default: continue
      }
      guard edges + node.inputs.count + node.outputs.count <= ONNXFileParser.maximumEdges else {
        throw input.error(
          .overBudget, "nodes with more than \(ONNXFileParser.maximumEdges) inputs and outputs", at: place.offset)
      }
    }
    edges += node.inputs.count + node.outputs.count
    model.nodes.append(node)
  }

  /// Takes the numbers that tell how a weight is read; everything else of an attribute, subgraphs too, is not looked into.
  private func parseAttribute(_ message: ProtobufMessage, _ node: inout ONNXFileNode) throws(CheckpointError) {
    var message = message
    var (name, number) = ("", 0)
    while let field = try message.next() {
      if field.number == 1 { name = try message.text(field) }
      if field.number == 3 { number = try message.integer(field) }
    }
    if name == "axis" { node.axis = number }
    if name == "transB" { node.isTransposed = number != 0 }
  }

  private func parseScopes(_ message: ProtobufMessage, _ node: inout ONNXFileNode) throws(CheckpointError) {
    if let value = try value(of: ["pkg.torch.onnx.name_scopes"], message)?.value {
      node.scopes = ONNXFileParser.pythonStrings(value)
    }
  }

  /// The value of an entry if its key is one of those wanted; other values, which may be long, are not copied.
  private func value(
    of keys: Set<String>, _ message: ProtobufMessage
  ) throws(CheckpointError) -> (key: String, value: String)? {
    var message = message
    var key = ""
    var value: ProtobufField?
    while let field = try message.next() {
      if field.number == 1 { key = try message.text(field) }
      if field.number == 2 { value = field }
    }
    guard keys.contains(key), let value else { return nil }
    return (key, try message.text(value))
  }

  private static let foldedFrom = "pkg.onnxscript.optimizer.folded_from"
  private static let kind = "pkg.torch.export.graph_signature.InputSpec.kind"

  private mutating func parseValue(_ message: ProtobufMessage) throws(CheckpointError) {
    var message = message
    var name = ""
    var remark = ONNXRemark()
    while let field = try message.next() {
      if field.number == 1 { name = try message.text(field) }
      guard field.number == 4,
        let entry = try value(
          of: [ONNXFileParser.foldedFrom, ONNXFileParser.kind], try message.message(field, name: "a value's metadata"))
      else { continue }
      if entry.key == ONNXFileParser.kind { remark.isParameter = ["PARAMETER", "BUFFER"].contains(entry.value) }
      if entry.key == ONNXFileParser.foldedFrom { remark.foldedFrom = ONNXFileParser.pythonStrings(entry.value) }
    }
    if remark.isParameter || !remark.foldedFrom.isEmpty { model.remarks[name] = remark }
  }

  /// The strings of a Python list as it is printed: `['a', 'b.c']`.
  private static func pythonStrings(_ text: String) -> [String] {
    text.split(separator: "'", omittingEmptySubsequences: false).enumerated().filter { $0.offset % 2 == 1 }
      .prefix(1000).map { String($0.element) }
  }

  private mutating func parseTensor(_ message: ProtobufMessage, at offset: Int) throws(CheckpointError) {
    var message = message
    var tensor = ONNXInitializer()
    tensor.offset = offset
    while let field = try message.next() {
      switch field.number {
      case 1: try message.integers(field, to: &tensor.dimensions, limit: ONNXFileParser.maximumRank)
      case 2: tensor.elementType = try message.integer(field)
      case 3: throw input.error(.unsupported, "a tensor in segments", expected: "whole tensors", at: field.offset)
      case 4, 5, 7, 10, 11: try addTyped(field, of: message, to: &tensor)
      case 8: tensor.name = try message.text(field)
      case 9: tensor.raw = try message.bytes(field)
      case 13:
        guard tensor.external.count < ONNXFileParser.maximumKeys else {
          throw input.error(.overBudget, "a tensor with many external places", at: field.offset)
        }
        tensor.external.append(try entry(try message.message(field, name: "an external place")))
      case 14: tensor.isExternal = try message.integer(field) == 1
      default: continue
      }
    }
    model.initializers.append(tensor)
  }

  private func addTyped(
    _ field: ProtobufField, of message: ProtobufMessage, to tensor: inout ONNXInitializer
  ) throws(CheckpointError) {
    guard case .bytes(let range) = field.value else {
      throw input.error(
        .unsupported, "numbers of a tensor one by one", expected: "packed numbers, as every exporter writes them",
        at: field.offset)
    }
    guard tensor.typed.count < ONNXFileParser.maximumKeys else {
      throw input.error(.overBudget, "numbers of a tensor in many runs", at: field.offset)
    }
    tensor.typed.append((field.number, range))
  }
}
