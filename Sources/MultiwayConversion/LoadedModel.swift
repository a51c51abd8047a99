import MultiwayArtifact
import MultiwayCheckpoint
public import MultiwayCore
public import MultiwayGraph
import MultiwayGGUF
public import MultiwayModels
import MultiwayParity

/// A model that can be run, whatever file it came from.
public struct LoadedModel: Sendable {
  /// The file.
  public let file: ModelFile
  /// The model of a checkpoint, nil for an artifact.
  public let model: Model?
  /// The graph.
  public var graph: Graph
  /// Which state dict of the file it is, as the user asked for it; nil for the default one.
  let stateDict: String?

  /// Opens a file and finds its model.
  public init(path: String, options: InputOptions = InputOptions()) throws {
    try self.init(try ModelFile.open(path), options: options)
  }

  /// Finds the model of a file.
  public init(_ file: ModelFile, options: InputOptions = InputOptions()) throws {
    self.file = file
    stateDict = options.stateDict
    switch file {
    case .artifact(let artifact):
      model = nil
      graph = artifact.graph
    case .checkpoint(let checkpoint):
      let stateDict = try checkpoint.stateDict(named: options.stateDict)
      let model = try Architectures.load(stateDict, of: checkpoint, options: options.model)
      self.model = model
      graph = model.graph
    }
  }

  /// A line for people.
  public var summary: String {
    switch file {
    case .artifact(let artifact): artifact.metadata.name
    case .checkpoint: model?.summary ?? ""
    }
  }

  /// The task's name: `classification`, `features`, …
  public var task: String {
    switch file {
    case .artifact(let artifact): artifact.metadata.string("task") ?? ""
    case .checkpoint: model?.task ?? ""
    }
  }

  /// The sizes of the model as text, for people.
  public var hyperparameters: [(name: String, value: String)] {
    switch file {
    case .artifact(let artifact):
      artifact.metadata.hyperparameters.map { ($0.key, LoadedModel.text($0.value)) }
    case .checkpoint: (model?.hyperparameters ?? []).map { ($0.name, $0.value.description) }
    }
  }

  /// A hyper-parameter for people.
  static func text(_ value: GGUFValue) -> String {
    let text = value.integer.map { String($0) } ?? value.string ?? value.number.map { String(Float($0)) }
    return text ?? (value.numbers ?? []).map { String(Float($0)) }.joined(separator: ", ")
  }

  /// The tensors of the model as they are stored, under the names of the file's own layout.
  public var storedTensors: [StoredTensor] {
    switch file {
    case .artifact(let artifact): artifact.storedTensors
    case .checkpoint: model?.parameters.stored.map(\.tensor) ?? []
    }
  }

  /// The number of parameters in the file, those that the graph does not reach included.
  public var parameterCount: Int { model?.parameters.elementCount ?? graph.parameterCount }

  /// What was assumed because the file does not tell it.
  public var assumptions: [String] { model?.assumptions ?? [] }

  /// What was left out or undone on the way, for people.
  public var notes: [String] { model?.notes ?? [] }

  /// The recipe that made an artifact; for a checkpoint what its dtype promises.
  public var recipe: Recipe {
    get throws {
      if case .artifact(let artifact) = file, !artifact.metadata.recipe.members.isEmpty {
        return try Recipe(json: .object(artifact.metadata.recipe), file: artifact.path)
      }
      let types = Set(graph.constants.filter { $0.data.shape.rank == 2 }.map(\.data.dtype))
      if types.contains(.bf16) { return Recipes.bf16 }
      return types.contains(.f16) ? Recipes.f16 : Recipes.f32
    }
  }

  /// The metadata of an artifact that holds `graph`, which a recipe made of this model. Sizes of a modality that is gone go too.
  func metadata(of graph: Graph, recipe: Recipe) -> ArtifactMetadata {
    var metadata = originalMetadata
    metadata.sources = file.sourceFiles
    metadata.sourceMetadata = file.sourceMetadata
    metadata.license = metadata.license ?? file.license
    metadata.recipe = recipe.json
    metadata.certificate = nil
    metadata.toolVersion = MultiwayVersion.current
    for modality in [Modality.vision, .text] where !graph.constants.contains(where: { $0.modality == modality }) {
      metadata.hyperparameters.removeAll { $0.key.hasPrefix(modality.rawValue + ".") }
      if modality == .vision { metadata.preprocessing = nil }
    }
    return metadata
  }

  private var originalMetadata: ArtifactMetadata {
    switch file {
    case .artifact(let artifact): return artifact.metadata
    case .checkpoint:
      return ArtifactMetadata(
        architecture: model?.architecture ?? "", name: summary, hyperparameters: artifactParameters,
        preprocessing: model?.preprocessing?.json,
        toolVersion: MultiwayVersion.current)
    }
  }

  private var artifactParameters: [MultiwayArtifact.Hyperparameter] {
    var parameters = (model?.hyperparameters ?? []).map { name, value in
      switch value {
      case .integer(let number): Hyperparameter(name, .u32(UInt32(clamping: number)))
      case .real(let number): Hyperparameter(name, .f32(number))
      case .text(let text): Hyperparameter(name, .string(text))
      }
    }
    parameters.append(Hyperparameter("task", .string(model?.task ?? "")))
    if let preprocessing = model?.preprocessing {
      parameters.append(Hyperparameter("vision.image_mean", .array(.f32(preprocessing.mean))))
      parameters.append(Hyperparameter("vision.image_std", .array(.f32(preprocessing.standardDeviation))))
    }
    return parameters
  }
}

extension ImagePreprocessing {
  /// The preprocessing as an artifact holds it.
  var json: JSONObject {
    [
      "image_size": .integer(size), "resize": .string(cropsCentre ? "shorter_side_then_centre_crop" : "both_sides"),
      "crop_fraction": .real(Double("\(cropFraction)") ?? 1), "interpolation": .string(interpolation),
      "antialias": .bool(true), "rescale": .real(1.0 / 255),
      "mean": .array(mean.map { .real(Double("\($0)") ?? 0) }),
      "std": .array(standardDeviation.map { .real(Double("\($0)") ?? 0) }),
    ]
  }
}
