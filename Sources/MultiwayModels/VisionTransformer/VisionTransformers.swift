public import MultiwayCheckpoint
public import MultiwayCore
import MultiwayGraph

/// BEiT v1 and v2: a vision transformer with relative position bias, layer scale and no key bias.
///
/// Sources: unilm `beit/modeling_finetune.py` and `beit2/modeling_finetune.py`, timm `beit.py`, transformers `modeling_beit.py`.
public enum BEiT: Architecture {
  /// The name in `general.architecture`.
  public static let name = VisionFamily.beit.rawValue
  /// The keys that give BEiT away.
  public static let signature =
    "BEiT v1 or v2 (…patch_embed.proj.weight with …attn.q_bias, gamma_1 or relative_position_bias_table, or beit.…)"

  /// True where a vision transformer has one of the things that only BEiT has.
  public static func recognizes(_ tensors: [StoredTensor]) -> Bool { VisionFamily.of(tensors) == .beit }

  /// The keys of one layer with every option.
  public static var keyTemplates: [(layout: String, keys: [String])] { VisionFamily.beit.keyTemplates }

  /// Finds the layout and the configuration, binds every parameter and builds the graph.
  public static func load(
    _ tensors: [StoredTensor], checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) -> Model {
    try VisionFamily.beit.load(tensors, checkpoint: checkpoint, options: options)
  }
}

/// The plain vision transformer, the ancestor. Sources: timm `vision_transformer.py`, transformers `modeling_vit.py`.
public enum ViT: Architecture {
  /// The name in `general.architecture`.
  public static let name = VisionFamily.vit.rawValue
  /// The keys that give it away.
  public static let signature = "ViT (blocks.N.attn.qkv.bias with pos_embed, or vit.…)"

  /// True for a vision transformer with biases on query, key and value.
  public static func recognizes(_ tensors: [StoredTensor]) -> Bool { VisionFamily.of(tensors) == .vit }

  /// The keys of one layer with every option.
  public static var keyTemplates: [(layout: String, keys: [String])] { VisionFamily.vit.keyTemplates }

  /// Finds the layout and the configuration, binds every parameter and builds the graph.
  public static func load(
    _ tensors: [StoredTensor], checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) -> Model {
    try VisionFamily.vit.load(tensors, checkpoint: checkpoint, options: options)
  }
}

/// Data2VecVision: BEiT's graph under keys of its own. Source: transformers `modeling_data2vec_vision.py`.
public enum Data2VecVision: Architecture {
  /// The name in `general.architecture`.
  public static let name = VisionFamily.data2vec.rawValue
  /// The keys that give it away.
  public static let signature = "Data2VecVision (data2vec_vision.…)"

  /// True where the keys have the family's prefix.
  public static func recognizes(_ tensors: [StoredTensor]) -> Bool { VisionFamily.of(tensors) == .data2vec }

  /// The keys of one layer with every option.
  public static var keyTemplates: [(layout: String, keys: [String])] { VisionFamily.data2vec.keyTemplates }

  /// Finds the layout and the configuration, binds every parameter and builds the graph.
  public static func load(
    _ tensors: [StoredTensor], checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) -> Model {
    try VisionFamily.data2vec.load(tensors, checkpoint: checkpoint, options: options)
  }
}

extension VisionFamily {
  /// The family of a state dict with a patch projection and blocks; nil for anything else.
  static func of(_ tensors: [StoredTensor]) -> VisionFamily? {
    let isBlocks = tensors.contains { $0.name.hasSuffix("patch_embed.proj.weight") }
    let isHuggingFace = tensors.contains { $0.name.hasSuffix("embeddings.patch_embeddings.projection.weight") }
    guard isBlocks || isHuggingFace else { return nil }
    if tensors.contains(where: { $0.name.hasPrefix("data2vec_vision.") }) { return .data2vec }
    let beitEndings = [
      "attn.q_bias", "gamma_1", "lambda_1", "relative_position_bias_table", "relative_position_index",
    ]
    if tensors.contains(where: { tensor in beitEndings.contains { tensor.name.hasSuffix($0) } }) { return .beit }
    if tensors.contains(where: { $0.name.hasPrefix("beit.") }) { return .beit }
    let vitEndings = ["attn.qkv.bias", "attention.attention.key.bias", "attention.k_proj.bias"]
    if tensors.contains(where: { tensor in vitEndings.contains { tensor.name.hasSuffix($0) } }) { return .vit }
    return isHuggingFace || tensors.contains { $0.name.hasSuffix("attn.qkv.weight") } ? .vit : nil
  }

  /// The keys of one layer with every option and every head, in every layout.
  var keyTemplates: [(layout: String, keys: [String])] {
    let style = KeyMap.BlocksStyle(hasFusedBias: self == .vit)
    let blocks = ["unilm", "timm"].map { KeyMap.blocks(layout: $0, style: style) }
    let layouts = (self == .data2vec ? [] : blocks) + [.huggingFace(prefix: huggingFacePrefix + ".", isMasked: false)]
    return layouts.map { keyMap in
      let configuration = VisionConfiguration(smallest: self, keyMap: keyMap)
      let heads: [any VisionHead] =
        [VisionClassificationHead(classes: 1), MaskedImageHead(codes: 1), VisionFeaturesHead()]
        + (configuration.decoder.map { [SegmentationHead(configuration: $0)] } ?? [])
      let declarations =
        VisionParameters(configuration: configuration).declarations
        + heads.flatMap { $0.declarations(configuration) }
      return (keyMap.layout, declarations.compactMap { keyMap.key($0.name) })
    }
  }

  /// Finds the layout and the configuration, binds every parameter and builds the graph.
  func load(
    _ tensors: [StoredTensor], checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) -> Model {
    // timm saves bare state dicts, unilm's training wraps them.
    let isTrainingFile = checkpoint.stateDicts.contains { !$0.name.isEmpty }
    guard let keyMap = KeyMap.visionLayout(tensors, family: self, isTrainingFile: isTrainingFile) else {
      throw ModelError(
        .keysDoNotFit, "the keys look like \(title), but none of a layer is there",
        expected: "blocks.N.…, encoder.layer.N.… or layers.N.…", file: checkpoint.path)
    }
    let configuration = try VisionConfiguration(
      tensors, family: self, keyMap: keyMap, checkpoint: checkpoint, options: options)
    if configuration.hasSharedBias || configuration.hasLayerBias,
      max(configuration.gridSize, configuration.targetGridSize) > RelativePositions.largestGrid
    {
      throw ModelError(
        .unsupported, "relative positions of \(configuration.targetGridSize) patches a side",
        expected: "at most \(RelativePositions.largestGrid)", file: checkpoint.path)
    }
    let sizes = SizeFinder(tensors, keyMap: keyMap, file: checkpoint.path)
    let head = VisionHeads.recognize(sizes, configuration)
    let bound = try BoundParameters.bind(
      VisionParameters(configuration: configuration).declarations + head.declarations(configuration), to: tensors,
      keyMap: keyMap, model: "\(title) for \(head.title)", file: checkpoint.path)
    let parameters = configuration.resized(bound)
    var builder = VisionGraphBuilder(configuration, parameters)
    do throws(GraphError) {
      try head.build(&builder)
      try builder.graph.verify()
    } catch {
      throw ModelError(.unsupported, error.diagnosis)
    }
    let (preprocessing, assumed) = VisionPreprocessing.find(configuration, metadata: checkpoint.metadata)
    return Model(
      architecture: rawValue, summary: configuration.summary + ", " + head.title, task: head.task,
      hyperparameters: configuration.hyperparameters + head.hyperparameters, parameters: parameters,
      graph: builder.graph, preprocessing: preprocessing,
      assumptions: configuration.assumptions + assumed, layout: keyMap.layout,
      layouts: configuration.layouts(task: head.task))
  }
}
