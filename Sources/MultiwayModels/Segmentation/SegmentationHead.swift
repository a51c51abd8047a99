import MultiwayCore
import MultiwayGraph

/// Semantic segmentation: logits [N, classes, H/4, W/4] of an UperNet over four feature maps, at a quarter of the image's size
/// for patches of 16, as transformers gives them.
struct SegmentationHead: VisionHead {
  var configuration: UperNetConfiguration

  let task = "segmentation"
  var title: String { "semantic segmentation (\(configuration.classes) classes)" }
  var hyperparameters: [(name: String, value: HyperparameterValue)] { configuration.hyperparameters }

  static func recognize(_ sizes: SizeFinder, _ configuration: VisionConfiguration) -> SegmentationHead? {
    configuration.decoder.map { SegmentationHead(configuration: $0) }
  }

  func declarations(_ configuration: VisionConfiguration) -> [ParameterDeclaration] {
    UperNetParameters(configuration: self.configuration).declarations
  }

  func build(_ builder: inout VisionGraphBuilder) throws(GraphError) {
    let image = try builder.embedImage()
    let outputs = [image] + (try builder.encode(image))
    let side = builder.configuration.targetGridSize
    let taps = configuration.taps.blocks.map { outputs[$0] }
    builder.output("logits", try builder.segment(taps, grid: Grid(height: side, width: side), configuration))
    // Nothing reads the blocks behind the last tap, of which there are two where transformers chose the taps.
    builder.graph.removeDeadCode()
  }
}
