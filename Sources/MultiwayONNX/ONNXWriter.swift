public import MultiwayCore
public import MultiwayGraph
import MultiwayQuantization

/// What an ONNX model says about itself beside its graph.
public struct ONNXMetadata: Hashable, Sendable {
  /// The graph's name.
  public var name: String
  /// A text for people.
  public var description: String
  /// The version of multiway.
  public var producerVersion: String
  /// Facts about the model, in the order in which they are written.
  public var properties: [ONNXProperty]

  /// Makes metadata.
  public init(name: String, description: String, producerVersion: String, properties: [ONNXProperty] = []) {
    self.name = name
    self.description = description
    self.producerVersion = producerVersion
    self.properties = properties
  }
}

/// Writes graphs as ONNX models (Formats/onnx/README.md).
public enum ONNXWriter {
  /// Weights of more bytes than this in all go to a file beside the model.
  public static let inlineLimit = 64 << 20
  /// Where the weights go to a file beside the model, smaller tensors stay in it, as consumers want shapes and axes there.
  static let smallestExternal = 1024
  /// Every tensor of that file starts at a multiple, so that it can be mapped page by page.
  static let alignment = 4096
  /// What that file's name adds to the model's.
  public static let dataSuffix = ".data"

  /// Writes a graph. Both files appear whole or not at all, and the same graph gives the same bytes. Weights are computed a tensor at a time.
  /// - Parameters:
  ///   - inputs: files that are being read; no output may be one of them.
  ///   - inlineLimit: the most bytes of weights that stay in the model.
  ///   - progress: called after each tensor with the number written and the number of all.
  /// - Returns: the number of bytes of all files written.
  @discardableResult
  public static func write(
    _ graph: Graph, metadata: ONNXMetadata, opset: ONNXOpset = .standard, to path: String, overwrite: Bool,
    inputs: [FileIdentity] = [], inlineLimit: Int = ONNXWriter.inlineLimit,
    progress: ((_ done: Int, _ total: Int) -> Void)? = nil
  ) throws -> Int {
    do { try graph.verify() } catch { throw ONNXError(.unexportable, error.diagnosis) }
    let lowering = try GraphLowering(graph, opset: opset)
    var model = model(lowering, metadata)
    let isExternal = try size(of: lowering.weights) > inlineLimit
    var output = try OutputFile(path: path, overwrite: overwrite, inputs: inputs)
    guard isExternal else {
      model.graph.initializers = try inlined(lowering.weights, progress)
      let bytes = try model.encoded()
      try output.write(bytes.span)
      let byteCount = output.byteCount
      try output.commit()
      return byteCount
    }
    var data = try OutputFile(path: path + dataSuffix, overwrite: overwrite, inputs: inputs)
    model.graph.initializers = try stored(lowering.weights, in: &data, progress)
    let bytes = try model.encoded()
    try output.write(bytes.span)
    let byteCount = output.byteCount + data.byteCount
    // The weights first: a model that is there has them.
    try data.commit()
    try output.commit()
    return byteCount
  }

  /// The model without its tensors.
  private static func model(_ lowering: GraphLowering, _ metadata: ONNXMetadata) -> ONNXModel {
    let graph = lowering.graph
    func info(_ id: ValueID, _ name: String) -> ONNXValueInfo {
      ONNXValueInfo(name: name, type: graph[id].type)
    }
    var result = ONNXGraph(name: metadata.name)
    result.nodes = lowering.nodes
    result.inputs = graph.inputs.map { info($0, lowering.valueNames[$0.index]) }
    result.outputs = graph.outputs.map { info($0.value, $0.name) }
    let named = Set((result.inputs + result.outputs).map(\.name))
    result.values = graph.nodes.flatMap(\.outputs).map { info($0, lowering.valueNames[$0.index]) }
      .filter { !named.contains($0.name) }
    return ONNXModel(
      irVersion: lowering.opset.irVersion, opset: lowering.opset.version, producerName: "multiway",
      producerVersion: metadata.producerVersion, description: metadata.description, graph: result,
      properties: metadata.properties)
  }

  private static func size(of weights: [Weight]) throws(ONNXError) -> Int {
    var total = 0
    for weight in weights {
      let (sum, overflow) = total.addingReportingOverflow(weight.byteCount ?? .max)
      guard !overflow else {
        throw ONNXError(
          .unexportable, "a tensor of the shape \(weight.dimensions)", expected: "a possible size", tensor: weight.name)
      }
      total = sum
    }
    return total
  }

  private static func inlined(
    _ weights: [Weight], _ progress: ((_ done: Int, _ total: Int) -> Void)?
  ) throws -> [ONNXTensor] {
    var materializer = Materializer(discardsSources: true)
    var tensors: [ONNXTensor] = []
    for weight in weights {
      tensors.append(try inlined(weight, &materializer))
      progress?(tensors.count, weights.count)
    }
    return tensors
  }

  private static func inlined(_ weight: Weight, _ materializer: inout Materializer) throws -> ONNXTensor {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(weight.byteCount ?? 0)
    try weight.forEachPiece(&materializer) { piece in bytes.append(contentsOf: piece.array) }
    return ONNXTensor(
      name: weight.name, elementType: weight.type, dimensions: weight.dimensions, content: .inline(bytes))
  }

  private static func stored(
    _ weights: [Weight], in file: inout OutputFile, _ progress: ((_ done: Int, _ total: Int) -> Void)?
  ) throws -> [ONNXTensor] {
    var materializer = Materializer(discardsSources: true)
    var tensors: [ONNXTensor] = []
    let location = file.path.split(separator: "/").last.map(String.init) ?? file.path
    for weight in weights {
      if weight.byteCount ?? 0 < smallestExternal {
        tensors.append(try inlined(weight, &materializer))
      } else {
        try file.pad(toMultipleOf: alignment)
        let offset = file.byteCount
        try weight.forEachPiece(&materializer) { piece in try file.write(piece) }
        tensors.append(
          ONNXTensor(
            name: weight.name, elementType: weight.type, dimensions: weight.dimensions,
            content: .external(location: location, offset: offset, byteCount: file.byteCount - offset)))
      }
      progress?(tensors.count, weights.count)
    }
    return tensors
  }
}

extension ONNXValueInfo {
  /// A value of a graph: activations fp32, token ids int64, masks uint8.
  fileprivate init(name: String, type: ValueType) {
    let element: ONNXElementType =
      switch type.dtype {
      case .i64: .int64
      case .u8: .uint8
      default: .float
      }
    self.init(
      name: name, elementType: element.rawValue,
      dimensions: type.dimensions.map { $0.size.map { .size($0) } ?? .symbol($0.description) })
  }
}
