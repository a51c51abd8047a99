public import MultiwayCore
import MultiwayGraph
public import MultiwayParity
public import MultiwayPasses
public import MultiwayQuantization
public import MultiwayRuntime

/// How a model is made small: which layers become int8, how the other matrices are stored, and what the result promises.
public struct Recipe: Sendable {
  /// The name.
  public var name: String
  /// One line for people.
  public var summary: String
  /// The roles of the linear layers that become int8; empty for none.
  var int8Roles: Set<Role>
  /// True where the two products of attention are integers too.
  var quantizesAttention = false
  /// The blocks that the weights of the blocks' other linear layers, and of a vocabulary, are stored in; nil for none.
  var weightBlocks: BlockType?
  /// The storage type of all other matrices; nil keeps each one's own.
  var matrixStorage: DType?
  /// When LayerNorm weights fold into int8 layers.
  var normWeights: FoldNorms.WeightPolicy
  /// What the result is held to by `verify`.
  public var gates: Gates
  /// What the model ran on before it was quantized, in words; nil where it did not.
  var calibration: String?

  /// True where the passes are better for having seen the model run on a few examples.
  public var wantsCalibration: Bool { !int8Roles.isEmpty && normWeights == .whereErrorDoesNotGrow }

  /// What the result is held to where its floating-point layers are computed in `compute`: with bfloat16 products no more than that
  /// arithmetic gives.
  public func gates(computedIn compute: ComputeType) -> Gates {
    guard compute == .bf16 else { return gates }
    return Gates(
      outputSQNR: min(gates.outputSQNR, Recipe.bfloat16Gates.outputSQNR),
      topOneAgreement: min(gates.topOneAgreement, Recipe.bfloat16Gates.topOneAgreement))
  }

  /// Those of bfloat16 storage: 44.4 dB were measured on a model of the base size, 55.5 on the digits.
  private static let bfloat16Gates = Recipes.bf16.gates

  /// The passes, in order.
  public func pipeline(statistics: ActivationStatistics? = nil) throws(PassError) -> PassPipeline {
    var passes: [any Pass] = [RemoveUnreached()]
    if !int8Roles.isEmpty {
      let norms = FoldNorms(weights: normWeights, roles: int8Roles, statistics: statistics)
      passes += [FoldQueryScale(), FoldLayerScale(), norms, QuantizeLinears(roles: int8Roles)]
    }
    if quantizesAttention { passes.append(QuantizeAttention()) }
    if let weightBlocks {
      passes.append(
        QuantizeWeights(weightBlocks, roles: Set(Role.allCases.filter { $0.isBlockLinear || $0 == .vocabulary })))
    }
    if let matrixStorage { passes.append(CastStorage(matrixStorage, keepsBlocks: weightBlocks != nil)) }
    return try PassPipeline(passes)
  }
}

/// The recipes that are known. A new one is a line here.
public enum Recipes {
  /// All of them.
  public static let all: [Recipe] = [int8, int8All, int8Weights, int4, f16, bf16, f32]

  /// The default of `quantize`.
  public static let int8 = Recipe(
    name: "int8",
    summary:
      "int8 in all layers of the blocks and for the vocabulary of captions, fp16 storage for patch embedding, head and tables",
    int8Roles: Set(Role.allCases.filter { $0.isBlockLinear || $0 == .vocabulary }), quantizesAttention: true,
    matrixStorage: .f16,
    normWeights: .whereErrorDoesNotGrow,
    gates: Gates(outputSQNR: 26, layerSQNR: 36, topOneAgreement: 0.98))

  /// Everything linear in int8.
  static let int8All = Recipe(
    name: "int8-all", summary: "int8 in every linear layer, patch embedding and head too; fp16 storage for tables",
    int8Roles: Set(Role.allCases.filter(\.isLinear)),
    quantizesAttention: true, matrixStorage: .f16, normWeights: .whereErrorDoesNotGrow,
    gates: Gates(outputSQNR: 25, layerSQNR: 30, topOneAgreement: 0.97))

  /// Weights of 8 bits, everything else in floating point.
  public static let int8Weights = Recipe(
    name: "int8-weights",
    summary: "weights of the blocks and of a vocabulary in Q8_0 blocks, fp16 storage for the rest, fp32 arithmetic",
    int8Roles: [], weightBlocks: .q8_0, matrixStorage: .f16, normWeights: .never,
    gates: Gates(outputSQNR: 30, layerSQNR: 40, topOneAgreement: 0.93))

  /// Weights of 4 bits.
  public static let int4 = Recipe(
    name: "int4",
    summary: "weights of the blocks and of a vocabulary in Q4_1 blocks, fp16 storage for the rest, fp32 arithmetic",
    int8Roles: [], weightBlocks: .q4_1, matrixStorage: .f16, normWeights: .never,
    gates: Gates(outputSQNR: 10, layerSQNR: 18, topOneAgreement: 0.85))

  /// Half-precision storage.
  public static let f16 = Recipe(
    name: "f16", summary: "fp16 storage, fp32 arithmetic", int8Roles: [], matrixStorage: .f16, normWeights: .never,
    gates: Gates(outputSQNR: 55, layerSQNR: 60, topOneAgreement: 0.995))

  /// bfloat16 storage.
  public static let bf16 = Recipe(
    name: "bf16", summary: "bfloat16 storage, fp32 arithmetic", int8Roles: [], matrixStorage: .bf16,
    normWeights: .never, gates: Gates(outputSQNR: 38, layerSQNR: 42, topOneAgreement: 0.98))

  /// Nothing lost.
  public static let f32 = Recipe(
    name: "f32", summary: "fp32, nothing lost", int8Roles: [], matrixStorage: .f32, normWeights: .never,
    gates: Gates(outputSQNR: 95, layerSQNR: 100, topOneAgreement: 1))

  /// The recipe of a name, or the one in a JSON file of that path.
  public static func find(_ nameOrPath: String) throws -> Recipe {
    if let recipe = all.first(where: { $0.name == nameOrPath }) { return recipe }
    let names = all.map(\.name).joined(separator: ", ")
    guard nameOrPath.contains("/") || nameOrPath.hasSuffix(".json") else {
      throw ConversionError(
        .recipe, "there is no recipe '\(nameOrPath)'", expected: "one of \(names), or a JSON file's path")
    }
    let file = try MappedFile(path: nameOrPath)
    guard file.byteCount <= 1 << 20 else {
      throw ConversionError(
        .recipe, "a recipe of \(file.byteCount) bytes", expected: "a small JSON file", file: nameOrPath)
    }
    do {
      return try Recipe(json: JSONParser.parse(file.bytes.array(of: UInt8.self)), file: nameOrPath)
    } catch let error as JSONError {
      throw ConversionError(
        .recipe, error.message, expected: "a JSON object", file: nameOrPath, byteOffset: error.byteOffset)
    }
  }
}
