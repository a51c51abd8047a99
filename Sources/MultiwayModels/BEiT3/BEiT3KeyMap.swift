import MultiwayCore
import MultiwayGraph

extension KeyMap {
  /// The layout in which a state dict is; nil where it has neither.
  static func beit3(_ tensors: [StoredTensor]) -> KeyMap? {
    for (marker, make) in [("vision_embed.proj.weight", beit3UniLM), ("patch_embed.proj.weight", beit3Timm)] {
      guard let key = tensors.first(where: { $0.name.hasSuffix(marker) })?.name else { continue }
      return make(String(key.dropLast(marker.count)))
    }
    return nil
  }

  /// timm's layout of the vision tower: `blocks.3.attn.qkv.weight`, positions without the two rows that are never read. Text experts
  /// have no place in it. Source: `vision_transformer.py`, the filter for BEiT-3.
  static func beit3Timm(prefix: String) -> KeyMap {
    blocks(layout: "timm", style: BlocksStyle(hasFusedBias: true), prefix: prefix)
  }

  /// The keys of the released BEiT-3 files. Names of heads are the same in both worlds and pass unchanged.
  static func beit3UniLM(prefix: String) -> KeyMap {
    KeyMap(layout: "unilm") { name, _ in
      if let key = fixed[name] { return KeyPlace(prefix + key) }
      if let key = positions[name] {
        return KeyPlace(prefix + key, leadingRows: BEiT3Configuration.unreadPositionRows)
      }
      var parts = name.split(separator: ".").map(String.init)
      guard let field = parts.popLast() else { return KeyPlace(name) }
      if parts.count == 2, parts[1] == "final_norm", let branch = branches[parts[0]] {
        return KeyPlace("\(prefix)encoder.layer_norm.\(branch).\(field)")
      }
      guard parts.count == 4, parts[0] == "layers", let branch = branches[parts[2]], let module = modules[parts[3]]
      else {
        return KeyPlace(name)
      }
      return KeyPlace("\(prefix)encoder.layers.\(parts[1])." + module.replacing("X", with: branch) + "." + field)
    }
  }

  private static let branches = ["vision": "A", "text": "B"]

  private static let fixed = [
    "text.embedding.weight": "text_embed.weight",
    "vision.mask_token": "vision_embed.mask_token",
    "vision.class_token": "vision_embed.cls_token",
    "vision.patches.weight": "vision_embed.proj.weight",
    "vision.patches.bias": "vision_embed.proj.bias",
  ]

  private static let positions = [
    "vision.positions": "encoder.embed_positions.A.weight", "text.positions": "encoder.embed_positions.B.weight",
  ]

  /// The place of the branch letter (X) differs between attention and feed-forward modules.
  private static let modules = [
    "query": "self_attn.q_proj.X", "key": "self_attn.k_proj.X", "value": "self_attn.v_proj.X",
    "attention_out": "self_attn.out_proj.X", "attention_inner_norm": "self_attn.inner_attn_ln.X",
    "attention_norm": "self_attn_layer_norm.X", "feed_forward_norm": "final_layer_norm.X",
    "feed_forward_in": "ffn.X.fc1", "feed_forward_out": "ffn.X.fc2", "feed_forward_inner_norm": "ffn.X.ffn_layernorm",
  ]
}
