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
  /// The key that gives BEiT-3 away.
  public static let signature = "BEiT-3 (…vision_embed.proj.weight, …encoder.layers.N.self_attn.q_proj.A.weight)"

  /// True where there is a patch projection and any multiway attention projection.
  public static func recognizes(_ tensors: [StoredTensor]) -> Bool {
    tensors.contains { $0.name.hasSuffix("vision_embed.proj.weight") }
      && tensors.contains { tensor in
        ["q_proj", "k_proj", "v_proj", "out_proj"].contains { tensor.name.hasSuffix("self_attn.\($0).A.weight") }
      }
  }

  /// Finds the configuration from the shapes, binds every parameter and builds the graph.
  public static func load(
    _ tensors: [StoredTensor], checkpoint: Checkpoint, options: ModelOptions
  ) throws(ModelError) -> Model {
    let configuration = try BEiT3Configuration(tensors, checkpoint: checkpoint, options: options)
    let head = try BEiT3Heads.recognize(tensors, configuration, file: checkpoint.path)
    let declarations = BEiT3Parameters(configuration: configuration, head: head).declarations
    let parameters = try BoundParameters.bind(
      declarations, to: tensors, keyMap: .beit3UniLM(prefix: configuration.prefix),
      model: "BEiT-3 for \(head.title)", file: checkpoint.path)
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
      assumptions: configuration.assumptions)
  }
}
