import MultiwayCore

/// Says what may be the matter with a checkpoint whose keys do not fit, and what would mend it.
enum ImportDoctor {
  /// The error for a state dict that no architecture recognises: which one is nearest, and what separates the file from it.
  static func unknownArchitecture(_ tensors: [StoredTensor], file: String) -> ModelError {
    // A single key that no model has keeps a file from being one.
    let odd = tensors.filter { !OrdinaryKeys.has($0.name) }
    let examples = (odd.isEmpty ? tensors : odd).prefix(3).map { OrdinaryKeys.shortened($0.name) }
      .joined(separator: ", ")
    var found = "no known architecture has keys such as \(examples.isEmpty ? "none at all" : examples)"
    if let nearest = NearestLayout.find(OrdinaryKeys.sample(tensors)) { found += "\n" + nearest.description }
    let advice = advice(for: KeyProblems(), tensors: tensors)
    return ModelError(
      .unknownArchitecture, found, expected: Architectures.all.map { $0.signature }.joined(separator: "; "),
      remedy: (advice + ["`multiway convert IN OUT.safetensors` works for any state dict"]).joined(separator: "\n"),
      file: file)
  }

  /// The error for a state dict in which several models stand side by side; nil where there is one at most.
  static func severalModels(_ tensors: [StoredTensor], file: String) -> ModelError? {
    var prefixes: [String] = []
    var seen: Set<String> = []
    for tensor in OrdinaryKeys.sample(tensors) {
      for marker in patchProjections where tensor.name.hasSuffix(marker) {
        let prefix = String(tensor.name.dropLast(marker.count))
        if prefix.isEmpty || prefix.hasSuffix("."), seen.insert(prefix).inserted { prefixes.append(prefix) }
      }
    }
    guard prefixes.count > 1 else { return nil }
    let more = prefixes.count > 20 ? ", …" : ""
    let names = prefixes.prefix(20).map { $0.isEmpty ? "(no prefix)" : "'\($0)'" }.joined(separator: ", ") + more
    return ModelError(
      .unsupported, "the state dict holds \(prefixes.count) models, under \(names)", expected: "one model",
      remedy: "save the state dict of the one that is wanted", file: file)
  }

  /// What ends the key of every architecture's patch projection.
  private static let patchProjections = [
    "vision_embed.proj.weight", "patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight",
  ]

  /// What the problems, or the keys themselves, suggest.
  static func advice(for problems: KeyProblems, tensors: [StoredTensor]) -> [String] {
    let (problems, tensors) = (problems.sample, OrdinaryKeys.sample(tensors))
    return symptoms.compactMap { symptom in symptom.isPresent(problems, tensors) ? symptom.advice : nil }
  }

  /// A known cause of keys that do not fit.
  private struct Symptom: Sendable {
    var advice: String
    var isPresent: @Sendable (KeyProblems, [StoredTensor]) -> Bool
  }

  private static let symptoms: [Symptom] = [
    Symptom(advice: "the file holds LoRA adapters: merge them into the model (peft: merge_and_unload) and save that") {
      $1.contains { $0.name.contains("lora_") || $0.name.hasPrefix("base_model.") }
    },
    Symptom(
      advice:
        "empty tensors stand for weights that DeepSpeed ZeRO-3 keeps elsewhere: join them with its zero_to_fp32.py"
    ) { problems, tensors in
      problems.misshapen.contains { $0.contains(" is [0], ") }
        || tensors.filter { $0.shape.dimensions == [0] }.count > tensors.count / 2 && tensors.count > 1
    },
    Symptom(
      advice:
        "the text experts (B) are missing, as after `prune --keep vision`: this task needs them, so take the whole checkpoint"
    ) { problems, tensors in
      problems.missing.contains { $0.contains(".B.") } && !tensors.contains { $0.name.contains(".B.") }
    },
    Symptom(
      advice: "some of the text experts (B) are missing: a file has all of them or none"
    ) { problems, tensors in
      problems.missing.contains { $0.contains(".B.") } && tensors.contains { $0.name.contains(".B.") }
    },
    Symptom(
      advice:
        "the bias of query, key and value is in another form than the rest: BEiT has attn.q_bias and attn.v_bias, ViT attn.qkv.bias"
    ) { problems, _ in
      (problems.missing + problems.leftOver).contains { $0.contains("q_bias") || $0.contains("qkv.bias") }
    },
    Symptom(
      advice:
        "positions or bias tables are of another image size than the rest; `convert --image-size N` resizes a whole checkpoint"
    ) { problems, _ in
      problems.misshapen.contains { line in
        ["pos_embed", "embed_positions", "position_embeddings", "relative_position_bias_table"].contains {
          line.contains($0)
        }
      }
    },
    Symptom(
      advice:
        "the head is incomplete: save the whole model after fine-tuning, or remove what is left of the head to get features"
    ) { problems, _ in
      problems.missing.contains { line in
        ["head.", "fc_norm.", "classifier.", "pooler."].contains { line.hasPrefix($0) }
      }
    },
    Symptom(advice: "optimizer or trainer state stands among the weights: save the model's state_dict() alone") {
      problems, _ in
      problems.leftOver.contains { line in
        ["optimizer", "exp_avg", "scaler.", "teacher.", "ema."].contains { line.contains($0) }
      }
    },
  ]
}
