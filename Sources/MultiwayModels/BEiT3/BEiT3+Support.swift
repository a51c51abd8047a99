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
        outputs: ["features", "pooled"], oracle: oracle,
        fixtures: ["tiny/features.pth", "family/beit3_features/timm.safetensors"]),
    ]
  }
}
