public import MultiwayCore
import MultiwayGraph
import MultiwayParity
import MultiwayPasses

extension Recipe {
  /// The recipe as JSON, in the form that a recipe file has; artifacts carry it.
  public var json: JSONObject {
    var object: JSONObject = [
      "name": .string(name), "summary": .string(summary),
      "int8_roles": .array(Role.allCases.filter { int8Roles.contains($0) }.map { .string($0.rawValue) }),
      "int8_attention": .bool(quantizesAttention), "matrix_storage": .string(matrixStorage?.shortName ?? "keep"),
      "fold_norm_weights": .string(normWeights.rawValue), "gates": .object(gates.json),
    ]
    if let weightBlocks { object["weights"] = .string(weightBlocks.rawValue) }
    if let calibration { object["calibration"] = .string(calibration) }
    return object
  }

  /// Reads a recipe file:
  ///
  ///     {"name": "mine", "base": "int8", "int8_roles": ["feedForwardIn", "feedForwardOut"],
  ///      "int8_attention": false, "weights": "q4_1", "matrix_storage": "f16",
  ///      "fold_norm_weights": "measured", "gates": {"output_sqnr_db": 30, "top_one_agreement": 0.98}}
  ///
  /// What is left out comes from `base`, which is int8 unless it is named.
  public init(json: JSONValue, file: String?) throws(ConversionError) {
    let reader = RecipeReader(file: file)
    guard let object = json.object else { throw reader.error("not an object", "a JSON object") }
    let known = [
      "name", "base", "summary", "int8_roles", "int8_attention", "weights", "matrix_storage", "fold_norm_weights",
      "gates", "calibration",
    ]
    for (key, _) in object.members where !known.contains(key) {
      throw reader.error("an unknown key '\(key)'", "one of " + known.joined(separator: ", "))
    }
    let base = object["base"]?.string ?? "int8"
    guard let recipe = Recipes.all.first(where: { $0.name == base }) else {
      throw reader.error("an unknown base '\(base)'", "one of " + Recipes.all.map(\.name).joined(separator: ", "))
    }
    self = recipe
    name = object["name"]?.string ?? "custom"
    if let text = object["summary"]?.string { summary = text }
    if let roles = object["int8_roles"] { int8Roles = try reader.roles(roles) }
    if let flag = object["int8_attention"] { quantizesAttention = try reader.flag("int8_attention", flag) }
    if let blocks = object["weights"] { weightBlocks = try reader.blocks(blocks) }
    if let storage = object["matrix_storage"] { matrixStorage = try reader.storage(storage) }
    if let policy = object["fold_norm_weights"] { normWeights = try reader.policy(policy) }
    if let text = object["calibration"]?.string { calibration = text }
    if let gates = object["gates"] { self.gates = try reader.gates(gates, over: self.gates) }
  }
}

private struct RecipeReader {
  let file: String?

  func error(_ found: String, _ expected: String) -> ConversionError {
    ConversionError(.recipe, "the recipe holds \(found)", expected: expected, file: file)
  }

  func roles(_ value: JSONValue) throws(ConversionError) -> Set<Role> {
    let linear = Role.allCases.filter(\.isLinear)
    let names = linear.map(\.rawValue).joined(separator: ", ")
    guard let elements = value.array else { throw error("int8_roles that are no array", "an array of \(names)") }
    var roles: Set<Role> = []
    for element in elements {
      guard let name = element.string, let role = Role(rawValue: name), linear.contains(role) else {
        throw error("the role \(element.text())", "one of \(names)")
      }
      roles.insert(role)
    }
    return roles
  }

  func flag(_ key: String, _ value: JSONValue) throws(ConversionError) -> Bool {
    guard case .bool(let flag) = value else { throw error("the \(key) \(value.text())", "true or false") }
    return flag
  }

  func storage(_ value: JSONValue) throws(ConversionError) -> DType? {
    switch value.string {
    case "keep": return nil
    case "f32": return .f32
    case "f16": return .f16
    case "bf16": return .bf16
    default: throw error("the matrix_storage \(value.text())", "keep, f32, f16 or bf16")
    }
  }

  func blocks(_ value: JSONValue) throws(ConversionError) -> BlockType? {
    if value.string == "keep" { return nil }
    let types = BlockType.allCases.filter(\.isComputed)
    guard let type = types.first(where: { $0.rawValue == value.string }) else {
      throw error("the weights \(value.text())", "keep, " + types.map(\.rawValue).joined(separator: " or "))
    }
    return type
  }

  func policy(_ value: JSONValue) throws(ConversionError) -> FoldNorms.WeightPolicy {
    guard let policy = value.string.flatMap(FoldNorms.WeightPolicy.init(rawValue:)) else {
      let names = FoldNorms.WeightPolicy.allCases.map(\.rawValue).joined(separator: ", ")
      throw error("the fold_norm_weights \(value.text())", "one of \(names)")
    }
    return policy
  }

  func gates(_ value: JSONValue, over gates: Gates) throws(ConversionError) -> Gates {
    guard let object = value.object else { throw error("gates that are no object", "an object") }
    var result = gates
    for (key, value) in object.members {
      guard let number = value.number else { throw error("the gate \(key) \(value.text())", "a number") }
      switch key {
      case "output_sqnr_db": result.outputSQNR = number
      case "layer_sqnr_db": result.layerSQNR = number
      case "top_one_agreement": result.topOneAgreement = number
      default: throw error("the gate '\(key)'", "output_sqnr_db, layer_sqnr_db or top_one_agreement")
      }
    }
    return result
  }
}
