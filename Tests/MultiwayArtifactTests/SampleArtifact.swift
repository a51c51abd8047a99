import Foundation
import MultiwayArtifact
import MultiwayCore
import MultiwayGGUF
import MultiwayGraph
import MultiwayTestSupport

/// A folder of its own that goes away with the last reference.
final class ScratchFolder {
  let url: URL

  init() throws {
    url = FileManager.default.temporaryDirectory.appendingPathComponent("multiway-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  func path(_ name: String) -> String { url.appendingPathComponent(name).path }

  func bytes(_ name: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: url.appendingPathComponent(name))) }

  func write(_ bytes: [UInt8], to name: String) throws -> MappedFile {
    try Data(bytes).write(to: url.appendingPathComponent(name))
    return try MappedFile(path: path(name))
  }

  func names() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: url.path).sorted() }
}

/// A graph that uses every op, with seeded weights.
enum SampleArtifact {
  static let width = 8

  private struct Builder {
    var graph = Graph()
    var generator = SeededGenerator(seed: 42)

    mutating func constant(_ name: String, _ shape: Shape, _ role: Role, dtype: DType = .f32) -> ConstantID {
      let floats = generator.floats(shape.elementCount)
      let stored = TensorExpression.stored(StoredTensor(name: name, dtype: .f32, shape: shape, elements: floats))
      return graph.addConstant(
        Constant(name: name, role: role, modality: .shared, data: dtype == .f32 ? stored : .cast(stored, dtype)))
    }

    mutating func add(_ op: Op, _ inputs: ValueID..., name: String, role: Role? = nil) throws -> ValueID {
      try graph.add(op, inputs, names: [name], role: role, modality: .shared)[0]
    }

    mutating func quantized(_ name: String, outputs: Int, inputs: Int) -> Op {
      let matrix = QuantizedMatrix(
        .stored(
          StoredTensor(
            name: name, dtype: .f32, shape: [outputs, inputs], elements: generator.floats(outputs * inputs))))
      let ids = QuantizedMatrix.Component.allCases.map { component in
        graph.addConstant(
          Constant(
            name: "\(name).\(component.rawValue)", role: .feedForwardIn, modality: .vision,
            data: .quantized(matrix, component)))
      }
      return .quantizedLinear(
        QuantizedLinear(
          panels: ids[0], scales: ids[1], sums: ids[2], bias: constant("\(name).bias", [outputs], .feedForwardIn),
          inputs: inputs, outputs: outputs))
    }
  }

  static func graph() throws -> Graph {
    var builder = Builder()
    let width = SampleArtifact.width
    let image = builder.graph.addInput("image", ValueType(.f32, [.symbol("batch"), 1, 4, 4]))
    let text = builder.graph.addInput("text", ValueType(.i64, [.symbol("batch"), .symbol("text_tokens")]))
    let mask = builder.graph.addInput("padding_mask", ValueType(.u8, [.symbol("batch"), .symbol("text_tokens")]))
    let patches = try builder.add(.patchify(size: 2), image, name: "patches")
    let patchWeight = builder.constant("patch.weight", [width, 4], .patchEmbedding, dtype: .f16)
    let embedded = try builder.add(
      .linear(weight: patchWeight, bias: nil), patches, name: "embedded", role: .patchEmbedding)
    let token = builder.constant("class.token", [width], .classToken)
    var vision = try builder.add(.prependToken(token), embedded, name: "vision.tokens")
    let table = builder.constant("text.table", [5, width], .tokenEmbedding, dtype: .bf16)
    var words = try builder.add(.embedding(table: table), text, name: "text.embedded")
    let positions = builder.constant("text.positions", [6, width], .positions)
    words = try builder.add(.addPositions(table: positions, firstRow: 2), words, name: "text.placed")
    words = try builder.add(.zeroPadding, words, mask, name: "text.tokens")
    let norm = Op.layerNorm(
      weight: builder.constant("norm.weight", [width], .attentionNorm),
      bias: builder.constant("norm.bias", [width], .attentionNorm), epsilon: 1e-5)
    vision = try builder.add(norm, vision, name: "vision.normed", role: .attentionNorm)
    let query = try builder.add(.scale(by: 0.3), vision, name: "vision.query")
    let attended = try builder.graph.add(
      .attention(Attention(heads: 2, isPadded: true)), [query, vision, vision, words, words, words, mask],
      names: ["vision.attended", "text.attended"], modality: .shared)
    let joined = try builder.add(.joinTokens, attended[0], attended[1], name: "joined")
    let hidden = try builder.add(
      builder.quantized("hidden", outputs: 70, inputs: width), attended[0], name: "hidden", role: .feedForwardIn)
    let active = try builder.add(.gelu, hidden, name: "active")
    let mean = try builder.add(.meanTokens(first: 1), active, name: "mean")
    let first = try builder.add(.selectToken(0), joined, name: "first")
    let bounded = try builder.add(.tanh, first, name: "bounded")
    let sum = try builder.add(.add, bounded, first, name: "sum")
    let unit = try builder.add(.normalizeL2, sum, name: "unit")
    builder.graph.outputs = [GraphOutput(name: "features", value: mean), GraphOutput(name: "embedding", value: unit)]
    return builder.graph
  }

  static let metadata = ArtifactMetadata(
    architecture: "beit3", name: "sample", license: "MIT",
    hyperparameters: [
      Hyperparameter("block_count", .u32(1)), Hyperparameter("attention.layer_norm_epsilon", .f32(1e-5)),
      Hyperparameter("vision.image_mean", .array(.f32([0.5, 0.5, 0.5]))),
    ],
    preprocessing: ["size": .integer(4)], labels: ["cat", "dog"], recipe: ["name": .string("int8")],
    sources: [SourceFile(path: "/somewhere/model.pth", byteCount: 1234)], toolVersion: "0.1.0")

  static let inputs: [String: TensorValue] = [
    "image": TensorValue([1, 1, 4, 4], (0..<16).map { Float($0) / 16 }),
    "text": TensorValue([1, 3], integers: [0, 4, 2]), "padding_mask": TensorValue([1, 3], integers: [0, 0, 1]),
  ]

  /// Writes the sample and gives its path.
  static func write(in folder: ScratchFolder, name: String = "sample.gguf") throws -> String {
    try ArtifactWriter.write(try graph(), metadata: metadata, to: folder.path(name), overwrite: false)
    return folder.path(name)
  }
}
