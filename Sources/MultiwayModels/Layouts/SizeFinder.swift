import MultiwayCore

/// Finds a model's sizes from the shapes of its tensors, looked up by canonical names through a key map.
struct SizeFinder {
  /// What no size may reach: an empty tensor may claim any dimension, and a size that no file can fill is no size.
  static let limit = 1 << 30

  private let keyMap: KeyMap
  private let shapes: [String: Shape]
  private let file: String

  init(_ tensors: [StoredTensor], keyMap: KeyMap, file: String) {
    self.keyMap = keyMap
    shapes = Dictionary(tensors.map { ($0.name, $0.shape) }, uniquingKeysWith: { first, _ in first })
    self.file = file
  }

  /// True where the checkpoint has the parameter.
  func has(_ name: String) -> Bool { keyMap.key(name).map { shapes[$0] != nil } ?? false }

  /// The first dimension of a key that belongs to no parameter, nil where it is absent or absurd.
  func rows(ofKey key: String) -> Int? {
    shapes[key].flatMap { $0.rank > 0 && $0[0] < SizeFinder.limit ? $0[0] : nil }
  }

  /// True where the checkpoint has that very key.
  func hasKey(_ key: String) -> Bool { shapes[key] != nil }

  /// The shape under a canonical name, nil where it is absent or absurd.
  subscript(name: String) -> Shape? {
    guard let shape = keyMap.key(name).flatMap({ shapes[$0] }), shape.rank > 0,
      shape.dimensions.allSatisfy({ $0 < SizeFinder.limit })
    else { return nil }
    return shape
  }

  /// The shape of a parameter that tells a size.
  func require(_ name: String, rank: Int) throws(ModelError) -> Shape {
    guard let shape = keyMap.key(name).flatMap({ shapes[$0] }) else {
      throw ModelError(
        .keysDoNotFit, "the key \(keyMap.key(name) ?? name) is missing, which tells the size of the model", file: file)
    }
    guard shape.rank == rank, shape.dimensions.allSatisfy({ $0 > 0 && $0 < SizeFinder.limit }) else {
      throw failure(name, shape, "\(rank) dimensions, none of them 0")
    }
    return shape
  }

  /// The error for a shape that tells no size.
  func failure(_ name: String, _ shape: Shape, _ expected: String) -> ModelError {
    ModelError(
      .keysDoNotFit, "the shape is \(shape)", expected: expected, file: file, tensor: keyMap.key(name) ?? name)
  }

  /// One more than the largest layer number of any key, so that a layer that lacks a key is reported as such and not cut off.
  /// A layer has more than eight keys: a number beyond what the file can hold is a stray key's.
  /// - Parameter name: a parameter of the first layer, whose key shows where layers are numbered.
  func layerCount(_ name: String = "layers.0.vision.attention_norm.weight") -> Int {
    let first = keyMap.key(name) ?? ""
    guard let number = first.firstRange(of: ".0.") else { return 0 }
    let marker = first[..<first.index(after: number.lowerBound)]
    let limit = max(1, shapes.count / 8)
    let numbers = shapes.keys.filter { $0.hasPrefix(marker) }
      .compactMap { Int($0.dropFirst(marker.count).prefix { $0 != "." }) }
    return (numbers.filter { $0 >= 0 && $0 < limit }.max() ?? -1) + 1
  }

  /// Patches along a side of the square image, from the number of rows of a table that has one a patch and some more.
  func gridSize(_ name: String, rows: Int, extra: Int) throws(ModelError) -> Int {
    let grid = Int(Double(max(0, rows - extra)).squareRoot().rounded())
    guard grid > 0, grid < 1 << 15, grid * grid + extra == rows else {
      throw ModelError(
        .keysDoNotFit, "a table of \(rows) rows", expected: "\(extra) more than a square number", file: file,
        tensor: keyMap.key(name) ?? name)
    }
    return grid
  }
}

/// Finds the number of attention heads, which no tensor's shape tells in most models.
enum HeadCount {
  static func find(
    width: Int, metadata: JSONObject, options: ModelOptions, file: String
  ) throws(ModelError) -> (Int, [String]) {
    let stated = options.heads ?? recorded(in: metadata)
    let heads = stated ?? assumed(width: width)
    guard heads > 0, width % heads == 0 else {
      throw ModelError(
        .keysDoNotFit, "a width of \(width) does not divide into \(heads) heads",
        remedy: "pass --heads with the right number",
        file: file)
    }
    if stated != nil || known[width] != nil { return (heads, []) }
    return (
      heads,
      ["\(heads) attention heads of size \(width / heads): no key tells their number; pass --heads if it is another"]
    )
  }

  /// The widths of released models: tiny and small of ViT and DeiT, BEiT-2's 24×544, base, large, huge, and giant.
  private static let known = [192: 3, 384: 6, 544: 16, 768: 12, 1024: 16, 1280: 16, 1408: 16]

  /// Heads of 64, as in nearly every vision transformer, but for narrow models, whose heads are commonly 32.
  private static func assumed(width: Int) -> Int {
    if let heads = known[width] { return heads }
    let size = width >= 384 ? 64 : 32
    return width % size == 0 ? width / size : 1
  }

  /// What a training run's `args` or a configuration say.
  private static func recorded(in metadata: JSONObject) -> Int? {
    for name in ["encoder_attention_heads", "num_attention_heads", "num_heads", "heads"] {
      if let heads = RecordedValue.integer(name, in: metadata) { return heads }
    }
    return nil
  }
}

/// What a checkpoint's metadata say about its model: Hugging Face's `config.json`, a training run's `args`, or safetensors metadata,
/// which hold strings only.
enum RecordedValue {
  private static func find(_ name: String, in metadata: JSONObject) -> JSONValue? {
    for source in [metadata["config"]?.object, metadata["args"]?.object, metadata] {
      if let value = source?[name] { return value }
    }
    return nil
  }

  static func integer(_ name: String, in metadata: JSONObject) -> Int? {
    let value = find(name, in: metadata)
    return value?.integer ?? value?.string.flatMap { Int($0) }
  }

  static func number(_ name: String, in metadata: JSONObject) -> Double? {
    let value = find(name, in: metadata)
    return value?.number ?? value?.integer.map { Double($0) } ?? value?.string.flatMap { Double($0) }
  }

  static func string(_ name: String, in metadata: JSONObject) -> String? { find(name, in: metadata)?.string }

  static func bool(_ name: String, in metadata: JSONObject) -> Bool? {
    let value = find(name, in: metadata)
    return value?.bool ?? value?.string.flatMap { Bool($0) }
  }

  /// A list of numbers, or `4,6,8,12`.
  static func integers(_ name: String, in metadata: JSONObject) -> [Int]? {
    guard let value = find(name, in: metadata) else { return nil }
    if let values = value.array {
      let integers = values.compactMap(\.integer)
      return integers.count == values.count ? integers : nil
    }
    guard let parts = value.string?.split(separator: ",", omittingEmptySubsequences: false) else { return nil }
    let integers = parts.compactMap { Int($0) }
    return integers.count == parts.count ? integers : nil
  }
}
