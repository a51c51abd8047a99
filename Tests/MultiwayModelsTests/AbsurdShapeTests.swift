import MultiwayCheckpoint
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayTestSupport
import Testing

/// Whatever shape a single tensor claims, binding ends in a model or in an error, never in a trap or an allocation that the file does
/// not justify.
@Suite struct AbsurdShapeTests {
  static let files = [
    "family/beit_classification/unilm.pth", "family/beit_absolute/unilm.pth", "family/beit_pretrained/huggingface",
    "family/vit_classification/timm.safetensors", "family/vit_layer_scale/timm.safetensors",
    "family/data2vec_both_biases/huggingface", "family/beit3_timm/timm.safetensors", "tiny/segmentation/mmseg.pth",
    "tiny/heads/nlvr2.pth", "tiny/heads/captioning.pth", "tiny/heads/retrieval.pth", "vlmo/vqa.pth",
    "vlmo/pretraining.pth", "vlmo/absolute.pth",
  ]

  static let shapes: [Shape] = [
    [], [0], [1], [1 << 62, 0], [1 << 40, 0], [1 << 31, 1 << 31, 0], [0, 1 << 62], [1, 1 << 62, 0],
    [(1 << 30) - 1, 0], [(1 << 30) - 1, (1 << 30) - 1, 0, 0], [0, 0, 0, 0],
  ]

  @Test(arguments: files)
  func anyTensorMayClaimAnything(file: String) throws {
    let checkpoint = try Fixtures.checkpoint(file)
    let tensors = try checkpoint.stateDict().tensors
    // Layers are alike: what the first one may claim, the others may.
    let places = tensors.indices.filter { place in !(1...5).contains { tensors[place].name.contains(".\($0).") } }
    for place in places {
      for (number, shape) in AbsurdShapeTests.shapes.enumerated() {
        var changed = tensors
        let elements = [Float](repeating: 0, count: shape.elementCount)
        changed[place] = StoredTensor(name: tensors[place].name, dtype: .f32, shape: shape, elements: elements)
        do throws(ModelError) {
          _ = try Architectures.load(
            StateDict(name: "model", tensors: changed), of: checkpoint,
            options: ModelOptions(heads: 2, imageSize: (place + number) % 2 == 0 ? nil : 64))
        } catch {
          #expect(error.category == .data)
        }
      }
    }
  }
}
