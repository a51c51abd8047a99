public import MultiwayCore
import MultiwayGraph

/// The JSON files beside the weights of a model's folder, by which loaders find what no tensor tells.
public struct ModelConfiguration: Sendable {
  /// `config.json`: what the code base of the layout builds the model from.
  public var model: JSONObject
  /// `preprocessor_config.json`: how images become tensors; nil for a model without images.
  public var preprocessor: JSONObject?
  /// What the files cannot say, for people.
  public var notes: [String] = []
}

extension Model {
  /// The JSON files for weights in a key layout.
  ///
  /// transformers' for `huggingface`, timm's for `timm`. For all else, as BEiT-3 in unilm's keys, no loader has a form: then the file
  /// says what this tool reads back, under the names that transformers has for them.
  /// - Parameters:
  ///   - layout: the layout of the weights.
  ///   - dtype: the dtype that most of them have, where transformers has a name for it.
  ///   - original: the `config` and `preprocessor_config` that lay beside the source; what they say beyond the model's sizes, as labels, stays.
  public func configuration(layout: String, dtype: DType?, original: JSONObject) -> ModelConfiguration {
    let facts = ConfigurationFacts(self)
    var configuration =
      switch layout {
      case "huggingface": TransformersConfiguration.make(facts, original: original["config"]?.object)
      case "timm": TimmConfiguration.make(facts)
      default: ModelConfiguration(model: facts.plain)
      }
    if layout != "timm", let name = ConfigurationFacts.torchName(dtype) { configuration.model["dtype"] = .string(name) }
    configuration.preprocessor = preprocessing?.processorConfiguration(for: architecture)
    return configuration
  }
}

/// What configurations are made of: sizes by name, and which parameters there are.
struct ConfigurationFacts {
  let model: Model
  let depth: Int
  let width: Int
  let heads: Int
  let feedForwardWidth: Int
  let channels: Int
  let patchSize: Int
  let imageSize: Int
  let epsilon: Float

  init(_ model: Model) {
    self.model = model
    let values = Dictionary(model.hyperparameters.map { ($0.name, $0.value) }) { first, _ in first }
    func integer(_ name: String) -> Int { if case .integer(let value)? = values[name] { value } else { 0 } }
    depth = integer("block_count")
    width = integer("embedding_length")
    heads = integer("attention.head_count")
    feedForwardWidth = integer("feed_forward_length")
    channels = integer("vision.channel_count")
    patchSize = integer("vision.patch_size")
    imageSize = integer("vision.image_size")
    if case .real(let value)? = values["attention.layer_norm_epsilon"] { epsilon = value } else { epsilon = 0 }
  }

  /// True where the model has the parameter.
  func has(_ name: String) -> Bool { model.parameters[name] != nil }

  /// The rows of a matrix, 0 where there is none.
  func rows(_ name: String) -> Int { model.parameters[name]?.data.shape[0] ?? 0 }

  /// A hyper-parameter that is a list of numbers.
  func integers(_ name: String) -> [Int]? {
    guard case .text(let text)? = model.hyperparameters.first(where: { $0.name == name })?.value else { return nil }
    return text.split(separator: ",").compactMap { Int($0.filter { $0 != " " }) }
  }

  /// The sizes under transformers' names.
  var sizes: JSONObject {
    [
      "hidden_size": .integer(width), "num_hidden_layers": .integer(depth), "num_attention_heads": .integer(heads),
      "intermediate_size": .integer(feedForwardWidth), "hidden_act": .string("gelu"),
      "layer_norm_eps": .real(real(epsilon)),
      "image_size": .integer(imageSize), "patch_size": .integer(patchSize), "num_channels": .integer(channels),
    ]
  }

  /// The configuration of a model that no loader has a form for.
  var plain: JSONObject {
    var object: JSONObject = ["model_type": .string(model.architecture), "task": .string(model.task)]
    for (key, value) in sizes.members { object[key] = value }
    if let taps = integers("segmentation.taps") { object["feature_taps"] = .array(taps.map { .integer($0) }) }
    if let scales = integers("segmentation.pool_scales") {
      object["pool_scales"] = .array(scales.map { .integer($0) })
    }
    return object
  }

  /// A number as it is written in decimal, not as the double that is nearest to the single: 1e-5 and not 9.99999974e-6.
  func real(_ value: Float) -> Double { Double("\(value)") ?? Double(value) }

  /// PyTorch's name of a dtype of weights.
  static func torchName(_ dtype: DType?) -> String? {
    switch dtype {
    case .f32: "float32"
    case .f16: "float16"
    case .bf16: "bfloat16"
    default: nil
    }
  }
}

extension ImagePreprocessing {
  /// `preprocessor_config.json` as transformers' image processors read it.
  func processorConfiguration(for architecture: String) -> JSONObject {
    let side = cropsCentre ? Int((Float(size) / cropFraction).rounded(.down)) : size
    let square: JSONObject = ["height": .integer(size), "width": .integer(size)]
    var object: JSONObject = [
      "image_processor_type": .string(
        ["beit", "data2vec_vision"].contains(architecture) ? "BeitImageProcessor" : "ViTImageProcessor"),
      "do_resize": .bool(true), "size": .object(cropsCentre ? ["shortest_edge": .integer(side)] : square),
      "resample": .integer(ImagePreprocessing.filters.firstIndex(of: interpolation) ?? 3),
      "do_center_crop": .bool(cropsCentre),
    ]
    if cropsCentre { object["crop_size"] = .object(square) }
    object["do_rescale"] = .bool(true)
    object["rescale_factor"] = .real(1.0 / 255)
    object["do_normalize"] = .bool(true)
    object["image_mean"] = .array(mean.map { .real(Double("\($0)") ?? 0) })
    object["image_std"] = .array(standardDeviation.map { .real(Double("\($0)") ?? 0) })
    return object
  }

  /// PIL's filters, each at the place of its number.
  private static let filters = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]

  /// The name of a filter by PIL's number of it.
  static func filter(number: Int) -> String? { filters.indices.contains(number) ? filters[number] : nil }
}
