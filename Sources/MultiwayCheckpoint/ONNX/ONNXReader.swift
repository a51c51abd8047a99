public import MultiwayCore

/// Reads the weights of ONNX models, ours and those that torch's exporters write (Formats/onnx/README.md).
public enum ONNXReader: CheckpointReader {
  /// `ONNX`.
  public static let formatName = "ONNX"
  /// What is read.
  public static let summary =
    "the weights of our models and of those that torch.onnx and optimum write; int8 ones as the numbers that they stand for"

  /// The metadata of our models that holds their graph as text, for as long as the nodes are those that were written with it.
  public static let graphKey = "multiway.graph"
  /// The metadata of our models that holds the digest of their nodes' bytes.
  static let nodesKey = "multiway.nodes"

  /// A ModelProto has no magic: its version comes first, and every field before the graph is one of a few.
  public static func recognizes(_ header: RawSpan) -> Bool {
    guard header.byteCount > 3, header.byte(at: 0) == 0x08, (1...127).contains(header.byte(at: 1)) else { return false }
    var place = 2
    while place < header.byteCount {
      switch header.byte(at: place) {
      // Numbers: the version of the model.
      case 0x28:
        guard let end = (place + 1..<header.byteCount).first(where: { header.byte(at: $0) & 0x80 == 0 }) else {
          return false
        }
        place = end + 1
      // Names, texts, the graph, operator sets, metadata.
      case 0x12, 0x1A, 0x22, 0x32, 0x3A, 0x42, 0x72:
        let isGraph = header.byte(at: place) == 0x3A
        var (length, shift) = (0, 0)
        place += 1
        while place < header.byteCount {
          let byte = header.byte(at: place)
          place += 1
          // No file is as long as more bits would say; the reader tells what is wrong.
          guard shift < 56 else { return true }
          length |= Int(byte & 0x7F) << shift
          shift += 7
          if byte & 0x80 == 0 { break }
        }
        // The graph's first field is its nodes, name, tensors, text, inputs, outputs or values.
        if isGraph, length > 0, place < header.byteCount {
          return [0x0A, 0x12, 0x2A, 0x52, 0x5A, 0x62, 0x6A].contains(header.byte(at: place))
        }
        guard length <= header.byteCount - place else { return true }
        place += length
      default: return false
      }
    }
    return true
  }

  /// Walks the model and describes its weights. Their elements are not touched.
  public static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    let model = try ONNXFileParser.parse(file)
    var reader = ONNXTensors(file)
    var stored: [StoredTensor] = []
    var names: Set<String> = []
    for initializer in model.initializers {
      guard names.insert(initializer.name).inserted else {
        throw CheckpointError(
          .duplicateName, "two tensors of this name", file: file.path, tensor: initializer.name,
          byteOffset: initializer.offset)
      }
      if let tensor = try reader.stored(initializer) { stored.append(tensor) }
    }
    let weights = try ONNXWeights(model, stored)
    guard !weights.tensors.isEmpty else {
      throw CheckpointError(.noTensors, "an ONNX model without weights", expected: "parameters", file: file.path)
    }
    return checkpoint(model, stored, reader, weights, file)
  }

  private static func checkpoint(
    _ model: ONNXFile, _ stored: [StoredTensor], _ reader: ONNXTensors, _ weights: ONNXWeights, _ file: any ByteSource
  ) -> Checkpoint {
    var notes = model.notes + weights.notes
    let recorded = model.properties.first { $0.key == nodesKey }?.value
    let isChanged = recorded != nil && recorded != model.nodesDigest
    if isChanged {
      notes.append("another program has changed the nodes: the graph that multiway recorded is not used")
    }
    var metadata = JSONObject()
    for (key, value) in model.properties where metadata[key] == nil && !(isChanged && key == graphKey) {
      metadata[key] = .string(value)
    }
    if !reader.unsupported.isEmpty {
      notes.append("left out for their element type: \(listed(reader.unsupported))")
    }
    let files = [InputFile(file)] + reader.dataFiles
    var checkpoint = Checkpoint(
      container: formatName, packing: file.packing, shardCount: nil, path: file.path,
      byteCount: files.reduce(0) { $0 &+ $1.byteCount }, files: files,
      stateDicts: [StateDict(name: "", tensors: weights.tensors)], metadata: metadata, opaqueRecords: [], notes: notes)
    checkpoint.filedTensors = stored
    return checkpoint
  }
}
