import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayTestSupport
import Testing

/// int8 folders in the form of compressed-tensors: what the library gives back is the int8 value times its row's scale.
@Suite struct CompressedTensorsTests {
  private let bench: Workbench

  init() throws { bench = try Workbench() }

  private func quantize(_ path: String, layout: String? = nil, recipe: Recipe = Recipes.int8) throws -> ConversionReport
  {
    try Conversions.quantizeToFolder(
      try LoadedModel(path: path), recipe: recipe, layout: layout, to: bench.folder.path("out"), overwrite: false)
  }

  private func configuration() throws -> JSONValue {
    try #require(try JSONParser.parse(try bench.folder.bytes("out/config.json"))["quantization_config"])
  }

  /// A vision transformer of one block whose second feed-forward layer has rows that are cut into two groups.
  private func wide() throws -> String {
    var generator = SeededGenerator(seed: 1)
    func tensor(_ name: String, _ shape: Shape) -> StoredTensor {
      let values = (0..<shape.elementCount).map { _ in Float.random(in: -1...1, using: &generator) }
      return StoredTensor(name: name, dtype: .f32, shape: shape, elements: values)
    }
    let block = [
      ("norm1.weight", [8]), ("norm1.bias", [8]), ("attn.qkv.weight", [24, 8]), ("attn.q_bias", [8]),
      ("attn.v_bias", [8]),
      ("attn.relative_position_bias_table", [12, 2]), ("attn.proj.weight", [8, 8]), ("attn.proj.bias", [8]),
      ("norm2.weight", [8]), ("norm2.bias", [8]), ("mlp.fc1.weight", [800, 8]), ("mlp.fc1.bias", [800]),
      ("mlp.fc2.weight", [8, 800]), ("mlp.fc2.bias", [8]), ("gamma_1", [8]), ("gamma_2", [8]),
    ].map { tensor("blocks.0." + $0.0, Shape($0.1)) }
    let others = [
      tensor("cls_token", [1, 1, 8]), tensor("patch_embed.proj.weight", [8, 3, 4, 4]),
      tensor("patch_embed.proj.bias", [8]),
      tensor("fc_norm.weight", [8]), tensor("fc_norm.bias", [8]), tensor("head.weight", [5, 8]),
      tensor("head.bias", [5]),
    ]
    let path = bench.folder.path("wide.safetensors")
    try SafetensorsWriter.write(block + others, to: path)
    return path
  }

  /// By definition: a scale is the 127th part of the largest element of a row's group, a value is the nearest multiple, even in ties.
  @Test(arguments: ["timm", "huggingface"])
  func valuesTimesScalesAreTheWeights(layout: String) throws {
    let source = try wide()
    let report = try quantize(source, layout: layout)
    #expect(report.notes.contains { $0.hasPrefix(layout == "timm" ? "4 layers" : "6 layers") })
    _ = try Conversions.convert(
      try ModelFile.open(source), options: InputOptions(), layout: layout, dtype: nil,
      to: bench.folder.path("f.safetensors"),
      overwrite: false)
    let (found, expected) = (try bench.tensors("out"), try bench.tensors("f.safetensors"))
    var layers = 0
    for (name, tensor) in expected {
      let copy = try #require(found[name])
      guard copy.dtype == .i8 else {
        #expect(try copy.plainBytes == tensor.plainBytes, "\(name)")
        continue
      }
      layers += 1
      let scales = try #require(found[name.dropLast("weight".count) + "weight_scale"])
      let (rows, columns) = (tensor.shape[0], tensor.shape[1])
      let groups = columns > 768 ? 2 : 1
      #expect(scales.shape == [rows, groups])
      let (weights, values, factors) = (try tensor.floats(), try copy.integers(), try scales.floats())
      let length = columns / groups
      for group in 0..<rows * groups {
        let range = group * length..<(group + 1) * length
        let largest = weights[range].map(abs).max() ?? 0
        #expect(factors[group] == largest / 127)
        for index in range where abs(Float(values[index]) * factors[group] - weights[index]) > factors[group] * 0.5001 {
          Issue.record("\(name)[\(index)]: \(values[index]) · \(factors[group]) for \(weights[index])")
        }
      }
      #expect(values.allSatisfy { abs($0) <= 127 })
    }
    #expect(layers * 2 + (expected.count - layers) == found.count)
  }

  /// Groups of another length are named by patterns: in the names of the file, and in those that transformers has in memory.
  @Test func theConfigurationNamesEveryLayer() throws {
    _ = try quantize(try wide(), layout: "huggingface")
    let configuration = try configuration()
    #expect(configuration["quant_method"]?.string == "compressed-tensors")
    #expect(configuration["format"]?.string == "int-quantized")
    #expect(configuration["ignore"] == .array([.string("classifier")]))
    let groups = try #require(configuration["config_groups"]?.object?.members.map(\.value))
    #expect(groups.count == 2)
    #expect(groups[0]["targets"] == .array([.string("Linear")]))
    #expect(groups[0]["weights"]?["strategy"]?.string == "channel")
    #expect(groups[1]["weights"]?["group_size"]?.integer == 400)
    #expect(
      groups[1]["targets"]
        == .array([
          .string(#"re:beit\.encoder\.layer\.\d+\.output\.dense$"#), .string(#"re:beit\.layers\.\d+\.mlp\.fc2$"#),
        ]))
    #expect(groups.allSatisfy { $0["input_activations"]?["strategy"]?.string == "token" })
  }

  @Test func beit3KeepsItsKeys() throws {
    _ = try quantize(Fixtures.path("tiny/classification.pth"))
    let found = try bench.tensors("out")
    #expect(found["beit3.encoder.layers.0.ffn.A.fc1.weight"]?.dtype == .i8)
    #expect(found["beit3.encoder.layers.0.ffn.A.fc1.weight_scale"]?.shape == [48, 1])
    #expect(found["beit3.vision_embed.proj.weight"]?.dtype == .f32)
    #expect(try configuration()["ignore"]?.array?.contains(.string("head")) == true)
  }

  @Test func whatCannotBeIsRefused() throws {
    let source = Fixtures.path("tiny/classification.pth")
    expect(ConversionErrorCode.usage) { _ = try quantize(source, recipe: Recipes.f16) }
    _ = try bench.artifact("tiny/classification", Recipes.f32, name: "model.gguf")
    expect(ConversionErrorCode.usage) { _ = try quantize(bench.folder.path("model.gguf")) }
    #expect(try bench.folder.names() == ["model.gguf"])
  }
}
