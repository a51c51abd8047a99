import MultiwayCore
import MultiwayGraph

extension VisionConfiguration {
  /// The layouts that can hold the model for a task.
  func layouts(task: String) -> [KeyMap] {
    let isMasked = task == "masked_image_modeling"
    let prefix = task == "features" ? "" : "\(family.huggingFacePrefix)."
    let huggingFace = KeyMap.huggingFace(prefix: prefix, isMasked: isMasked)
    switch family {
    case .data2vec: return [decoder == nil ? huggingFace : huggingFace.withUperNet(.transformers)]
    case .vit:
      let style = KeyMap.BlocksStyle(hasFusedBias: hasKeyBias, namesScalesLS: hasLayerScale)
      let timm = KeyMap.blocks(layout: "timm", style: style)
      // transformers' ViT has neither layer scale nor positions without the class token, nor a norm of the mean.
      let fitsHuggingFace = !hasLayerScale && !positionsSkipClass && !hasPooledNorm
      return [timm] + (fitsHuggingFace ? [huggingFace] : [])
    case .beit:
      let style = KeyMap.BlocksStyle(hasFusedBias: hasKeyBias)
      if decoder != nil {
        let unilm = KeyMap.blocks(layout: "unilm", style: style, prefix: "backbone.", buffers: indexBuffers)
        return [unilm.withUperNet(.mmsegmentation)] + (hasKeyBias ? [] : [huggingFace.withUperNet(.transformers)])
      }
      let unilm = KeyMap.blocks(layout: "unilm", style: style, buffers: indexBuffers)
      // timm has no class for masked image modeling.
      let timm = isMasked ? [] : [KeyMap.blocks(layout: "timm", style: style)]
      return [unilm] + timm + (hasKeyBias ? [] : [huggingFace])
    }
  }

  /// The indices that unilm keeps in its state dicts beside each table.
  private var indexBuffers: [StoredTensor] {
    let positions = RelativePositions(grid: targetGridSize)
    var names = hasSharedBias ? ["rel_pos_bias.relative_position_index"] : []
    if hasLayerBias { names += (0..<depth).map { "blocks.\($0).attn.relative_position_index" } }
    return names.map { positions.tensor(name: $0, dtype: .i64) }
  }

  /// The parameters with positions and tables of the image size that was asked for, in the way of the checkpoint's own code base.
  func resized(_ parameters: BoundParameters) -> BoundParameters {
    guard targetGridSize != gridSize else { return parameters }
    let (positions, tables): (Resampling.Method, Resampling.Method) =
      switch keyMap.layout {
      case "timm": (.bicubicAntialiased, .geometricLinear)
      case "unilm": (.bicubic, .geometricCubic)
      default: (.bicubic, .bilinear)
      }
    return parameters.resized(
      from: gridSize, to: targetGridSize, positions: positions, leadingRows: positionsSkipClass ? 0 : 1,
      tables: tables)
  }
}

extension VisionFamily {
  /// What transformers puts before the backbone's keys.
  var huggingFacePrefix: String { rawValue }
}

/// How images become tensors for the vision transformers.
enum VisionPreprocessing {
  /// What the checkpoint's files say, else what the code base does by default, and what that assumes.
  static func find(
    _ configuration: VisionConfiguration, metadata: JSONObject
  ) -> (preprocessing: ImagePreprocessing, assumptions: [String]) {
    var preprocessing = ImagePreprocessing(
      size: configuration.imageSize, mean: [0.5, 0.5, 0.5], standardDeviation: [0.5, 0.5, 0.5], cropsCentre: true)
    if let stated = metadata["preprocessor_config"]?.object {
      preprocessing.mean = numbers(stated["image_mean"]) ?? preprocessing.mean
      preprocessing.standardDeviation = numbers(stated["image_std"]) ?? preprocessing.standardDeviation
      preprocessing.cropsCentre = stated["do_center_crop"]?.bool ?? false
      if let resample = stated["resample"]?.integer {
        preprocessing.interpolation = ImagePreprocessing.filter(number: resample) ?? "bicubic"
      }
      return (preprocessing, [])
    }
    if configuration.keyMap.layout == "huggingface" {
      preprocessing.cropsCentre = false
      preprocessing.interpolation = "bilinear"
    } else {
      preprocessing.cropFraction =
        configuration.imageSize < 384 ? (configuration.keyMap.layout == "timm" ? 0.9 : 0.875) : 1
    }
    if configuration.decoder != nil, configuration.keyMap.layout == "unilm" {
      // unilm's pipelines for segmentation normalise so for v1 too, and never crop the centre.
      preprocessing.cropsCentre = false
      preprocessing.cropFraction = 1
      preprocessing.interpolation = "bilinear"
      preprocessing.mean = ImagePreprocessing.imageNetMean
      preprocessing.standardDeviation = ImagePreprocessing.imageNetStandardDeviation
      return (preprocessing, [])
    }
    if RecordedValue.bool("imagenet_default_mean_and_std", in: metadata) == true {
      preprocessing.mean = ImagePreprocessing.imageNetMean
      preprocessing.standardDeviation = ImagePreprocessing.imageNetStandardDeviation
      return (preprocessing, [])
    }
    let assumption = "images normalised with mean and deviation 0.5; BEiT v2 was trained with ImageNet's"
    return (preprocessing, configuration.family == .beit ? [assumption] : [])
  }

  private static func numbers(_ value: JSONValue?) -> [Float]? {
    guard let values = value?.array?.compactMap({ $0.number ?? $0.integer.map { Double($0) } }), values.count == 3
    else {
      return nil
    }
    return values.map { Float($0) }
  }
}
