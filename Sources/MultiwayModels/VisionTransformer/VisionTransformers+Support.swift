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
        "features", files: "any of them without its head, Data2VecVision's too, whose keys are then the same",
        read: ["unilm", "timm", "huggingface"],
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
