import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayDelivery
import MultiwayGGUF
import MultiwayGraph
import MultiwayModels
import MultiwayONNX

extension FuzzedReader {
  /// Throws errors of the project and `JSONError`.
  func readAll(_ bytes: TensorBytes) throws {
    let file = MemorySource(bytes, path: "fuzzed")
    switch self {
    case .json: try readJSON(bytes)
    case .safetensors: try load(try SafetensorsReader.read(file))
    case .pytorch: try load(try PyTorchZipReader.read(file))
    case .pytorchPickle: try load(try PyTorchZipReader.read(TorchArchive.source(pickle: bytes)))
    case .pytorchLegacy: try load(try LegacyReader.read(file))
    case .pytorchTar: try load(try TarReader.read(file))
    case .pickle: try load(try BarePickleReader.read(file))
    case .shardIndex:
      try load(try CheckpointFormats.read(MemorySource(bytes, path: FuzzedFixtures.shards + "/fuzzed.json")))
    case .configuration: try readConfiguration(bytes.array(of: UInt8.self))
    case .model: _ = try readModel(bytes.array(of: UInt8.self))
    case .gguf:
      let container = try GGUFContainer.read(file)
      for tensor in container.tensors where tensor.byteCount <= FuzzedReader.largestTensor {
        _ = try container.bytes(of: tensor)
      }
      try load(try GGUFCheckpointReader.read(file))
    case .artifact: try check(try Artifact.read(file).graph)
    case .graph: try readGraph(bytes.array(of: UInt8.self))
    case .npy: try load(try NPYReader.read(file))
    case .npz: try load(try NPZReader.read(file))
    case .zstd, .anyFile: try load(try CheckpointFormats.read(file))
    case .onnx:
      try load(try ONNXReader.read(MemorySource(bytes, path: FuzzedFixtures.external + "/fuzzed.onnx")))
    case .onnxModel: try readModel(onnx: bytes)
    case .unpack:
      try FuzzedFixtures.deliver(bytes) { _ = try Delivery.unpack($0, to: $1, overwrite: true) }
    case .delta:
      try FuzzedFixtures.deliver(bytes) {
        _ = try Delivery.apply($0, to: FuzzedFixtures.base, output: $1, overwrite: true)
      }
    case .recipe:
      let recipe = try Recipe(json: try JSONParser.parse(bytes.array(of: UInt8.self)), file: "fuzzed")
      let again = try Recipe(json: .object(recipe.json), file: "fuzzed")
      precondition(again.json == recipe.json, "a recipe that does not survive being written")
    }
  }

  /// Larger tensors are not read: it would only take time.
  static let largestTensor = 64 << 10
  /// Nor are more of them than have these many bytes together.
  private static let mostBytes = 1 << 20

  /// Reads the tensors of a checkpoint, as they are and as numbers.
  private func load(_ checkpoint: Checkpoint) throws {
    _ = JSONValue.object(checkpoint.metadata).text()
    var total = 0
    var refusal: (any Error)?
    for dict in checkpoint.stateDicts {
      for tensor in dict.tensors where tensor.byteCount <= FuzzedReader.largestTensor {
        total += tensor.byteCount
        guard total <= FuzzedReader.mostBytes else { return }
        do throws(TensorError) {
          let bytes = try tensor.contiguousBytes()
          precondition(bytes.byteCount == tensor.byteCount, "\(tensor.name) has another size than its shape says")
          if tensor.dtype.isDecodable {
            let numbers = try tensor.floats()
            precondition(numbers.count == tensor.shape.elementCount, "\(tensor.name) has another number of elements")
          }
          tensor.discard()
        } catch {
          refusal = refusal ?? error
        }
      }
    }
    if let refusal { throw refusal }
  }

  /// What is read is written and read again: it must be the same.
  private func readJSON(_ bytes: TensorBytes) throws {
    let value = try JSONParser.parse(bytes.array(of: UInt8.self))
    for indented in [false, true] {
      let again = try JSONParser.parse(Array(value.text(indented: indented).utf8))
      precondition(again == value, "a JSON value that does not survive being written")
    }
  }

  private func readGraph(_ text: [UInt8]) throws {
    let data = FuzzedFixtures.constants(namedIn: text)
    try check(try GraphJSON.decode(String(decoding: text, as: UTF8.self), data: data))
  }

  /// A graph that was read is right, can be printed, and survives being written.
  private func check(_ graph: Graph) throws {
    _ = "\(graph)"
    let data = Dictionary(graph.constants.map { ($0.name, $0.data) }, uniquingKeysWith: { first, _ in first })
    let text = GraphJSON.encode(graph)
    let again = try GraphJSON.decode(text, data: data)
    precondition(GraphJSON.encode(again) == text, "a graph that does not survive being written")
  }

  /// Finds the model in a safetensors file of which only the header is there; the weights are zeros. That verifies its graph.
  private func readModel(_ header: [UInt8]) throws -> (model: Model, checkpoint: Checkpoint) {
    let checkpoint = try CheckpointFormats.read(PaddedHeader.source(header))
    return (try Architectures.load(try checkpoint.stateDict(), of: checkpoint), checkpoint)
  }

  /// Reads the JSON files beside the weights of a model, both with the same text, and writes those of the model that was found.
  private func readConfiguration(_ text: [UInt8]) throws {
    guard let object = try JSONParser.parse(text).object else { throw TensorError(.unsupported, "no object") }
    // Where a conversion keeps them, from which they are read again.
    let value = JSONValue.string(JSONValue.object(object).text())
    let metadata = JSONValue.object(["config": value, "preprocessor_config": value]).text()
    let header = Array("{\"__metadata__\":\(metadata),".utf8) + FuzzedFixtures.header.dropFirst()
    let (model, checkpoint) = try readModel(header)
    let written = model.configuration(layout: model.layout, dtype: .f32, original: checkpoint.metadata)
    _ = JSONValue.object(written.model).text() + JSONValue.object(written.preprocessor ?? [:]).text()
  }

  /// A model that was read can be written, and is the same when it is read again.
  private func readModel(onnx bytes: TensorBytes) throws {
    let model = try ONNXModel(decoding: bytes.span, file: "fuzzed")
    let encoded = try model.encoded()
    let again = try ONNXModel(decoding: encoded.span, file: "fuzzed").encoded()
    precondition(again.array(of: UInt8.self) == encoded.array(of: UInt8.self), "an ONNX model that changes")
  }
}
