extension VLMo {
  /// The tasks, in the order of training.
  public static var support: [TaskSupport] {
    let pair = ["image", "text", "padding_mask"]
    func row(
      _ task: String, _ files: String, inputs: [String] = pair, outputs: [String], fixtures: [String]
    ) -> TaskSupport {
      TaskSupport(
        task, files: files, read: ["unilm"], inputs: inputs, outputs: outputs, oracle: "unilm's VLMo",
        fixtures: fixtures.map { "vlmo/\($0).pth" })
    }
    return [
      row(
        "text_pretraining", "`vlmo_*_patch16_224_stage2.pt`", inputs: ["text", "padding_mask"], outputs: ["mlm_logits"],
        fixtures: ["text_pretraining"]),
      row(
        "pretraining", "`vlmo_{base,base_plus,large}_patch16_224.pt`",
        outputs: [
          "mlm_logits", "itm_logits", "image_embedding", "text_embedding", "image_vl_embedding", "text_vl_embedding",
        ], fixtures: ["pretraining"]),
      row("vqa", "`vlmo_*_patch16_480_vqa.pt`", outputs: ["logits"], fixtures: ["vqa", "absolute"]),
      row(
        "nlvr2", "`vlmo_*_patch16_384_nlvr2.pt`", inputs: ["image", "image2", "text", "padding_mask"],
        outputs: ["logits"], fixtures: ["nlvr2"]),
      row(
        "retrieval", "`vlmo_*_patch16_384_{coco,f30k}.pt`", outputs: ["image_embedding", "text_embedding"],
        fixtures: ["retrieval"]),
      row("features", "any of them without its head", outputs: ["features", "pooled"], fixtures: ["features"]),
    ]
  }
}
