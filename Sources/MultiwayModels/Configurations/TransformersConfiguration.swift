import MultiwayCore
import MultiwayGraph

/// `config.json` as transformers 4 and 5 read it. Sources: `configuration_beit.py`, `configuration_vit.py`, `configuration_data2vec_vision.py`.
enum TransformersConfiguration {
  static func make(_ facts: ConfigurationFacts, original: JSONObject?) -> ModelConfiguration {
    let isViT = facts.model.architecture == VisionFamily.vit.rawValue
    let type = facts.model.architecture == VisionFamily.data2vec.rawValue ? "data2vec-vision" : facts.model.architecture
    // What the source's own file says of other things stays: labels, drop rates.
    var object = original?["model_type"]?.string == type ? original ?? JSONObject() : JSONObject()
    object["architectures"] = .array([.string(className(facts.model))])
    object["model_type"] = .string(type)
    for (key, value) in facts.sizes.members { object[key] = value }
    if isViT {
      object["qkv_bias"] = .bool(facts.has("layers.0.vision.query.bias"))
    } else {
      for (key, value) in beit(facts).members { object[key] = value }
    }
    addLabels(facts, to: &object)
    guard facts.model.task == "segmentation" else { return ModelConfiguration(model: object) }
    return withDecoder(facts, object)
  }

  private static func className(_ model: Model) -> String {
    let family =
      switch model.architecture {
      case VisionFamily.vit.rawValue: "ViT"
      case VisionFamily.data2vec.rawValue: "Data2VecVision"
      default: "Beit"
      }
    return switch model.task {
    case "classification": family + "ForImageClassification"
    case "masked_image_modeling": family + "ForMaskedImageModeling"
    case "segmentation": family + "ForSemanticSegmentation"
    default: family + "Model"
    }
  }

  /// What decides the parameters of BEiT and Data2VecVision beside their sizes.
  private static func beit(_ facts: ConfigurationFacts) -> JSONObject {
    let isMasked = facts.model.task == "masked_image_modeling"
    return [
      "use_mask_token": .bool(facts.has("vision.mask_token")),
      "use_absolute_position_embeddings": .bool(facts.has("vision.positions")),
      "use_relative_position_bias": .bool(facts.has("layers.0.vision.relative_bias.table")),
      "use_shared_relative_position_bias": .bool(facts.has("vision.relative_bias.table")),
      "layer_scale_init_value": .real(facts.has("layers.0.vision.attention_scale") ? 0.1 : 0),
      // A masked-image model has its norm beside the head, and then none in the encoder.
      "use_mean_pooling": .bool(isMasked || !facts.has("vision.final_norm.weight")),
      "vocab_size": .integer(isMasked ? facts.rows("lm_head.weight") : 8192),
    ]
  }

  /// Labels in the number of classes: the source's own, or numbered ones.
  private static func addLabels(_ facts: ConfigurationFacts, to object: inout JSONObject) {
    let classes = max(facts.rows("head.weight"), facts.rows("decoder.classes.weight"))
    guard classes > 0, object["id2label"]?.object?.members.count != classes else { return }
    var labels = JSONObject()
    var identifiers = JSONObject()
    for number in 0..<classes {
      labels[String(number)] = .string("LABEL_\(number)")
      identifiers["LABEL_\(number)"] = .integer(number)
    }
    object["id2label"] = .object(labels)
    object["label2id"] = .object(identifiers)
  }

  /// What decides the decoder of segmentation.
  private static func withDecoder(_ facts: ConfigurationFacts, _ object: JSONObject) -> ModelConfiguration {
    var configuration = ModelConfiguration(model: object)
    let taps = facts.integers("segmentation.taps") ?? []
    // `hidden_states[i - 1]` is read, whose first is the embedding; out_indices may not name the one behind the last block.
    let fits = taps.allSatisfy { $0 < facts.depth }
    let indices = taps.map { fits ? $0 + 1 : $0 - 1 }
    configuration.model["out_indices"] = .array(indices.map { .integer($0) })
    // Derived from the indices; with other ones they would contradict them.
    configuration.model["out_features"] = .array(indices.map { .string($0 == 0 ? "stem" : "stage\($0)") })
    configuration.model["pool_scales"] = .array((facts.integers("segmentation.pool_scales") ?? []).map { .integer($0) })
    configuration.model["add_fpn"] = .bool(false)
    let hasAuxiliary = facts.has("auxiliary.classes.weight")
    configuration.model["use_auxiliary_head"] = .bool(hasAuxiliary)
    if hasAuxiliary, let shape = facts.model.parameters["auxiliary.classes.weight"]?.data.shape, shape.rank == 4 {
      configuration.model["auxiliary_channels"] = .integer(shape[1])
    }
    if !fits {
      configuration.notes.append(
        "transformers takes no feature map behind the last block: it will read those after blocks "
          + indices.map { String($0 - 1) }.joined(separator: ", ") + ", and its logits differ")
    }
    return configuration
  }
}
