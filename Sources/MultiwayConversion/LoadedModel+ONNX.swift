import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayCore
import MultiwayGGUF
import MultiwayGraph
import MultiwayModels
import MultiwayONNX
import MultiwayQuantization

/// The metadata by which our ONNX models become models again: beside what everybody reads, what only we do.
private enum ONNXKey {
  static let architecture = "architecture"
  static let name = "name"
  static let license = "license"
  static let preprocessing = "preprocessing"
  static let labels = "labels"
  static let graph = ONNXReader.graphKey
  static let recipe = "multiway.recipe"
  static let hyperparameters = "multiway.hyperparameters"
}

extension LoadedModel {
  /// What an ONNX model of a graph says about itself: the same as an artifact, as text.
  func onnxMetadata(of graph: Graph, _ form: ONNXForm) throws -> ONNXMetadata {
    let metadata = self.metadata(of: graph, recipe: form.recipe)
    var properties = [
      ONNXProperty(ONNXKey.architecture, metadata.architecture), ONNXProperty(ONNXKey.name, metadata.name),
    ]
    if let license = metadata.license { properties.append(ONNXProperty(ONNXKey.license, license)) }
    for parameter in metadata.hyperparameters {
      properties.append(ONNXProperty(parameter.key, LoadedModel.text(parameter.value)))
    }
    if let preprocessing = metadata.preprocessing {
      properties.append(ONNXProperty(ONNXKey.preprocessing, JSONValue.object(preprocessing).text()))
    }
    if !metadata.labels.isEmpty {
      properties.append(
        ONNXProperty(ONNXKey.labels, JSONValue.array(metadata.labels.map { .string($0) }).text()))
    }
    properties += LoadedModel.ownProperties(metadata, graph)
    return ONNXMetadata(
      name: [metadata.architecture, task].filter { !$0.isEmpty }.joined(separator: "_"), description: metadata.name,
      producerVersion: metadata.toolVersion, properties: properties,
      provenance: file.provenance(verb: "convert", form.recorded))
  }

  /// The sizes with their types, the recipe, and the graph with its int8 layers in floating point, as the weights are read again.
  private static func ownProperties(_ metadata: ArtifactMetadata, _ graph: Graph) -> [ONNXProperty] {
    var sizes = JSONObject()
    for parameter in metadata.hyperparameters {
      sizes[parameter.key] =
        parameter.value.string.map { .string($0) } ?? parameter.value.integer.map { .integer($0) }
        ?? parameter.value.number.map { .real($0) } ?? .array((parameter.value.numbers ?? []).map { .real($0) })
    }
    var properties = [
      ONNXProperty(ONNXKey.hyperparameters, JSONValue.object(sizes).text()),
      ONNXProperty(ONNXKey.recipe, JSONValue.object(metadata.recipe).text()),
    ]
    let plain = graph.dequantized()
    let text = GraphJSON.encode(plain)
    // What could not be read again is not written: names may be too long for it.
    let data = Dictionary(plain.constants.map { ($0.name, $0.data) }) { first, _ in first }
    if (try? GraphJSON.decode(text, data: data)) != nil { properties.append(ONNXProperty(ONNXKey.graph, text)) }
    return properties
  }
}

extension ModelFile {
  /// An ONNX model of ours as a model with its own graph; any other file as it is.
  static func recognizing(_ checkpoint: Checkpoint) -> ModelFile {
    guard let text = checkpoint.metadata[ONNXKey.graph]?.string, checkpoint.container == ONNXReader.formatName,
      let model = checkpoint.files.first
    else {
      return .checkpoint(checkpoint)
    }
    do {
      let graph = try GraphJSON.decode(text, data: try checkpoint.constants(of: text))
      return .artifact(
        Artifact(
          graph: graph, metadata: checkpoint.artifactMetadata, file: model,
          dataFiles: Array(checkpoint.files.dropFirst()), packing: checkpoint.packing,
          format: "multiway model (ONNX)"))
    } catch {
      var plain = checkpoint
      plain.add(note: "the graph that multiway recorded does not fit the weights and is not used: \(error)")
      return .checkpoint(plain)
    }
  }
}

extension Checkpoint {
  /// The weights as the constants that a recorded graph names.
  fileprivate func constants(of graph: String) throws -> [String: TensorExpression] {
    let tensors = try stateDict().tensors
    let places = Dictionary(tensors.enumerated().map { ($1.name, $0) }) { first, _ in first }
    var constants: [String: TensorExpression] = [:]
    for constant in try JSONParser.parse(Array(graph.utf8))["constants"]?.array ?? [] {
      guard let name = constant["name"]?.string, let place = places[name] ?? places[name + ".weight"] else { continue }
      let tensor = tensors[place]
      if tensor.shape.rank == 4 {
        // Kernels of a convolution, which are a matrix in the graph.
        let dimensions = tensor.shape.dimensions
        constants[name] = .reshaped(.stored(tensor), [dimensions[0], dimensions[1] * dimensions[2] * dimensions[3]])
      } else {
        constants[name] = .stored(tensor.dtype == .i32 ? tensor.narrowed() : tensor)
      }
    }
    return constants
  }

  /// What the metadata says in the words of an artifact.
  fileprivate var artifactMetadata: ArtifactMetadata {
    func text(_ key: String) -> String? { metadata[key]?.string }
    func json(_ key: String) -> JSONValue? { text(key).flatMap { try? JSONParser.parse(Array($0.utf8)) } }
    let sizes = (json(ONNXKey.hyperparameters)?.object?.members ?? []).compactMap { key, value -> Hyperparameter? in
      if let integer = value.integer { return Hyperparameter(key, .u32(UInt32(clamping: integer))) }
      if let number = value.number { return Hyperparameter(key, .f32(Float(number))) }
      if let numbers = value.array { return Hyperparameter(key, .array(.f32(numbers.map { Float($0.number ?? 0) }))) }
      return value.string.map { Hyperparameter(key, .string($0)) }
    }
    return ArtifactMetadata(
      architecture: text(ONNXKey.architecture) ?? "", name: text(ONNXKey.name) ?? "", license: text(ONNXKey.license),
      hyperparameters: sizes, preprocessing: json(ONNXKey.preprocessing)?.object,
      labels: (json(ONNXKey.labels)?.array ?? []).compactMap(\.string),
      recipe: json(ONNXKey.recipe)?.object ?? [:], sources: recordedFiles,
      toolVersion: provenanceTool ?? MultiwayVersion.current)
  }

  /// The version that wrote the file, as its provenance names it.
  private var provenanceTool: String? {
    let tool = metadata[Provenance.key]?.string.flatMap { try? JSONParser.parse(Array($0.utf8)) }?["tool"]?.string
    return tool.flatMap { $0.split(separator: " ").last.map(String.init) }
  }
}

extension StoredTensor {
  /// An index in int32, as ONNX wants it, in the 16 bits that a graph's has.
  fileprivate func narrowed() -> StoredTensor {
    StoredTensor(name: name, dtype: .i16, shape: shape, storage: NarrowedIndex(self))
  }
}

/// Whole numbers of 32 bits in 16, checked when they are read.
private final class NarrowedIndex: TensorStorage {
  private let wide: StoredTensor

  init(_ wide: StoredTensor) { self.wide = wide }

  var byteCount: Int { wide.byteCount / 2 }

  func load() throws(TensorError) -> TensorBytes {
    let numbers = try wide.contiguousBytes().array(of: Int32.self)
    var narrow: [Int16] = []
    narrow.reserveCapacity(numbers.count)
    for number in numbers {
      guard let row = Int16(exactly: number) else {
        throw TensorError(.corrupt, "the row \(number) in an index", expected: "0 to \(Int16.max)", tensor: wide.name)
      }
      narrow.append(row)
    }
    return TensorBytes(copying: narrow)
  }

  var origins: [StoredTensor]? { wide.sources }

  func discard() { wide.discard() }
}
