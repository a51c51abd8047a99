public import MultiwayCore
public import MultiwayGGUF

/// A number or a word about the model, such as `block_count` or `vision.image_mean`.
public struct Hyperparameter: Hashable, Sendable {
  /// The key without the architecture before it.
  public var key: String
  /// The value.
  public var value: GGUFValue

  /// Makes a hyper-parameter.
  public init(_ key: String, _ value: GGUFValue) {
    self.key = key
    self.value = value
  }
}

/// What an artifact says about itself beside its graph (Formats/gguf/README-artifact.md).
public struct ArtifactMetadata: Hashable, Sendable {
  /// `beit3`, `beit`, `vit`.
  public var architecture: String
  /// The model's name, for people.
  public var name: String
  /// An SPDX identifier, or the licence's name.
  public var license: String?
  /// The sizes of the model; each is written under `<architecture>.<key>`.
  public var hyperparameters: [Hyperparameter]
  /// How an image becomes the input.
  public var preprocessing: JSONObject?
  /// The names of the classes, in the order of the logits; empty where there are none.
  public var labels: [String]
  /// The recipe that made the artifact, so that it can be made again.
  public var recipe: JSONObject
  /// The files that the weights come from.
  public var sources: [SourceFile]
  /// What the source says about itself: plain facts beside its tensors.
  public var sourceMetadata: JSONObject
  /// What `verify --certify` found; nil before.
  public var certificate: JSONValue?
  /// The version of multiway that wrote the artifact.
  public var toolVersion: String

  /// Describes an artifact.
  public init(
    architecture: String, name: String, license: String? = nil, hyperparameters: [Hyperparameter] = [],
    preprocessing: JSONObject? = nil, labels: [String] = [], recipe: JSONObject = [:], sources: [SourceFile] = [],
    sourceMetadata: JSONObject = [:], certificate: JSONValue? = nil, toolVersion: String
  ) {
    self.architecture = architecture
    self.name = name
    self.license = license
    self.hyperparameters = hyperparameters
    self.preprocessing = preprocessing
    self.labels = labels
    self.recipe = recipe
    self.sources = sources
    self.sourceMetadata = sourceMetadata
    self.certificate = certificate
    self.toolVersion = toolVersion
  }

  private subscript(key: String) -> GGUFValue? { hyperparameters.first { $0.key == key }?.value }
  /// A whole number among the hyper-parameters.
  public func integer(_ key: String) -> Int? { self[key]?.integer }
  /// A number among the hyper-parameters.
  public func number(_ key: String) -> Double? { self[key]?.number }
  /// A list of numbers among the hyper-parameters.
  public func numbers(_ key: String) -> [Double]? { self[key]?.numbers }
  /// A word among the hyper-parameters.
  public func string(_ key: String) -> String? { self[key]?.string }
}

/// The keys of an artifact. The registry is Formats/gguf/README-artifact.md.
enum ArtifactKey {
  static let architecture = "general.architecture"
  static let alignment = "general.alignment"
  static let name = "general.name"
  static let license = "general.license"
  static let fileType = "general.file_type"
  static let quantizationVersion = "general.quantization_version"
  static let format = "multiway.format"
  static let version = "multiway.version"
  static let graph = "multiway.graph"
  static let panelLayout = "multiway.panel_layout"
  static let preprocessing = "multiway.preprocessing"
  static let labels = "multiway.labels"
  static let recipe = "multiway.recipe"
  static let certificate = "multiway.certificate"
}

extension ArtifactMetadata {
  /// The pairs before the graph.
  func leadingPairs() -> [(key: String, value: GGUFValue)] {
    var pairs: [(key: String, value: GGUFValue)] = [
      (ArtifactKey.architecture, .string(architecture)), (ArtifactKey.alignment, .u32(UInt32(Artifact.alignment))),
      (ArtifactKey.name, .string(name)),
    ]
    if let license { pairs.append((ArtifactKey.license, .string(license))) }
    for parameter in hyperparameters { pairs.append(("\(architecture).\(parameter.key)", parameter.value)) }
    return pairs
  }

  /// The pairs after the graph; the certificate is last, so that adding it moves nothing else.
  func trailingPairs(digests: [(key: String, value: GGUFValue)]) -> [(key: String, value: GGUFValue)] {
    var pairs: [(key: String, value: GGUFValue)] = []
    if let preprocessing {
      pairs.append((ArtifactKey.preprocessing, .string(JSONValue.object(preprocessing).text())))
    }
    if !labels.isEmpty { pairs.append((ArtifactKey.labels, .array(.string(labels)))) }
    pairs.append((ArtifactKey.recipe, .string(JSONValue.object(recipe).text())))
    pairs += GGUFDigests.pairs(sources, metadata: sourceMetadata) + digests
    if let certificate { pairs.append((ArtifactKey.certificate, .string(certificate.text()))) }
    return pairs
  }

  /// True for a name whose keys cannot be taken for ours.
  static func isArchitecture(_ name: String) -> Bool {
    !name.isEmpty && !["general.", "multiway."].contains(where: (name + ".").hasPrefix)
  }

  /// Reads the metadata of a container.
  init(_ container: GGUFContainer) throws(ArtifactError) {
    let reader = MetadataReader(container)
    let architecture = try reader.string(ArtifactKey.architecture)
    guard ArtifactMetadata.isArchitecture(architecture) else {
      throw reader.error(ArtifactKey.architecture, "'\(architecture)'", expected: "a model family's name")
    }
    let prefix = architecture + "."
    let parameters = container.metadata.filter { $0.key.hasPrefix(prefix) }
    self.init(
      architecture: architecture, name: try reader.string(ArtifactKey.name),
      license: try reader.optionalString(ArtifactKey.license),
      hyperparameters: parameters.map { Hyperparameter(String($0.key.dropFirst(prefix.count)), $0.value) },
      preprocessing: try reader.optionalObject(ArtifactKey.preprocessing),
      labels: try reader.strings(ArtifactKey.labels), recipe: try reader.optionalObject(ArtifactKey.recipe) ?? [:],
      sources: try reader.sources(),
      sourceMetadata: try reader.optionalObject(GGUFDigests.sourceMetadata) ?? [:],
      certificate: try reader.json(ArtifactKey.certificate),
      toolVersion: try reader.string(ArtifactKey.version))
  }
}

/// Takes typed values out of a container's metadata.
struct MetadataReader {
  private let container: GGUFContainer

  init(_ container: GGUFContainer) { self.container = container }

  func error(_ key: String, _ found: String, expected: String) -> ArtifactError {
    ArtifactError(.malformedMetadata, "the key '\(key)' is \(found)", expected: expected, file: container.file.path)
  }

  func string(_ key: String) throws(ArtifactError) -> String {
    guard let string = try optionalString(key) else { throw error(key, "missing", expected: "a string") }
    return string
  }

  func optionalString(_ key: String) throws(ArtifactError) -> String? {
    guard let value = container[key] else { return nil }
    guard let string = value.string else { throw error(key, "of another type", expected: "a string") }
    return string
  }

  func strings(_ key: String) throws(ArtifactError) -> [String] {
    guard let value = container[key] else { return [] }
    guard let strings = value.strings else { throw error(key, "of another type", expected: "an array of strings") }
    return strings
  }

  func json(_ key: String) throws(ArtifactError) -> JSONValue? {
    guard let text = try optionalString(key) else { return nil }
    do { return try JSONParser.parse(Array(text.utf8)) } catch {
      throw self.error(key, "not JSON: \(error.message)", expected: "JSON")
    }
  }

  func optionalObject(_ key: String) throws(ArtifactError) -> JSONObject? {
    guard let value = try json(key) else { return nil }
    guard let object = value.object else { throw error(key, "of another type", expected: "a JSON object") }
    return object
  }

  func sources() throws(ArtifactError) -> [SourceFile] {
    do throws(GGUFError) {
      return try GGUFDigests.files(container)
    } catch {
      throw ArtifactError(.malformedMetadata, error.diagnosis)
    }
  }
}
