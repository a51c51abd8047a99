import MultiwayCore
import MultiwayGraph

extension KeyMap {
  /// The keys of the released VLMo files, from unilm `vlmo/modules/vlmo_module.py`. Names of heads are the same in both worlds.
  /// - Parameter prefix: what stands before every key: `module.` where DeepSpeed wrote the file.
  static func vlmo(prefix: String, buffers: [StoredTensor] = []) -> KeyMap {
    KeyMap(layout: "unilm", buffers: buffers, leftAlone: vlmoLeftAlone) { name, shape in
      if name == "vision.positions" {
        return KeyPlace("transformer.pos_embed", shape: shape.rank == 2 ? Shape([1] + shape.dimensions) : nil)
      }
      return KeyPlace(vlmoKey(name))
    }.prefixed(prefix)
  }

  private static func vlmoKey(_ name: String) -> String {
    if let key = vlmoFixed[name] { return key }
    let parts = name.split(separator: ".").map(String.init)
    guard parts.count >= 3, parts[0] == "layers" else { return name }
    let start = "transformer.blocks.\(parts[1])."
    let rest = parts[2...].joined(separator: ".")
    if let key = vlmoBlock[rest] { return start + key }
    guard parts.count == 5, let expert = vlmoExperts[parts[2]], let module = vlmoExpertModules[parts[3]] else {
      return name
    }
    return start + module.replacing("X", with: expert) + "." + parts[4]
  }

  private static let vlmoFixed = [
    "relative_bias.table": "relative_position_bias_table",
    "text.embedding.weight": "text_embeddings.word_embeddings.weight",
    "text.positions.weight": "text_embeddings.position_embeddings.weight",
    "text.token_types.weight": "text_embeddings.token_type_embeddings.weight",
    "text.embedding_norm.weight": "text_embeddings.LayerNorm.weight",
    "text.embedding_norm.bias": "text_embeddings.LayerNorm.bias",
    "token_types.weight": "token_type_embeddings.weight",
    "vision.class_token": "transformer.cls_token",
    "vision.patches.weight": "transformer.patch_embed.proj.weight",
    "vision.patches.bias": "transformer.patch_embed.proj.bias",
    "final_norm.weight": "transformer.norm.weight",
    "final_norm.bias": "transformer.norm.bias",
  ]

  private static let vlmoBlock = [
    "attention_norm.weight": "norm1.weight", "attention_norm.bias": "norm1.bias",
    "query.weight": "attn.qkv.weight", "key.weight": "attn.qkv.weight", "value.weight": "attn.qkv.weight",
    "query.bias": "attn.q_bias", "value.bias": "attn.v_bias",
    "attention_out.weight": "attn.proj.weight", "attention_out.bias": "attn.proj.bias",
    "attention_scale": "gamma_1", "feed_forward_scale": "gamma_2",
  ]

  private static let vlmoExperts = ["vision": "imag", "text": "text", "joint": "vl"]

  private static let vlmoExpertModules = [
    "feed_forward_norm": "norm2_X", "feed_forward_in": "mlp_X.fc1", "feed_forward_out": "mlp_X.fc2",
  ]

  /// Keys that are known and needless.
  private static func vlmoLeftAlone(_ key: String) -> String? {
    if key.hasSuffix("relative_position_index") { return "relative position indices, which are computed again" }
    if ["text_embeddings.position_ids", "text_embeddings.token_type_ids"].contains(key) {
      return "text position indices, which are computed again"
    }
    // Lightning keeps what a metric has counted under the name of the attribute that holds it: `val_vqa_score.score`.
    if ["train_", "val_", "dev_", "test_"].contains(where: { key.hasPrefix($0) }) { return "metrics of training" }
    return nil
  }
}
