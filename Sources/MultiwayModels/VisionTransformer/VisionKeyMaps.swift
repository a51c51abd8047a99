import MultiwayCore
import MultiwayGraph

/// The key layouts of the vision transformers, from unilm `beit/modeling_finetune.py`, timm `beit.py` and `vision_transformer.py`, and
/// transformers `modeling_beit.py`, `modeling_vit.py` and `modeling_data2vec_vision.py`.
extension KeyMap {
  /// How a layout spells what stands in every block: the canonical field and the layout's.
  private typealias Modules = [String: String]

  /// The layout in which a state dict is, with the prefix that its keys have before the backbone's.
  /// - Parameter isTrainingFile: true for what unilm's training saves, where the keys are timm's too and do not tell.
  static func visionLayout(_ tensors: [StoredTensor], family: VisionFamily, isTrainingFile: Bool) -> KeyMap? {
    for candidate in [Spelling.blocks, .huggingFace, .huggingFaceInMemory] {
      let marker = candidate.patches + ".weight"
      guard let key = tensors.first(where: { $0.name == marker || $0.name.hasSuffix("." + marker) })?.name else {
        continue
      }
      let prefix = String(key.dropLast(marker.count))
      let first = prefix + candidate.layers + "0."
      guard tensors.contains(where: { $0.name.hasPrefix(first) }) else { continue }
      return vision(candidate, prefix: prefix, family: family, tensors: tensors, isTrainingFile: isTrainingFile)
    }
    return nil
  }

  /// The layout of a spelling, with what the state dict at hand makes of it.
  private static func vision(
    _ spelling: Spelling, prefix: String, family: VisionFamily, tensors: [StoredTensor], isTrainingFile: Bool
  ) -> KeyMap {
    let names = Set(tensors.map(\.name))
    switch spelling {
    case .blocks:
      let style = BlocksStyle(
        hasFusedBias: names.contains(prefix + "blocks.0.attn.qkv.bias"),
        namesScalesLS: names.contains(prefix + "blocks.0.ls1.gamma"))
      let isUniLM =
        isTrainingFile
        || names.contains { key in
          key.hasSuffix("relative_position_index") || key.hasSuffix("mask_token") || key.hasSuffix("lm_head.weight")
            || key.hasPrefix("decode_head.")
        }
      let layout = isUniLM && family == .beit ? "unilm" : "timm"
      return blocks(layout: layout, style: style, prefix: prefix).withUperNet(.mmsegmentation)
    case .huggingFace, .huggingFaceInMemory:
      let inMemory = spelling == .huggingFaceInMemory
      return huggingFace(prefix: prefix, isMasked: names.contains("lm_head.weight"), inMemory: inMemory)
        .withUperNet(inMemory ? .transformersInMemory : .transformers)
    }
  }

  /// The three ways to spell the keys.
  private enum Spelling {
    case blocks, huggingFace, huggingFaceInMemory

    var patches: String {
      self == .blocks ? "patch_embed.proj" : "embeddings.patch_embeddings.projection"
    }
    var layers: String {
      switch self {
      case .blocks: "blocks."
      case .huggingFace: "encoder.layer."
      case .huggingFaceInMemory: "layers."
      }
    }
  }

  /// What differs among the models that spell their layers `blocks.N`.
  struct BlocksStyle: Sendable {
    /// One bias for query, key and value; BEiT has `q_bias` and `v_bias`.
    var hasFusedBias: Bool
    /// `ls1.gamma` and not `gamma_1`.
    var namesScalesLS = false
  }

  /// The layout of unilm and timm: `blocks.3.attn.qkv.weight`.
  static func blocks(
    layout: String, style: BlocksStyle, prefix: String = "", buffers: [StoredTensor] = []
  ) -> KeyMap {
    let fixed = [
      "vision.class_token": "cls_token", "vision.mask_token": "mask_token", "vision.positions": "pos_embed",
      "vision.patches": "patch_embed.proj", "vision.final_norm": "norm", "fc_norm": "fc_norm", "head": "head",
      "lm_head": "lm_head", "vision.relative_bias": "rel_pos_bias.relative_position_bias",
    ]
    let modules: Modules = [
      "attention_norm": "norm1", "attention_out": "attn.proj", "attention_inner_norm": "attn.norm",
      "feed_forward_norm": "norm2", "feed_forward_in": "mlp.fc1", "feed_forward_out": "mlp.fc2",
      "feed_forward_inner_norm": "mlp.norm", "relative_bias": "attn.relative_position_bias",
      "attention_scale": style.namesScalesLS ? "ls1.gamma" : "gamma_1",
      "feed_forward_scale": style.namesScalesLS ? "ls2.gamma" : "gamma_2",
      "query.weight": "attn.qkv.weight", "key.weight": "attn.qkv.weight", "value.weight": "attn.qkv.weight",
      "query.bias": style.hasFusedBias ? "attn.qkv.bias" : "attn.q_bias",
      "key.bias": style.hasFusedBias ? "attn.qkv.bias" : "",
      "value.bias": style.hasFusedBias ? "attn.qkv.bias" : "attn.v_bias",
    ]
    // timm drops what no forward pass reads.
    let absent: Set<String> = layout == "timm" ? ["vision.mask_token"] : []
    return KeyMap(layout: layout, buffers: buffers, leftAlone: leftAlone) { name, shape in
      guard !absent.contains(name) else { return nil }
      return place(name, shape, fixed: fixed, modules: modules, layers: "blocks.")
    }.prefixed(prefix)
  }

  /// The layout of transformers: `encoder.layer.3.attention.attention.query.weight`.
  /// - Parameters:
  ///   - prefix: `beit.`, `vit.`, `data2vec_vision.`; empty for a model without a head.
  ///   - isMasked: a masked-image model keeps its last norm beside the head.
  ///   - inMemory: the names that transformers 5 has in memory, which only unusual options write to disk.
  static func huggingFace(prefix: String, isMasked: Bool, inMemory: Bool = false) -> KeyMap {
    let fixed = [
      "vision.class_token": "embeddings.cls_token", "vision.mask_token": "embeddings.mask_token",
      "vision.positions": "embeddings.position_embeddings", "vision.patches": "embeddings.patch_embeddings.projection",
      "vision.final_norm": "layernorm", "fc_norm": "pooler.layernorm", "pooler": "pooler.dense",
      "vision.relative_bias": inMemory
        ? "shared_position_bias.relative_position_bias" : "encoder.relative_position_bias.relative_position_bias",
    ]
    let outer = ["head": "classifier", "lm_head": "lm_head"].merging(
      isMasked ? ["vision.final_norm": "layernorm"] : [:]
    ) {
      $1
    }
    let modules: Modules = inMemory ? inMemoryModules : onDiskModules
    let layers = inMemory ? "layers." : "encoder.layer."
    return KeyMap(
      layout: "huggingface",
      leftAlone: { key in key.hasPrefix(prefix) ? leftAlone(String(key.dropFirst(prefix.count))) : leftAlone(key) }
    ) { name, shape in
      if let place = place(name, shape, fixed: outer, modules: [:], layers: "") { return place }
      guard let place = place(name, shape, fixed: fixed, modules: modules, layers: layers) else { return nil }
      return KeyPlace(prefix + place.key, shape: place.shape)
    }
  }

  private static let onDiskModules: Modules = [
    "attention_norm": "layernorm_before", "feed_forward_norm": "layernorm_after",
    "query": "attention.attention.query", "key": "attention.attention.key", "value": "attention.attention.value",
    "attention_out": "attention.output.dense", "feed_forward_in": "intermediate.dense",
    "feed_forward_out": "output.dense", "attention_scale": "lambda_1", "feed_forward_scale": "lambda_2",
    "relative_bias": "attention.attention.relative_position_bias.relative_position_bias",
  ]

  private static let inMemoryModules: Modules = [
    "attention_norm": "layernorm_before", "feed_forward_norm": "layernorm_after", "query": "attention.q_proj",
    "key": "attention.k_proj", "value": "attention.v_proj", "attention_out": "attention.o_proj",
    "feed_forward_in": "mlp.fc1", "feed_forward_out": "mlp.fc2", "attention_scale": "lambda_1",
    "feed_forward_scale": "lambda_2", "relative_bias": "relative_position_bias.relative_position_bias",
  ]

  /// The name that transformers 5 has in memory for a linear module of a block, which is another than in its files; nil for any other.
  public static func transformersModule(inMemory name: String) -> String? {
    // The longest first: `attention.output.dense` ends like `output.dense`.
    let endings = onDiskModules.sorted { ($1.value.utf8.count, $0.key) < ($0.value.utf8.count, $1.key) }
    guard let (module, ending) = endings.first(where: { name.hasSuffix("." + $0.value) }),
      let other = inMemoryModules[module], name.contains("encoder.layer.")
    else { return nil }
    return name.dropLast(ending.count).replacing("encoder.layer.", with: "layers.") + other
  }

  /// Splits a canonical name into its module and field and looks both up.
  private static func place(
    _ name: String, _ shape: Shape, fixed: [String: String], modules: Modules, layers: String
  ) -> KeyPlace? {
    if let key = fixed[name] {
      // The table of positions has a leading dimension of one example.
      guard name == "vision.positions" else { return KeyPlace(key) }
      return KeyPlace(key, shape: shape.rank == 2 ? Shape([1] + shape.dimensions) : nil)
    }
    guard let dot = name.lastIndex(of: ".") else { return nil }
    let (module, field) = (String(name[..<dot]), String(name[name.index(after: dot)...]))
    if let key = fixed[module] { return KeyPlace(join(key, field)) }
    let parts = module.split(separator: ".").map(String.init)
    guard parts.first == "layers", parts.count >= 3, parts[2] == "vision" else { return nil }
    // `layers.3.vision.attention_scale` has no field of its own.
    if parts.count == 3 {
      return modules[field].map { KeyPlace("\(layers)\(parts[1]).\($0)") }
    }
    let start = "\(layers)\(parts[1])."
    if let exact = modules["\(parts[3]).\(field)"] { return exact.isEmpty ? nil : KeyPlace(start + exact) }
    return modules[parts[3]].map { KeyPlace(start + join($0, field)) }
  }

  /// A table's field is joined to the module's name with an underscore: `relative_position_bias_table`.
  private static func join(_ module: String, _ field: String) -> String {
    module.hasSuffix("relative_position_bias") ? "\(module)_\(field)" : "\(module).\(field)"
  }

  /// Keys that are known and needless.
  private static func leftAlone(_ key: String) -> String? {
    if key.hasSuffix("relative_position_index") { return "relative position indices, which are computed again" }
    if key.hasPrefix("cls_pt_layers.") { return "the layers that BEiT v2 adds for pretraining" }
    return nil
  }
}
