public import MultiwayCheckpoint
public import MultiwayCore
import MultiwayGraph

/// BEiT-3 as released: a Multiway transformer with sub-LN whose attention projections, norms and feed-forward networks all
/// exist twice, once for vision tokens (A) and once for text tokens (B). Only the attention itself is shared.
///
/// Source: torchscale `BEiT3` and unilm `beit3/modeling_finetune.py`.
public enum BEiT3: Architecture {
  /// The name in `general.architecture`.
  public static let name = "beit3"
  /// The keys that give BEiT-3 away.
  public static let signature =
    "BEiT-3 (…vision_embed.proj.weight and …encoder.layers.N.self_attn.q_proj.A.weight, or timm's blocks.N.attn.norm.weight)"

  /// True where there is a patch projection and any multiway attention projection, or timm's norms inside attention and feed-forward.
  public static func recognizes(_ tensors: [StoredTensor]) -> Bool {
    func has(_ endings: [String]) -> Bool {
      tensors.contains { tensor in endings.contains { tensor.name.hasSuffix($0) } }
    }
    let projections = ["q_proj", "k_proj", "v_proj", "out_proj"].map { "self_attn.\($0).A.weight" }
    return has(["vision_embed.proj.weight"]) && has(projections)
      || has(["patch_embed.proj.weight"]) && has(["attn.norm.weight"]) && has(["mlp.norm.weight"])
  }

  /// Finds the configuration from the shapes, binds every parameter and builds the graph.
  public static func load(
    _ tensors: [StoredTensor], checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) -> Model {
    guard let keyMap = KeyMap.beit3(tensors) else {
      throw ModelError(.keysDoNotFit, "there is no patch projection", expected: signature, file: checkpoint.path)
    }
    let configuration = try BEiT3Configuration(tensors, keyMap: keyMap, checkpoint: checkpoint, options: options)
    let head = try BEiT3Heads.recognize(tensors, configuration, file: checkpoint.path)
    let declarations = BEiT3Parameters(configuration: configuration, head: head).declarations
    let bound = try BoundParameters.bind(
      declarations, to: tensors, keyMap: keyMap, model: "BEiT-3 for \(head.title)", file: checkpoint.path)
    let parameters = configuration.resized(bound)
    var builder = BEiT3GraphBuilder(configuration, parameters)
    do throws(GraphError) {
      try head.build(&builder)
      try builder.graph.verify()
    } catch {
      throw ModelError(.unsupported, error.diagnosis)
    }
    return Model(
      architecture: name, summary: configuration.summary + ", " + head.title, task: head.task,
      hyperparameters: configuration.hyperparameters + head.hyperparameters, parameters: parameters,
      graph: builder.graph, preprocessing: head.preprocessing(size: configuration.imageSize),
      assumptions: configuration.assumptions, layout: keyMap.layout, layouts: layouts(task: head.task))
  }

  /// The keys of one layer with every head.
  public static var keyTemplates: [(layout: String, keys: [String])] {
    let heads: [any BEiT3Head] = [
      ClassificationHead(classes: 1), VisualQuestionHead(answers: 1), PairHead(classes: 1),
      RetrievalHead(embedding: 1), PretrainingHead(vocabulary: 1, codebook: 1),
    ]
    return layouts(task: "classification").map { keyMap in
      let declarations = heads.flatMap { head in
        BEiT3Parameters(configuration: BEiT3Configuration(smallest: keyMap), head: head).declarations
      }
      return (keyMap.layout, declarations.compactMap { keyMap.key($0.name) })
    }
  }

  /// The layouts that can hold a model for a task: timm has the vision tower alone.
  private static func layouts(task: String) -> [KeyMap] {
    [.beit3UniLM(prefix: "beit3.")]
      + (["classification", "features"].contains(task) ? [.beit3Timm(prefix: "")] : [])
  }
}
