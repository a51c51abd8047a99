import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayGraph

/// Inputs and outputs of models as safetensors files.
enum TensorFiles {
  /// The inputs in a file, and what else it holds.
  struct Inputs {
    var tensors: [String: TensorValue]
    var labels: [Int]?
    var identities: [FileIdentity]
  }

  /// Reads the inputs of a model. Labels and stored outputs may lie beside them; any other tensor is left to the model to refuse.
  static func readInputs(_ path: String, for graph: Graph) throws -> Inputs {
    let checkpoint = try CheckpointFormats.open(path: path)
    let outputs = Set(
      ["logits", "features", "image_embedding", "text_embedding", "tokens", "scores"] + graph.outputs.map(\.name))
    let wanted = Set(graph.inputs.map { graph[$0].name })
    var tensors: [String: TensorValue] = [:]
    var labels: [Int]?
    for tensor in try checkpoint.stateDict().tensors {
      if tensor.name == "labels" && !wanted.contains("labels") {
        labels = try tensor.integers()
      } else if wanted.contains(tensor.name) || !outputs.contains(tensor.name) {
        tensors[tensor.name] = try TensorValue(tensor)
      }
    }
    return Inputs(tensors: tensors, labels: labels, identities: checkpoint.identities)
  }

  /// Runs `body`; an error about inputs names the file that they came from, nil for inputs that were made.
  static func naming<Result>(_ path: String?, _ body: () throws -> Result) throws -> Result {
    do {
      return try body()
    } catch var error as GraphError where error.code == .invalidInputs {
      error.diagnosis.file = error.diagnosis.file ?? path
      throw error
    }
  }

  /// Writes outputs.
  static func write(
    _ outputs: [(name: String, value: TensorValue)], to path: String, overwrite: Bool, inputs: [FileIdentity]
  ) throws {
    try SafetensorsWriter.write(
      outputs.map { $0.value.stored(as: $0.name) }, to: path, overwrite: overwrite, inputs: inputs)
  }
}
