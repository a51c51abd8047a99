import MultiwayCore
import MultiwayGraph

/// `config.json` as timm reads it from the hub and from `local-dir:`. Source: timm `models/_hub.py`.
enum TimmConfiguration {
  static func make(_ facts: ConfigurationFacts) -> ModelConfiguration {
    var configuration = ModelConfiguration(model: JSONObject())
    let isBEiT = facts.model.architecture == BEiT.name
    let hasHead = facts.has("head.weight")
    let pool = hasHead && !facts.has("fc_norm.weight") ? "token" : "avg"
    // timm's entry points fix the class and the norms' ε; every size is given again.
    let (name, epsilon): (String, Float) =
      switch facts.model.architecture {
      case BEiT3.name: ("beit3_base_patch16_224", 1e-5)
      case BEiT.name: ("beit_base_patch16_224", 1e-6)
      default: ("vit_base_patch16_224", 1e-6)
      }
    if facts.epsilon != epsilon {
      configuration.notes.append("timm's \(name) has an ε of \(epsilon) in its norms; this model has \(facts.epsilon)")
    }
    var arguments: JSONObject = [
      "img_size": .integer(facts.imageSize), "patch_size": .integer(facts.patchSize),
      "in_chans": .integer(facts.channels),
      "embed_dim": .integer(facts.width), "depth": .integer(facts.depth), "num_heads": .integer(facts.heads),
      "mlp_ratio": .real(Double(facts.feedForwardWidth) / Double(max(facts.width, 1))),
      "init_values": facts.has("layers.0.vision.attention_scale") ? .real(0.1) : .null, "global_pool": .string(pool),
    ]
    if isBEiT {
      arguments["use_abs_pos_emb"] = .bool(facts.has("vision.positions"))
      arguments["use_rel_pos_bias"] = .bool(facts.has("layers.0.vision.relative_bias.table"))
      arguments["use_shared_rel_pos_bias"] = .bool(facts.has("vision.relative_bias.table"))
    } else if facts.model.architecture == ViT.name {
      arguments["no_embed_class"] = .bool(facts.positionsSkipClass)
      arguments["qkv_bias"] = .bool(facts.has("layers.0.vision.query.bias"))
    }
    configuration.model = [
      "architecture": .string(name), "num_classes": .integer(facts.rows("head.weight")),
      "num_features": .integer(facts.width), "global_pool": .string(pool), "model_args": .object(arguments),
      "pretrained_cfg": .object(pretrained(facts)),
      // What this tool reads, whose names timm does not look at.
      "num_attention_heads": .integer(facts.heads), "layer_norm_eps": .real(facts.real(facts.epsilon)),
    ]
    return configuration
  }

  /// How images are prepared, and where the first and last layers are.
  private static func pretrained(_ facts: ConfigurationFacts) -> JSONObject {
    var object: JSONObject = [
      "custom_load": .bool(false),
      "input_size": .array([facts.channels, facts.imageSize, facts.imageSize].map { .integer($0) }),
      "fixed_input_size": .bool(true), "num_classes": .integer(facts.rows("head.weight")), "pool_size": .null,
      "first_conv": .string("patch_embed.proj"), "classifier": .string("head"),
    ]
    if let preprocessing = facts.model.preprocessing {
      object["interpolation"] = .string(preprocessing.interpolation)
      object["crop_pct"] = .real(facts.real(preprocessing.cropFraction))
      object["crop_mode"] = .string(preprocessing.cropsCentre ? "center" : "squash")
      object["mean"] = .array(preprocessing.mean.map { .real(facts.real($0)) })
      object["std"] = .array(preprocessing.standardDeviation.map { .real(facts.real($0)) })
    }
    return object
  }
}

extension ConfigurationFacts {
  /// True where the table of positions has a row for each patch and none for the class token.
  var positionsSkipClass: Bool {
    guard let positions = model.parameters["vision.positions"]?.data.shape, patchSize > 0 else { return false }
    let side = imageSize / patchSize
    return positions[0] == side * side
  }
}
