public import MultiwayCore
public import MultiwayGraph
public import MultiwayQuantization

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
  /// Where the model comes from, which is written with the digests of all tensors; nil for nothing.
  public var provenance: Provenance?

  /// Makes metadata.
  public init(
    name: String, description: String, producerVersion: String, properties: [ONNXProperty] = [],
    provenance: Provenance? = nil
  ) {
    self.name = name
    self.description = description
    self.producerVersion = producerVersion
    self.properties = properties
    self.provenance = provenance
  }
}

/// How int8 layers are written.
public enum ONNXQuantization: Sendable {
  /// DynamicQuantizeLinear and MatMulInteger: the range of activations is found when the model runs.
  case dynamic
  /// QuantizeLinear and DequantizeLinear around a MatMul, with steps of the activations by the names of the graph's values. Layers must have
  /// one scale for each output.
  case `static`([String: ActivationRanges.Step])
}

/// What was written.
public struct ONNXOutput: Hashable, Sendable {
  /// The number of bytes of all files.
  public var byteCount: Int
  /// The path of the file of weights, nil where they are in the model.
  public var dataPath: String?
}

/// Computes the tensors of a model one by one, and the digests of what they hold and come from.
private struct ONNXTensorWriter: ~Copyable {
  private let weights: [Weight]
  private let provenance: Provenance?
  private var location: String
  private(set) var tensors: [ONNXTensor] = []
  private var sources: SourceDigests
  private var digests: [String] = []
  private var digest = TensorDigest()
  /// The digest of the names, places and digests of the tensors in the other file.
  private var content = TensorDigest()
  private var materializer = Materializer(discardsSources: true)

  init(_ weights: [Weight], _ provenance: Provenance?, location: String) {
    self.weights = weights
    self.provenance = provenance
    self.location = location
    sources = SourceDigests(of: provenance == nil ? [] : weights.flatMap(\.sources))
  }

  private mutating func readSources(_ weight: Weight) throws {
    guard provenance != nil else { return }
    for source in weight.sources { try sources.read(source) }
  }

  private mutating func append(_ weight: Weight, _ content: ONNXTensor.Content) {
    digests.append(digest.finish())
    tensors.append(
      ONNXTensor(name: weight.name, elementType: weight.type, dimensions: weight.dimensions, content: content))
  }

  /// Adds a tensor to the model itself.
  mutating func addInline(_ index: Int) throws {
    let weight = weights[index]
    try readSources(weight)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(weight.byteCount ?? 0)
    try weight.forEachPiece(&materializer) { piece in
      bytes.append(contentsOf: piece.array)
      digest.update(piece)
    }
    append(weight, .inline(bytes))
  }

  /// Adds a tensor to the other file.
  mutating func add(_ index: Int, to file: inout OutputFile) throws {
    let weight = weights[index]
    try readSources(weight)
    let offset = file.byteCount
    try weight.forEachPiece(&materializer) { piece in
      try file.write(piece)
      digest.update(piece)
    }
    append(weight, .external(location: location, offset: offset, byteCount: file.byteCount - offset))
    let line = TensorBytes(copying: Array("\(offset) \(file.byteCount) \(digests[digests.count - 1])\n".utf8))
    content.update(line.span)
  }

  /// Sixteen digits that tell the other file from all with other bytes.
  mutating func contentDigest() -> String { String(content.finish().prefix(16)) }

  /// Gives the other file its name.
  mutating func move(to location: String) {
    for index in tensors.indices {
      guard case .external(_, let offset, let byteCount) = tensors[index].content else { continue }
      tensors[index].content = .external(location: location, offset: offset, byteCount: byteCount)
    }
  }

  /// The origin and all digests; nil where none is wanted.
  var provenanceText: String? {
    provenance?.text(of: weights.map(\.name), digests: digests, sources: sources)
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
  /// What that file's name ends in, behind the model's name and the digest of what it holds.
  public static let dataSuffix = ".data"
  /// The metadata that holds the digest of the nodes' bytes.
  static let nodesKey = "multiway.nodes"

  /// Writes a graph. Both files appear whole or not at all, and the same graph gives the same bytes. Weights are computed a tensor at a time.
  ///
  /// The file of weights is named by what it holds, so a model that is there, an older one too, never finds others than its own.
  /// - Parameters:
  ///   - inputs: files that are being read; no output may be one of them.
  ///   - inlineLimit: the most bytes of weights that stay in the model.
  ///   - progress: called after each tensor with the number written and the number of all.
  @discardableResult
  public static func write(
    _ graph: Graph, metadata: ONNXMetadata, opset: ONNXOpset = .standard, quantization: ONNXQuantization = .dynamic,
    to path: String, overwrite: Bool, inputs: [FileIdentity] = [], inlineLimit: Int = ONNXWriter.inlineLimit,
    progress: ((_ done: Int, _ total: Int) -> Void)? = nil
  ) throws -> ONNXOutput {
    do { try graph.verify() } catch { throw ONNXError(.unexportable, error.diagnosis) }
    let lowering = try GraphLowering(graph, opset: opset, quantization: quantization)
    let isExternal = try size(of: lowering.weights) > inlineLimit
    var output = try OutputFile(path: path, overwrite: overwrite, inputs: inputs)
    guard isExternal else {
      var tensors = ONNXTensorWriter(lowering.weights, metadata.provenance, location: "")
      for index in lowering.weights.indices {
        try tensors.addInline(index)
        progress?(index + 1, lowering.weights.count)
      }
      try write(try model(lowering, metadata, tensors).encoded(), tensors, to: &output)
      let byteCount = output.byteCount
      try output.commit()
      return ONNXOutput(byteCount: byteCount)
    }
    let name = path.split(separator: "/").last.map(String.init) ?? path
    var data = try OutputFile(path: path + dataSuffix, overwrite: overwrite, inputs: inputs)
    var tensors = ONNXTensorWriter(lowering.weights, metadata.provenance, location: name)
    for (index, weight) in lowering.weights.enumerated() {
      if weight.byteCount ?? 0 < smallestExternal {
        try tensors.addInline(index)
      } else {
        try data.pad(toMultipleOf: alignment)
        try tensors.add(index, to: &data)
      }
      progress?(index + 1, lowering.weights.count)
    }
    let location = "\(name).\(tensors.contentDigest())\(dataSuffix)"
    try data.rename(to: location)
    tensors.move(to: location)
    try write(try model(lowering, metadata, tensors).encoded(), tensors, to: &output)
    let written = ONNXOutput(byteCount: output.byteCount + data.byteCount, dataPath: data.path)
    try OutputFile.commit(data, then: output)
    return written
  }

  /// Writes the model's bytes with their digest: of all of them, those of tensors too.
  private static func write(
    _ model: TensorBytes, _ tensors: borrowing ONNXTensorWriter, to output: inout OutputFile
  ) throws {
    try output.write(model.span)
    guard tensors.provenanceText != nil, let place = HeaderDigest.lastPlaceholder(in: model.span) else { return }
    var digest = HeaderDigest()
    digest.update(model.span)
    try output.rewrite(Array(digest.finish().utf8), at: place)
  }

  /// The model with what it says about itself.
  private static func model(
    _ lowering: GraphLowering, _ metadata: ONNXMetadata, _ tensors: borrowing ONNXTensorWriter
  ) -> ONNXModel {
    let graph = lowering.graph
    func info(_ id: ValueID, _ name: String) -> ONNXValueInfo {
      ONNXValueInfo(name: name, type: graph[id].type)
    }
    var result = ONNXGraph(name: metadata.name)
    result.nodes = lowering.nodes
    result.initializers = tensors.tensors
    result.inputs = graph.inputs.map { info($0, lowering.valueNames[$0.index]) }
    result.outputs = zip(graph.outputs, lowering.outputNames).map { info($0.value, $1) }
    let named = Set((result.inputs + result.outputs).map(\.name))
    result.values = graph.nodes.flatMap(\.outputs).map { info($0, lowering.valueNames[$0.index]) }
      .filter { !named.contains($0.name) }
    var model = ONNXModel(
      irVersion: lowering.opset.irVersion, opset: lowering.opset.version, producerName: "multiway",
      producerVersion: metadata.producerVersion, description: metadata.description, graph: result,
      properties: metadata.properties)
    model.properties.append(ONNXProperty(nodesKey, model.nodesDigest()))
    if let text = tensors.provenanceText { model.properties.append(ONNXProperty(Provenance.key, text)) }
    return model
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
