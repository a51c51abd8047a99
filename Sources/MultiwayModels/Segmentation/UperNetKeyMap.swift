import MultiwayCore

/// How the layouts spell an UperNet: the released files of unilm (mmsegmentation), files of transformers, and the names that
/// transformers 5 has in memory, which only unusual options write to disk.
enum UperNetSpelling: Sendable {
  case mmsegmentation, transformers, transformersInMemory

  /// What the neck's keys start with, and what the last layer of a head is called.
  private var convention: (neck: String, classes: String) {
    self == .mmsegmentation ? ("backbone.", "conv_seg") : ("", "classifier")
  }

  /// The modules, numbers written as N.
  fileprivate var modules: [String: String] {
    let shared = [
      "decoder.laterals.N": "decode_head.lateral_convs.N", "decoder.levels.N": "decode_head.fpn_convs.N",
      "decoder.fused": "decode_head.fpn_bottleneck", "auxiliary.convolutions.N": "auxiliary_head.convs.N",
      "auxiliary.joined": "auxiliary_head.conv_cat", "decoder.classes": "decode_head." + convention.classes,
      "auxiliary.classes": "auxiliary_head." + convention.classes,
    ]
    let own: [String: String]
    switch self {
    case .mmsegmentation, .transformers:
      let neck = convention.neck
      own = [
        "neck.quadrupled.expand": neck + "fpn1.0", "neck.quadrupled.norm": neck + "fpn1.1",
        "neck.quadrupled.expand_again": neck + "fpn1.3", "neck.doubled.expand": neck + "fpn2.0",
        "decoder.pools.N": "decode_head.psp_modules.N.1", "decoder.pooled": "decode_head.bottleneck",
      ]
    case .transformersInMemory:
      own = [
        "neck.quadrupled.expand": "fpn.fpn1.conv_transpose1", "neck.quadrupled.norm": "fpn.fpn1.normalization",
        "neck.quadrupled.expand_again": "fpn.fpn1.conv_transpose2", "neck.doubled.expand": "fpn.fpn2",
        "decoder.pools.N": "decode_head.psp_modules.blocks.N.conv", "decoder.pooled": "decode_head.psp_bottleneck",
      ]
    }
    return shared.merging(own) { $1 }
  }

  /// What stands in a convolution with its batch norm.
  fileprivate var parts: [String: String] {
    self == .transformersInMemory
      ? ["convolution": "convolution", "norm": "normalization"] : ["convolution": "conv", "norm": "bn"]
  }
}

/// The keys of an UperNet in one spelling.
private struct UperNetKeys {
  private let modules: [String: String]
  private let parts: [String: String]
  /// What canonical names of an UperNet start with; all of its modules do.
  private static let beginnings = ["neck.", "decoder.", "auxiliary."]
  private static let fields = ["mean": "running_mean", "variance": "running_var", "batches": "num_batches_tracked"]

  init(_ spelling: UperNetSpelling) { (modules, parts) = (spelling.modules, spelling.parts) }

  /// The key of a canonical name, nil where it is no name of the neck, the decoder or the auxiliary head.
  func key(_ name: String) -> String? {
    guard UperNetKeys.beginnings.contains(where: { name.hasPrefix($0) }) else { return nil }
    var path = name.split(separator: ".").map(String.init)
    guard path.count > 2, let last = path.popLast() else { return nil }
    let number = path.first { $0.allSatisfy(\.isNumber) } ?? ""
    path = path.map { $0 == number ? "N" : $0 }
    let field = UperNetKeys.fields[last] ?? last
    if let key = modules[path.joined(separator: ".")] { return key.replacing("N", with: number) + "." + field }
    guard let part = path.popLast().flatMap({ parts[$0] }), let key = modules[path.joined(separator: ".")] else {
      return nil
    }
    return key.replacing("N", with: number) + ".\(part).\(field)"
  }
}

extension KeyMap {
  /// The layout with an UperNet beside the backbone.
  func withUperNet(_ spelling: UperNetSpelling) -> KeyMap {
    let (place, leftAlone, keys) = (place, leftAlone, UperNetKeys(spelling))
    return KeyMap(layout: layout, buffers: buffers, leftAlone: leftAlone) { name, shape in
      keys.key(name).map { KeyPlace($0) } ?? place(name, shape)
    }
  }
}
