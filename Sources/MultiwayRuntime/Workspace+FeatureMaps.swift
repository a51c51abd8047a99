import MultiwayCore
import MultiwayGraph
import MultiwayKernels

extension Workspace {
  /// Runs a step on feature maps.
  mutating func executeFeatureMap(_ step: Step, _ context: KernelContext) {
    let (from, into) = (region(step.reads[0]), region(step.writes[0]))
    let shape = plan.shapes[step.reads[0].index]
    switch step.operation {
    case .convolution(let weights, let fused, let kernel, let grid):
      context.convolution(
        &arena, MapSize(shape, grid), kernel: kernel, x: from, weights: weights, epilogue: epilogue(fused, step),
        into: into)
    case .featureMap(let op, let grid):
      execute(op, MapSize(shape, grid), from: from, into: into, context)
    case .joinChannels: joinChannels(step, context)
    default: preconditionFailure("not an operation on feature maps")
    }
  }

  private mutating func execute(
    _ op: FeatureMapOp, _ size: MapSize, from: Region, into: Region, _ context: KernelContext
  ) {
    switch op {
    case .convolution: preconditionFailure("a convolution has a step of its own")
    case .pixelShuffle: context.pixelShuffle(&arena, size, x: from, into: into)
    case .maxPool: context.maxPool(&arena, size, x: from, into: into)
    case .averagePool(let bins): context.averagePool(&arena, size, bins: bins, x: from, into: into)
    case .resize(let target):
      context.resizeBilinear(&arena, size, toHeight: target.height, toWidth: target.width, x: from, into: into)
    case .toImage: context.toImage(&arena, size, x: from, into: into)
    }
  }

  private mutating func joinChannels(_ step: Step, _ context: KernelContext) {
    let target = plan.shapes[step.writes[0].index]
    var channel = 0
    for read in step.reads {
      let width = plan.shapes[read.index].last
      context.copyRows(
        &arena, rows: plan.rows(read), width: width, x: region(read), xStride: width,
        into: region(step.writes[0]).dropping(elements: channel), yStride: target.last)
      channel += width
    }
  }
}

extension MapSize {
  /// The maps in a stream [images, height · width, channels].
  fileprivate init(_ shape: Shape, _ grid: Grid) {
    self.init(images: shape[0], height: grid.height, width: grid.width, channels: shape[2])
  }
}
