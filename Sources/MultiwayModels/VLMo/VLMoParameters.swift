import MultiwayCore
import MultiwayGraph

/// Declares every parameter of a VLMo's backbone; heads declare their own.
struct VLMoParameters {
  let configuration: VLMoConfiguration
  /// False where a file may lack all that serves text alone.
  let needsText: Bool

  /// All parameters of the backbone, in the order of the released files.
  var declarations: [ParameterDeclaration] {
    table + textEmbeddings + imageEmbeddings + (0..<configuration.depth).flatMap(block)
      + norm("final_norm", .finalNorm, .shared)
  }

  private var textPresence: ParameterDeclaration.Presence { needsText ? .required : .group("text") }

  private func presence(_ modality: Modality) -> ParameterDeclaration.Presence {
    modality == .text ? textPresence : .required
  }

  private var table: [ParameterDeclaration] {
    guard configuration.hasRelativeBias else { return [] }
    let rows = VLMoPositions.tableRows(grid: configuration.gridSize, textTokens: configuration.tableTextTokens)
    let shape: Shape = [rows, configuration.heads * configuration.depth]
    return [ParameterDeclaration("relative_bias.table", shape, .relativePositionBias, .shared)]
  }

  private var textEmbeddings: [ParameterDeclaration] {
    let width = configuration.width
    func table(_ name: String, _ rows: Int, _ role: Role) -> ParameterDeclaration {
      ParameterDeclaration("text.\(name).weight", [rows, width], role, .text, textPresence)
    }
    return [
      table("embedding", configuration.vocabularySize, .tokenEmbedding),
      table("positions", configuration.textTokens, .positions), table("token_types", 2, .tokenType),
    ] + norm("text.embedding_norm", .embeddingNorm, .text)
  }

  private var imageEmbeddings: [ParameterDeclaration] {
    let (width, size, grid) = (configuration.width, configuration.patchSize, configuration.gridSize)
    return [
      ParameterDeclaration("token_types.weight", [configuration.tokenTypes, width], .tokenType, .shared),
      ParameterDeclaration("vision.class_token", [1, 1, width], .classToken, .vision),
    ]
      + (configuration.hasPositions
        ? [ParameterDeclaration("vision.positions", [grid * grid + 1, width], .positions, .vision)] : [])
      + [
        ParameterDeclaration(
          "vision.patches.weight", [width, configuration.channels, size, size], .patchEmbedding, .vision),
        ParameterDeclaration("vision.patches.bias", [width], .patchEmbedding, .vision),
      ]
  }

  private func block(_ layer: Int) -> [ParameterDeclaration] {
    let (width, prefix) = (configuration.width, "layers.\(layer).")
    func vector(_ name: String, _ role: Role) -> ParameterDeclaration {
      ParameterDeclaration(prefix + name, [width], role, .shared)
    }
    func matrix(_ name: String, _ role: Role) -> ParameterDeclaration {
      ParameterDeclaration(prefix + name + ".weight", [width, width], role, .shared)
    }
    var declarations: [ParameterDeclaration] = []
    if configuration.hasLayerScale {
      declarations += [vector("attention_scale", .layerScale), vector("feed_forward_scale", .layerScale)]
    }
    declarations += norm(prefix + "attention_norm", .attentionNorm, .shared)
    if configuration.hasQueryBias {
      declarations += [vector("query.bias", .attentionQuery), vector("value.bias", .attentionValue)]
    }
    declarations += [
      matrix("query", .attentionQuery), matrix("key", .attentionKey), matrix("value", .attentionValue),
      matrix("attention_out", .attentionOut), vector("attention_out.bias", .attentionOut),
    ]
    var experts: [(String, Modality)] = [("text", .text), ("vision", .vision)]
    if layer >= configuration.jointStart { experts.append(("joint", .shared)) }
    return declarations + experts.flatMap { expert(prefix + $0, $1) }
  }

  private func expert(_ name: String, _ modality: Modality) -> [ParameterDeclaration] {
    let (width, inner) = (configuration.width, configuration.feedForwardWidth)
    func declare(_ field: String, _ shape: Shape, _ role: Role) -> ParameterDeclaration {
      ParameterDeclaration("\(name).\(field)", shape, role, modality, presence(modality))
    }
    return norm(name + ".feed_forward_norm", .feedForwardNorm, modality) + [
      declare("feed_forward_in.weight", [inner, width], .feedForwardIn),
      declare("feed_forward_in.bias", [inner], .feedForwardIn),
      declare("feed_forward_out.weight", [width, inner], .feedForwardOut),
      declare("feed_forward_out.bias", [width], .feedForwardOut),
    ]
  }

  private func norm(_ name: String, _ role: Role, _ modality: Modality) -> [ParameterDeclaration] {
    ParameterDeclaration.norm(name, configuration.width, role, modality, presence(modality))
  }
}
