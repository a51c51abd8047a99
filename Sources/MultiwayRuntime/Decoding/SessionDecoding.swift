public import MultiwayCore
public import MultiwayGraph
public import MultiwayKernels

/// Runs the two graphs of a `CaptionDecoding` with the kernels. The keys and values of the image are copied at the first step alone.
public final class SessionDecoding: DecodingEngine {
  private let opening: Session
  private let stepping: Session
  private var memory: Workspace?
  private var hasImage = false

  /// Loads the graphs.
  /// - Parameters:
  ///   - isa: the instruction set; nil for the one that `MULTIWAY_ISA` names or the best that the CPU has.
  ///   - threads: the number of threads; nil for one a core.
  ///   - compute: what layers that are not int8 are computed in.
  public init(
    _ decoding: CaptionDecoding, isa: ISA? = nil, threads: Int? = nil, compute: ComputeType = .f32
  ) throws {
    opening = try Session(decoding.opening, isa: isa, threads: threads, compute: compute)
    let image = (0..<decoding.layers).flatMap { layer in
      [CaptionDecoding.State.imageKey, .imageValue].map { $0.name(layer) }
    }
    stepping = try Session(decoding.step, isa: isa, threads: threads, keeping: Set(image), compute: compute)
  }

  /// The name of the instruction set: `avx512`.
  public var instructionSet: String { stepping.instructionSet }
  /// The number of threads.
  public var threadCount: Int { stepping.threadCount }

  /// Runs the opening.
  public func open(_ inputs: [String: TensorValue]) throws -> [(name: String, value: TensorValue)] {
    hasImage = false
    return try opening.run(inputs)
  }

  /// Runs a step.
  public func step(_ inputs: [String: TensorValue]) throws -> [(name: String, value: TensorValue)] {
    let bound = try stepping.graph.bind(inputs)
    var workspace = try memory.take() ?? Workspace(stepping, symbols: bound.symbols)
    let outputs = try stepping.run(bound, in: &workspace, reusesKept: hasImage)
    hasImage = true
    memory = consume workspace
    return outputs
  }

  /// Where the time of a step with these inputs goes, once the keys and values of the image are in place.
  public func profile(_ inputs: [String: TensorValue], runs: Int) throws -> [ProfileRow] {
    try stepping.profile(try stepping.graph.bind(inputs), runs: runs)
  }
}
