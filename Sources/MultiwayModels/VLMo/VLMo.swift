public import MultiwayCheckpoint
public import MultiwayCore
import MultiwayGraph

/// VLMo as released: a transformer whose attention serves text and image tokens alike, with a feed-forward network for each of them,
/// and in the upper layers a third for both together. Relative position biases and layer scale as in BEiT; base_plus has absolute
/// positions instead.
///
/// Source: unilm `vlmo/modules/{multiway_transformer,vlmo_module,heads,objectives}.py`; text embeddings are those of BERT in
/// transformers 4.8.1.
public enum VLMo: Architecture {
  /// The name in `general.architecture`.
  public static let name = "vlmo"
  /// The keys that give VLMo away.
  public static let signature = "VLMo (…transformer.patch_embed.proj.weight, …transformer.blocks.N.mlp_imag.fc1.weight)"

  private static let marker = "transformer.patch_embed.proj.weight"

  /// True where there is a patch projection and an expert of either modality.
  public static func recognizes(_ tensors: [StoredTensor]) -> Bool {
    prefix(tensors) != nil
      && tensors.contains { tensor in
        ["mlp_imag", "mlp_text", "mlp_vl"].contains { tensor.name.hasSuffix(".\($0).fc1.weight") }
      }
  }

  /// What stands before `transformer.` in the keys, nil where there is no patch projection.
  static func prefix(_ tensors: [StoredTensor]) -> String? {
    tensors.first { $0.name == marker || $0.name.hasSuffix("." + marker) }.map {
      String($0.name.dropLast(marker.count))
    }
  }

  /// Finds the configuration from the shapes, binds every parameter and builds the graph.
  public static func load(
    _ tensors: [StoredTensor], checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) -> Model {
    let configuration = try VLMoConfiguration(tensors, checkpoint: checkpoint, options: options)
    let head = try VLMoHeads.recognize(tensors, configuration, file: checkpoint.path)
    let keyMap = configuration.keyMap
    let bound = try BoundParameters.bind(
      VLMoParameters(configuration: configuration, needsText: head.needsText).declarations
        + VLMoHeads.pooler(configuration, isRequired: head.needsPooler) + head.declarations(configuration),
      to: tensors, keyMap: keyMap, model: "VLMo for \(head.title)", file: checkpoint.path)
    let parameters = configuration.resized(bound)
    var builder = VLMoGraphBuilder(configuration, parameters)
    do throws(GraphError) {
      try head.build(&builder)
      try builder.graph.verify()
    } catch {
      throw ModelError(.unsupported, error.diagnosis)
    }
    // `square_transform` in unilm `vlmo/transforms`.
    let preprocessing = ImagePreprocessing(
      size: configuration.imageSize, mean: [0.5, 0.5, 0.5], standardDeviation: [0.5, 0.5, 0.5], cropsCentre: false)
    return Model(
      architecture: name, summary: configuration.summary + ", " + head.title, task: head.task,
      hyperparameters: configuration.hyperparameters + head.hyperparameters, parameters: parameters,
      graph: builder.graph, preprocessing: head.readsImages ? preprocessing : nil,
      assumptions: configuration.assumptions, layout: keyMap.layout, layouts: [keyMap])
  }

  /// The keys of a small model with every head.
  public static var keyTemplates: [(layout: String, keys: [String])] {
    let configuration = VLMoConfiguration.smallest
    let heads: [any VLMoHead] = [
      VLMoQuestionHead(answers: 1), VLMoReasoningHead(classes: 1), VLMoPretrainingHead.whole,
    ]
    let declarations =
      VLMoParameters(configuration: configuration, needsText: true).declarations
      + VLMoHeads.pooler(configuration, isRequired: true) + heads.flatMap { $0.declarations(configuration) }
    let keyMap = configuration.keyMap
    return [(keyMap.layout, declarations.compactMap { keyMap.key($0.name) })]
  }
}
