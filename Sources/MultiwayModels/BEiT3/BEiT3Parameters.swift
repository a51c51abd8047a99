import MultiwayCore
import MultiwayGraph

/// Declares every parameter of a BEiT-3 with a head.
struct BEiT3Parameters {
  let configuration: BEiT3Configuration
  let head: any BEiT3Head

  /// All parameters, in the order of the released state dicts' modules.
  var declarations: [ParameterDeclaration] {
    embeddings
      + (0..<configuration.depth).flatMap { layer in
        Modality.tokenModalities.flatMap { block(layer, $0) }
      } + finalNorm + head.declarations(configuration)
  }

  /// A checkpoint for a task without text may come without text experts, but with all of them or none.
  private func presence(_ modality: Modality) -> ParameterDeclaration.Presence {
    modality == .text && !head.needsText ? .group("text") : .required
  }

  private var embeddings: [ParameterDeclaration] {
    let (width, size) = (configuration.width, configuration.patchSize)
    return [
      ParameterDeclaration(
        "text.embedding.weight", [configuration.vocabularySize, width], .tokenEmbedding, .text, presence(.text)),
      ParameterDeclaration("vision.mask_token", [1, 1, width], .maskToken, .vision, .optional),
      ParameterDeclaration("vision.class_token", [1, 1, width], .classToken, .vision),
      ParameterDeclaration(
        "vision.patches.weight", [width, configuration.channels, size, size], .patchEmbedding, .vision),
      ParameterDeclaration("vision.patches.bias", [width], .patchEmbedding, .vision),
      ParameterDeclaration("vision.positions", [configuration.storedVisionTokens, width], .positions, .vision),
      ParameterDeclaration("text.positions", [configuration.textTokens, width], .positions, .text, presence(.text)),
    ]
  }

  private func block(_ layer: Int, _ modality: Modality) -> [ParameterDeclaration] {
    let (width, inner) = (configuration.width, configuration.feedForwardWidth)
    let matrices: [(String, Shape, Role)] = [
      ("query", [width, width], .attentionQuery), ("key", [width, width], .attentionKey),
      ("value", [width, width], .attentionValue), ("attention_out", [width, width], .attentionOut),
      ("feed_forward_in", [inner, width], .feedForwardIn), ("feed_forward_out", [width, inner], .feedForwardOut),
    ]
    let norms: [(String, Int, Role)] = [
      ("attention_norm", width, .attentionNorm), ("attention_inner_norm", width, .attentionInnerNorm),
      ("feed_forward_norm", width, .feedForwardNorm), ("feed_forward_inner_norm", inner, .feedForwardInnerNorm),
    ]
    let prefix = "layers.\(layer).\(modality.rawValue)."
    return matrices.flatMap { name, shape, role in
      [
        ParameterDeclaration(prefix + name + ".weight", shape, role, modality, presence(modality)),
        ParameterDeclaration(prefix + name + ".bias", [shape[0]], role, modality, presence(modality)),
      ]
    }
      + norms.flatMap { name, width, role in
        ParameterDeclaration.norm(prefix + name, width, role, modality, presence(modality))
      }
  }

  private var finalNorm: [ParameterDeclaration] {
    guard head.finalNorm != .absent else { return [] }
    return Modality.tokenModalities.flatMap { modality in
      let presence: ParameterDeclaration.Presence =
        head.finalNorm == .optional ? .group("final norm of \(modality.rawValue)") : presence(modality)
      return ParameterDeclaration.norm(
        "\(modality.rawValue).final_norm", configuration.width, .finalNorm, modality, presence)
    }
  }
}

extension Modality {
  /// The two kinds of tokens, in the order of their streams.
  static let tokenModalities: [Modality] = [.vision, .text]
}

extension ParameterDeclaration {
  /// Weight and bias of a LayerNorm.
  static func norm(
    _ name: String, _ width: Int, _ role: Role, _ modality: Modality, _ presence: Presence = .required
  ) -> [ParameterDeclaration] {
    [
      ParameterDeclaration(name + ".weight", [width], role, modality, presence),
      ParameterDeclaration(name + ".bias", [width], role, modality, presence),
    ]
  }

  /// Weight [outputs, inputs] and bias of a linear layer of a head.
  static func linear(_ name: String, _ outputs: Int, _ inputs: Int, _ role: Role) -> [ParameterDeclaration] {
    [
      ParameterDeclaration(name + ".weight", [outputs, inputs], role, .shared),
      ParameterDeclaration(name + ".bias", [outputs], role, .shared),
    ]
  }
}
