public import MultiwayCore
public import MultiwayGGUF
public import MultiwayGraph

/// A model as multiway ships it: a GGUF file that holds its own graph, or another file of ours that does.
public struct Artifact: Sendable {
  /// What every tensor's position in the file is a multiple of.
  public static let alignment = 64
  /// The format version that this code writes and reads.
  public static let formatVersion = 1
  /// The layout of int8 weights that this code writes and reads: panels of 64 outputs × 4 inputs.
  public static let panelLayout = "\(QuantizedMatrix.panelOutputs)x\(QuantizedMatrix.panelInputs)"

  /// The model. Its constants are stored tensors that lie in the mapped file.
  public let graph: Graph
  /// What the artifact says about itself.
  public let metadata: ArtifactMetadata
  /// The file.
  public var file: InputFile
  /// The files beside it that hold its tensors: those of an ONNX model.
  public var dataFiles: [InputFile]
  /// What the file is packed with: `zstd`, nil for nothing.
  public let packing: String?
  /// The name of a foreign format that holds the graph, nil for GGUF.
  private let foreignFormat: String?

  /// The name of the format, for people.
  public var format: String { (packing.map { $0 + " of " } ?? "") + (foreignFormat ?? "multiway artifact (GGUF)") }
  /// True for a file that a certificate can be written into.
  public var holdsCertificates: Bool { foreignFormat == nil }

  /// Makes a model of a file of another format that holds its graph.
  public init(
    graph: Graph, metadata: ArtifactMetadata, file: InputFile, dataFiles: [InputFile], packing: String?, format: String
  ) {
    self.init(
      graph: graph, metadata: metadata, file: file, dataFiles: dataFiles, packing: packing, foreignFormat: format)
  }

  private init(
    graph: Graph, metadata: ArtifactMetadata, file: InputFile, dataFiles: [InputFile] = [], packing: String?,
    foreignFormat: String? = nil
  ) {
    self.graph = graph
    self.metadata = metadata
    self.file = file
    self.dataFiles = dataFiles
    self.packing = packing
    self.foreignFormat = foreignFormat
  }

  /// The path as it was given.
  public var path: String { file.path }
  /// The size of all files on the disk in bytes.
  public var byteCount: Int { files.reduce(0) { $0 &+ $1.byteCount } }
  /// All files that it is made of.
  public var files: [InputFile] { [file] + dataFiles }
  /// Device and inode, by which an output is kept from replacing its own input.
  public var identity: FileIdentity { file.identity }

  /// True for a GGUF file that is an artifact and not some other model.
  public static func recognizes(_ container: GGUFContainer) -> Bool { container[ArtifactKey.graph] != nil }

  /// Opens an artifact. The header is checked whole; tensor bytes are not touched.
  public static func read(_ file: any ByteSource) throws -> Artifact { try read(GGUFContainer.read(file)) }

  /// Opens the artifact in a container.
  public static func read(_ container: GGUFContainer) throws -> Artifact {
    do {
      try checkVersion(container)
      let metadata = try ArtifactMetadata(container)
      let text = try MetadataReader(container).string(ArtifactKey.graph)
      let graph = try GraphJSON.decode(text, data: try constants(container))
      try checkPanels(graph, container)
      return Artifact(
        graph: graph, metadata: metadata, file: InputFile(container.file), packing: container.file.packing)
    } catch var error as ArtifactError {
      error.diagnosis.file = container.file.path
      throw error
    }
  }

  private static func checkVersion(_ container: GGUFContainer) throws(ArtifactError) {
    guard recognizes(container) else {
      throw ArtifactError(
        .notAnArtifact, "this GGUF file holds no graph", expected: "the key \(ArtifactKey.graph)",
        remedy: "convert the model's checkpoint with multiway; graphs of other GGUF files are not known")
    }
    guard container[ArtifactKey.format]?.integer == formatVersion else {
      let found = container[ArtifactKey.format]?.integer.map(String.init) ?? "unknown"
      throw ArtifactError(
        .unsupported, "artifact format \(found)", expected: "\(formatVersion)",
        remedy: "use the version of multiway that wrote it, or convert again")
    }
    guard container.alignment == alignment else {
      throw ArtifactError(.unsupported, "an alignment of \(container.alignment)", expected: "\(alignment)")
    }
  }

  /// The tensors as constants; one error lists all that artifacts do not hold.
  private static func constants(_ container: GGUFContainer) throws -> [String: TensorExpression] {
    var constants: [String: TensorExpression] = [:]
    var problems: [String] = []
    for tensor in container.tensors {
      guard let shape = Shape(checking: tensor.dimensions),
        shape.dimensions.allSatisfy({ (1...Dimension.limits.upperBound).contains($0) }),
        let stored = try stored(tensor, shape, container)
      else {
        problems.append("'\(tensor.name)' \(tensor.type.name)\(tensor.dimensions)")
        continue
      }
      constants[tensor.name] = .stored(stored)
    }
    guard problems.isEmpty else {
      throw ArtifactError(
        .tensorMismatch, "artifacts do not hold " + problems.joined(separator: ", "),
        expected: "sizes of 1 or more in F32, F16, BF16, I8, I16 or I32, or matrices in Q8_0, Q4_0 or Q4_1")
    }
    return constants
  }

  /// A tensor in place; nil for one that artifacts do not hold.
  private static func stored(
    _ tensor: GGUFTensorInfo, _ shape: Shape, _ container: GGUFContainer
  ) throws -> StoredTensor? {
    let range = FileRange(file: container.file, range: try container.range(of: tensor))
    if let dtype = DType(artifactType: tensor.type) {
      return StoredTensor(name: tensor.name, dtype: dtype, shape: shape, storage: range)
    }
    // The container has checked that rows fill whole blocks; the numbers that they stand for take more room.
    guard let type = tensor.type.blockType, type.isComputed, shape.rank == 2, shape.byteCount(of: .f32) != nil else {
      return nil
    }
    return StoredTensor(
      name: tensor.name, dtype: .f32, shape: shape,
      storage: BlockStorage(type, elementCount: shape.elementCount, blocks: range))
  }

  private static func checkPanels(_ graph: Graph, _ container: GGUFContainer) throws(ArtifactError) {
    guard graph.hasQuantizedLayers else { return }
    let layout = try MetadataReader(container).string(ArtifactKey.panelLayout)
    guard layout == panelLayout else {
      throw ArtifactError(
        .unsupported, "int8 weights in the layout '\(layout)'", expected: panelLayout,
        remedy: "use the version of multiway that wrote it, or convert again")
    }
  }
}

extension Graph {
  /// True where int8 weights are read.
  var hasQuantizedLayers: Bool {
    nodes.contains { node in
      if case .quantizedLinear = node.op { return true }
      return false
    }
  }
}

extension DType {
  /// The dtype of a tensor of an artifact, nil for a type that artifacts do not hold.
  init?(artifactType type: GGUFType) {
    switch type {
    case .f32: self = .f32
    case .f16: self = .f16
    case .bf16: self = .bf16
    case .i8: self = .i8
    case .i16: self = .i16
    case .i32: self = .i32
    default: return nil
    }
  }

  /// The type of a tensor of an artifact, nil for a dtype that artifacts do not hold.
  var artifactType: GGUFType? {
    switch self {
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    case .i8: .i8
    case .i16: .i16
    case .i32: .i32
    default: nil
    }
  }
}
