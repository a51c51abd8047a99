/// What is supported of an architecture for one task: a row of Docs/Support.md, which a test compares with what fixtures give.
public struct TaskSupport: Sendable {
  /// The task's name, as artifacts and `inspect --json` have it.
  public var task: String
  /// The files that people have, in words.
  public var files: String
  /// The layouts that are read.
  public var read: [String]
  /// The layouts that `convert --layout` writes.
  public var written: [String]
  /// What the graph reads.
  public var inputs: [String]
  /// What the graph gives.
  public var outputs: [String]
  /// The implementation that outputs are compared with.
  public var oracle: String
  /// Checkpoints under Tests/Fixtures that hold the claim.
  public var fixtures: [String]

  /// Describes a row. Layouts that are written are those that are read unless told otherwise.
  public init(
    _ task: String, files: String, read: [String], written: [String]? = nil, inputs: [String] = ["image"],
    outputs: [String], oracle: String, fixtures: [String]
  ) {
    self.task = task
    self.files = files
    self.read = read
    self.written = written ?? read
    self.inputs = inputs
    self.outputs = outputs
    self.oracle = oracle
    self.fixtures = fixtures
  }
}

extension BEiT3 {
  /// The tasks, in the order of the released files.
  public static var support: [TaskSupport] {
    let oracle = "torchscale BEiT3"
    let fused = ["image", "text", "padding_mask"]
    return [
      TaskSupport(
        "classification", files: "`beit3_{base,large}[_indomain]_patch16_224_in1k.pth`, timm `beit3_*`",
        read: ["unilm", "timm"], outputs: ["logits"], oracle: oracle + ", timm",
        fixtures: ["tiny/classification.pth", "family/beit3_timm/timm.safetensors"]),
      TaskSupport(
        "vqa", files: "`beit3_*_patch16_{480,768}_vqa.pth`", read: ["unilm"], inputs: fused, outputs: ["logits"],
        oracle: oracle, fixtures: ["tiny/heads/vqa.pth"]),
      TaskSupport(
        "nlvr2", files: "`beit3_*_patch16_224_nlvr2.pth`", read: ["unilm"],
        inputs: ["image", "image2", "text", "padding_mask"], outputs: ["logits"], oracle: oracle,
        fixtures: ["tiny/heads/nlvr2.pth"]),
      TaskSupport(
        "captioning", files: "`beit3_*_patch16_480_{coco_captioning,nocaps}.pth`", read: ["unilm"], inputs: fused,
        outputs: ["logits"], oracle: oracle + ", beam search token for token", fixtures: ["tiny/heads/captioning.pth"]),
      TaskSupport(
        "retrieval", files: "`beit3_*_patch16_384_{coco,f30k}_retrieval.pth`, `beit3_*_itc_patch16_224.pth`",
        read: ["unilm"], inputs: fused, outputs: ["image_embedding", "text_embedding"], oracle: oracle,
        fixtures: ["tiny/heads/retrieval.pth"]),
      TaskSupport(
        "pretraining", files: "`beit3_{base,large}[_indomain]_patch16_224.pth`", read: ["unilm"], inputs: fused,
        outputs: ["features", "mim_logits", "mlm_logits"], oracle: oracle, fixtures: ["tiny/heads/pretraining.pth"]),
      TaskSupport(
        "features", files: "any of them without its head", read: ["unilm", "timm"], inputs: fused,
        outputs: ["features"], oracle: oracle, fixtures: ["tiny/features.pth"]),
    ]
  }
}

extension BEiT {
  /// The tasks of BEiT v1 and v2.
  public static var support: [TaskSupport] {
    let oracle = "timm, transformers"
    return [
      TaskSupport(
        "classification",
        files: "`beit_*_ft22k[to1k].pth`, `beitv2_*_ft1k.pth`, `microsoft/beit-*`, timm `beit[v2]_*`",
        read: ["unilm", "timm", "huggingface"], outputs: ["logits"], oracle: oracle,
        fixtures: ["unilm.pth", "timm.safetensors", "huggingface"].map { "family/beit_classification/" + $0 }
          + ["unilm.pth", "timm.safetensors", "huggingface"].map { "family/beit_absolute/" + $0 }),
      TaskSupport(
        "masked_image_modeling", files: "`beit_*_pt22k.pth`, `beitv2_*_pt1k.pth`, `microsoft/beit-*-pt22k`",
        read: ["unilm", "huggingface"], outputs: ["mim_logits"], oracle: "transformers",
        fixtures: ["unilm.pth", "unilm_v2.pth", "huggingface"].map { "family/beit_pretrained/" + $0 }),
      TaskSupport(
        "segmentation", files: "`beit[v2]_*_ftade20k.pth`, `microsoft/beit-*-finetuned-ade-640-640`",
        read: ["unilm", "huggingface"], outputs: ["logits"], oracle: "transformers",
        fixtures: ["tiny/segmentation/mmseg.pth", "tiny/segmentation/huggingface"]),
      TaskSupport(
        "features", files: "any of them without its head", read: ["unilm", "timm", "huggingface"],
        outputs: ["features", "pooled"], oracle: oracle,
        fixtures: ["timm.safetensors", "huggingface"].map { "family/beit_features/" + $0 }),
    ]
  }
}

extension ViT {
  /// The tasks of the plain vision transformer.
  public static var support: [TaskSupport] {
    [
      TaskSupport(
        "classification", files: "timm `vit_*`, `deit_*`, `deit3_*`; `google/vit-*`", read: ["timm", "huggingface"],
        outputs: ["logits"], oracle: "timm, transformers",
        fixtures: ["family/vit_classification/timm.safetensors", "family/vit_classification/huggingface"]),
      TaskSupport(
        "features", files: "any of them without its head", read: ["timm", "huggingface"],
        outputs: ["features", "pooled"], oracle: "transformers", fixtures: ["family/vit_features/huggingface"]),
    ]
  }
}

extension Data2VecVision {
  /// The tasks of Data2VecVision.
  public static var support: [TaskSupport] {
    [
      TaskSupport(
        "classification", files: "`facebook/data2vec-vision-*`", read: ["huggingface"], outputs: ["logits"],
        oracle: "transformers",
        fixtures: ["classification", "shared_bias", "both_biases"].map { "family/data2vec_\($0)/huggingface" })
    ]
  }
}

extension VLMo {
  /// The tasks of VLMo.
  public static var support: [TaskSupport] {
    let oracle = "a PyTorch module after unilm's (Tools/reference/vlmo.py)"
    let fused = ["image", "text", "padding_mask"]
    return [
      TaskSupport(
        "vqa", files: "`vlmo_*_patch16_480_vqa.pt`", read: ["unilm"], inputs: fused, outputs: ["logits"],
        oracle: oracle,
        fixtures: ["vlmo/vqa.pth"]),
      TaskSupport(
        "nlvr2", files: "`vlmo_*_patch16_384_nlvr2.pt`", read: ["unilm"],
        inputs: ["image", "image2", "text", "padding_mask"], outputs: ["logits"], oracle: oracle,
        fixtures: ["vlmo/nlvr2.pth"]),
      TaskSupport(
        "retrieval", files: "`vlmo_*_patch16_384_{coco,f30k}.pt`", read: ["unilm"], inputs: fused,
        outputs: ["image_embedding", "text_embedding"], oracle: oracle, fixtures: ["vlmo/retrieval.pth"]),
      TaskSupport(
        "pretraining", files: "`vlmo_*_patch16_224.pt`", read: ["unilm"], inputs: fused,
        outputs: [
          "mlm_logits", "itm_logits", "image_embedding", "text_embedding", "image_vl_embedding", "text_vl_embedding",
        ], oracle: oracle, fixtures: ["vlmo/pretraining.pth"]),
      TaskSupport(
        "text_pretraining", files: "`vlmo_*_patch16_224_stage2.pt`", read: ["unilm"], inputs: ["text", "padding_mask"],
        outputs: ["mlm_logits"], oracle: oracle, fixtures: ["vlmo/text_pretraining.pth"]),
      TaskSupport(
        "features", files: "any of them without its head", read: ["unilm"], inputs: fused,
        outputs: ["features", "pooled"], oracle: oracle, fixtures: ["vlmo/features.pth"]),
    ]
  }
}
