import MultiwayCore
import MultiwayGraph

/// Declares every parameter of an UperNet: the neck that makes a pyramid of the feature maps, the decoder, and the auxiliary head.
struct UperNetParameters {
  let configuration: UperNetConfiguration

  var declarations: [ParameterDeclaration] { neck + decoder + auxiliary }

  private var width: Int { configuration.width }

  private var neck: [ParameterDeclaration] {
    let expansions = ["neck.quadrupled.expand", "neck.quadrupled.expand_again", "neck.doubled.expand"].flatMap { name in
      [
        declaration(name + ".weight", [width, width, 2, 2]), declaration(name + ".bias", [width]),
      ]
    }
    return expansions + norm("neck.quadrupled.norm", width)
  }

  private var decoder: [ParameterDeclaration] {
    let levels = FeatureTaps.count
    var declarations = configuration.poolScales.indices.flatMap { convolution("decoder.pools.\($0)", width, kernel: 1) }
    let joined = (1 + configuration.poolScales.count) * width
    declarations += convolution("decoder.pooled", joined, kernel: 3)
    for level in 0..<levels - 1 {
      declarations += convolution("decoder.laterals.\(level)", width, kernel: 1)
      declarations += convolution("decoder.levels.\(level)", width, kernel: 3)
    }
    declarations += convolution("decoder.fused", levels * width, kernel: 3)
    return declarations + [
      declaration("decoder.classes.weight", [configuration.classes, width, 1, 1]),
      declaration("decoder.classes.bias", [configuration.classes]),
    ]
  }

  /// Convolution without a bias, and the batch norm behind it.
  private func convolution(_ name: String, _ inputs: Int, kernel: Int) -> [ParameterDeclaration] {
    [declaration(name + ".convolution.weight", [width, inputs, kernel, kernel])] + norm(name + ".norm", width)
  }

  private func norm(_ name: String, _ channels: Int, role: Role = .segmentation) -> [ParameterDeclaration] {
    ["weight", "bias", "mean", "variance"].map { declaration("\(name).\($0)", [channels], role) }
      + [
        // Only training counts batches; files that were stripped lack it.
        ParameterDeclaration(name + ".batches", [], .trainingScalar, .shared, .optional)
      ]
  }

  private func declaration(_ name: String, _ shape: Shape, _ role: Role = .segmentation) -> ParameterDeclaration {
    ParameterDeclaration(name, shape, role, .shared, role == .auxiliaryHead ? .group("auxiliary head") : .required)
  }

  private var auxiliary: [ParameterDeclaration] {
    configuration.auxiliary.flatMap { name, shape -> [ParameterDeclaration] in
      let weight = declaration(name, shape, .auxiliaryHead)
      let module = name.dropLast("weight".count)
      guard module.hasSuffix("convolution.") else {
        return [weight, declaration(module + "bias", [shape[0]], .auxiliaryHead)]
      }
      return [weight] + norm(module.dropLast("convolution.".count) + "norm", shape[0], role: .auxiliaryHead)
    }
  }
}
