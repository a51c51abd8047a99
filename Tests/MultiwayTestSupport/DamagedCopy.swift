import MultiwayCheckpoint
import MultiwayCore

/// Copies of fixtures in which something is wrong.
public enum DamagedCopy {
  /// Writes a fixture (without `.pth`) as safetensors with the elements of one tensor changed, and gives the path.
  public static func write(
    _ fixture: String, _ tensor: String, to path: String, _ change: (inout [Float]) -> Void
  ) throws -> String {
    let checkpoint = try Fixtures.checkpoint(fixture + ".pth")
    var tensors = try checkpoint.stateDict().tensors
    for index in tensors.indices where tensors[index].name == tensor {
      var elements = try tensors[index].floats()
      change(&elements)
      tensors[index] = StoredTensor(name: tensor, dtype: .f32, shape: tensors[index].shape, elements: elements)
    }
    let heads = checkpoint.metadata["args"]?["encoder_attention_heads"]?.integer
    try SafetensorsWriter.write(
      tensors, metadata: heads.map { ["num_attention_heads": String($0)] } ?? [:], to: path)
    return path
  }
}
