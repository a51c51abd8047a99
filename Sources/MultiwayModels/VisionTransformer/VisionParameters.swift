import MultiwayCore
import MultiwayGraph

/// Declares every parameter of a vision transformer's backbone; heads declare their own.
struct VisionParameters {
  let configuration: VisionConfiguration

  /// All parameters of the backbone, in the order of timm's modules.
  var declarations: [ParameterDeclaration] {
    embeddings + (0..<configuration.depth).flatMap(block)
      + (configuration.hasFinalNorm ? norm("vision.final_norm", .finalNorm) : [])
  }

  private var embeddings: [ParameterDeclaration] {
    let (width, size) = (configuration.width, configuration.patchSize)
    let patches = configuration.gridSize * configuration.gridSize
    var declarations = [
      ParameterDeclaration("vision.class_token", [1, 1, width], .classToken, .vision),
      ParameterDeclaration("vision.mask_token", [1, 1, width], .maskToken, .vision, .optional),
    ]
    if configuration.hasPositions {
      let rows = configuration.positionsSkipClass ? patches : patches + 1
      declarations.append(ParameterDeclaration("vision.positions", [rows, width], .positions, .vision))
    }
    declarations += [
      ParameterDeclaration(
        "vision.patches.weight", [width, configuration.channels, size, size], .patchEmbedding, .vision),
      ParameterDeclaration("vision.patches.bias", [width], .patchEmbedding, .vision),
    ]
    if configuration.hasSharedBias { declarations.append(table("vision.relative_bias.table")) }
    return declarations
  }

  private func table(_ name: String) -> ParameterDeclaration {
    let rows = VisionConfiguration.relativeRows(grid: configuration.gridSize)
    return ParameterDeclaration(name, [rows, configuration.heads], .relativePositionBias, .vision)
  }

  private func norm(_ name: String, _ role: Role) -> [ParameterDeclaration] {
    ParameterDeclaration.norm(name, configuration.width, role, .vision)
  }

  private func block(_ layer: Int) -> [ParameterDeclaration] {
    let (width, inner) = (configuration.width, configuration.feedForwardWidth)
    let prefix = "layers.\(layer).vision."
    func matrix(_ name: String, _ outputs: Int, _ inputs: Int, _ role: Role) -> ParameterDeclaration {
      ParameterDeclaration(prefix + name + ".weight", [outputs, inputs], role, .vision)
    }
    func bias(_ name: String, _ size: Int, _ role: Role) -> ParameterDeclaration {
      ParameterDeclaration(prefix + name + ".bias", [size], role, .vision)
    }
    var declarations = norm(prefix + "attention_norm", .attentionNorm)
    declarations += [
      matrix("query", width, width, .attentionQuery), matrix("key", width, width, .attentionKey),
      matrix("value", width, width, .attentionValue),
    ]
    if configuration.hasQueryBias { declarations.append(bias("query", width, .attentionQuery)) }
    if configuration.hasKeyBias { declarations.append(bias("key", width, .attentionKey)) }
    if configuration.hasQueryBias { declarations.append(bias("value", width, .attentionValue)) }
    if configuration.hasLayerBias { declarations.append(table(prefix + "relative_bias.table")) }
    declarations += [matrix("attention_out", width, width, .attentionOut), bias("attention_out", width, .attentionOut)]
    declarations += norm(prefix + "feed_forward_norm", .feedForwardNorm)
    declarations += [
      matrix("feed_forward_in", inner, width, .feedForwardIn), bias("feed_forward_in", inner, .feedForwardIn),
      matrix("feed_forward_out", width, inner, .feedForwardOut), bias("feed_forward_out", width, .feedForwardOut),
    ]
    if configuration.hasLayerScale {
      declarations += ["attention_scale", "feed_forward_scale"].map {
        ParameterDeclaration(prefix + $0, [width], .layerScale, .vision)
      }
    }
    return declarations
  }
}
