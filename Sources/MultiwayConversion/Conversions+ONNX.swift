import MultiwayArtifact
import MultiwayCore
import MultiwayGGUF
import MultiwayGraph
import MultiwayONNX
import MultiwayPasses

extension Conversions {
  /// Writes what a model's task reaches as ONNX.
  static func convertToONNX(
    _ input: LoadedModel, dtype: DType?, opset: Int?, to path: String, overwrite: Bool, progress: Progress?
  ) throws -> ConversionReport {
    let opset = try opset.map { version throws(ONNXError) in try ONNXOpset(version) } ?? .standard
    var graph = input.graph
    var passes: [any Pass] = [RemoveUnreached()]
    if let dtype { passes.append(CastStorage(dtype)) }
    let reports = try run(PassPipeline(passes), on: &graph, of: input)
    var report = try writeONNX(graph, of: input, opset: opset, to: path, overwrite: overwrite, progress: progress)
    report.passes = reports
    return report
  }

  /// Writes a graph of a model as ONNX.
  static func writeONNX(
    _ graph: Graph, of input: LoadedModel, opset: ONNXOpset, to path: String, overwrite: Bool, progress: Progress?
  ) throws -> ConversionReport {
    var notes = input.assumptions + input.notes
    let hasQuantizedLayers = graph.nodes.contains { if case .quantizedLinear = $0.op { true } else { false } }
    if hasQuantizedLayers {
      notes.append(
        "int8 layers became DynamicQuantizeLinear and MatMulInteger, which quantize activations per tensor, not per token: outputs differ"
      )
    }
    let byteCount = try ONNXWriter.write(
      graph, metadata: try input.onnxMetadata(of: graph), opset: opset, to: path, overwrite: overwrite,
      inputs: input.file.identities, progress: progress)
    return ConversionReport(
      output: path, inputBytes: input.file.byteCount, outputBytes: byteCount, parametersBefore: input.parameterCount,
      parametersAfter: graph.parameterCount, notes: notes)
  }
}

extension LoadedModel {
  /// What an ONNX model of a graph says about itself: the same as an artifact, as text.
  func onnxMetadata(of graph: Graph) throws -> ONNXMetadata {
    let metadata = self.metadata(of: graph, recipe: try recipe)
    var properties = [
      ONNXProperty("architecture", metadata.architecture), ONNXProperty("name", metadata.name),
    ]
    if let license = metadata.license { properties.append(ONNXProperty("license", license)) }
    for parameter in metadata.hyperparameters {
      properties.append(ONNXProperty(parameter.key, LoadedModel.text(parameter.value)))
    }
    if let preprocessing = metadata.preprocessing {
      properties.append(ONNXProperty("preprocessing", JSONValue.object(preprocessing).text()))
    }
    if !metadata.labels.isEmpty {
      properties.append(ONNXProperty("labels", JSONValue.array(metadata.labels.map { .string($0) }).text()))
    }
    return ONNXMetadata(
      name: [metadata.architecture, task].filter { !$0.isEmpty }.joined(separator: "_"), description: metadata.name,
      producerVersion: metadata.toolVersion, properties: properties)
  }
}
