public import MultiwayCore

/// Writes `.pth` files as `torch.save` does since 1.6: a zip archive of stored records at multiples of 64 bytes, and a pickle of protocol
/// 2. The same tensors always give the same bytes.
///
/// What `torch.load(weights_only=True)` gives is a state dict, or `{"model": state dict}`. Tensors that are the same view of one
/// storage in the source share a storage in the file; all others have their own.
public enum PyTorchWriter {
  /// The record in which the writer keeps what the pickle has no place for: a JSON object of strings. PyTorch does not look at it.
  static let metadataRecord = "multiway.json"
  /// The folder in the archive, as in the archives that `torch.save` writes to streams.
  private static let root = "archive"
  private static let alignment = 64

  /// Writes `tensors` in their order, one at a time. The file appears under its name whole or not at all.
  /// - Parameters:
  ///   - nesting: the key under which the state dict stands; empty where the file is nothing but one.
  ///   - metadata: what `Checkpoint.metadata` shall give when the file is read here.
  ///   - provenance: where the tensors come from; it is written with the digests of the tensors.
  ///   - inputs: files that are being read; the output may not be one of them.
  ///   - progress: is told how many bytes of how many are written.
  public static func write(
    _ tensors: [StoredTensor], nesting: String = "", metadata: [String: String] = [:], provenance: Provenance? = nil,
    to path: String, overwrite: Bool = false, inputs: [FileIdentity] = [], progress: ((Int, Int) -> Void)? = nil
  ) throws {
    try check(tensors, path: path)
    let storages = StorageKeys(tensors)
    var digests = provenance.map { SafetensorsProvenance($0, of: tensors) }
    let stream = try SourceStream(tensors.map(SourceStream.Item.init), ledger: digests?.sources ?? SourceLedger(of: []))
    var archive = ZipWriter(
      try OutputFile(path: path, overwrite: overwrite, inputs: inputs), alignment: alignment)
    try archive.add("\(root)/data.pkl", pickle(tensors, storages, nesting: nesting))
    try archive.add("\(root)/.format_version", Array("1".utf8))
    try archive.add("\(root)/.storage_alignment", Array(String(alignment).utf8))
    try archive.add("\(root)/byteorder", Array("little".utf8))
    let total = StateDict(name: "", tensors: tensors).byteCount
    var done = 0
    var index = 0
    var hasBegun = false
    // A record begins with its tensor's first piece, or at its end where there is none.
    func begin(_ archive: inout ZipWriter) throws {
      guard !hasBegun, storages.isFirst[index] else { return }
      hasBegun = true
      try archive.begin("\(root)/data/\(storages.keys[index])", size: tensors[index].byteCount)
    }
    try stream.run(tensors) { piece in
      try begin(&archive)
      digests?.update(piece.span)
      if storages.isFirst[index] { try archive.append(piece.span) }
      done += piece.byteCount
      progress?(done, total)
    } finish: { item, unchanged in
      try begin(&archive)
      if storages.isFirst[item] { try archive.end() }
      digests?.finish(at: item, unchanged: unchanged)
      (index, hasBegun) = (item + 1, false)
    }
    try archive.add("\(root)/version", Array("3\n".utf8))
    if let text = record(metadata, digests?.text) {
      try archive.add("\(root)/\(metadataRecord)", text, isLast: true)
    }
    try archive.finish()
  }

  /// The record beside the pickle, nil where there is nothing to tell.
  private static func record(_ metadata: [String: String], _ provenance: String?) -> [UInt8]? {
    var object = JSONObject()
    for (key, value) in metadata.sorted(by: { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }) {
      object[key] = .string(value)
    }
    object[SafetensorsProvenance.key] = provenance.map { .string($0) }
    return object.members.isEmpty ? nil : Array(JSONValue.object(object).text().utf8)
  }

  /// Refuses what no state dict can hold, all of it at once.
  private static func check(_ tensors: [StoredTensor], path: String) throws(CheckpointError) {
    var names: Set<[UInt8]> = []
    for tensor in tensors where !names.insert(Array(tensor.name.utf8)).inserted {
      throw CheckpointError(.duplicateName, "two tensors have this name", file: path, tensor: tensor.name)
    }
    let odd = tensors.filter { TorchTypes.name($0.dtype) == nil }
    guard odd.isEmpty else {
      let list = listed(odd.map { "\($0.name) (\($0.dtype.rawValue))" })
      throw CheckpointError(
        .unrepresentable, "PyTorch has no dtype for the elements of these tensors: \(list)",
        remedy: "write them to .safetensors", file: path)
    }
  }

  private static func pickle(_ tensors: [StoredTensor], _ storages: StorageKeys, nesting: String) -> [UInt8] {
    var pickle = PickleWriter()
    let names = tensors.map(\.name)
    func stateDict(_ pickle: inout PickleWriter) {
      pickle.orderedDictionary(names) { pickle, index in
        add(tensors[index], storage: storages.keys[index], to: &pickle)
      }
    }
    if nesting.isEmpty { stateDict(&pickle) } else { pickle.dictionary(nesting, stateDict) }
    pickle.end()
    return pickle.bytes
  }

  /// `torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`; of v3, which has the dtype behind them, for
  /// those that have no storage class.
  private static func add(_ tensor: StoredTensor, storage key: Int, to pickle: inout PickleWriter) {
    let storageClass = TorchTypes.storageClass(tensor.dtype)
    pickle.global("torch._utils", storageClass == nil ? "_rebuild_tensor_v3" : "_rebuild_tensor_v2")
    pickle.tuple { pickle in
      pickle.tuple { pickle in
        pickle.text("storage")
        if let storageClass {
          pickle.global("torch", storageClass)
        } else {
          pickle.global("torch.storage", "UntypedStorage")
        }
        pickle.text(String(key))
        pickle.text("cpu")
        pickle.integer(storageClass == nil ? tensor.byteCount : tensor.shape.elementCount)
      }
      pickle.persistent()
      pickle.integer(0)
      pickle.integers(tensor.shape.dimensions)
      pickle.integers(tensor.shape.contiguousStrides)
      pickle.no()
      pickle.emptyOrderedDictionary()
      if storageClass == nil, let name = TorchTypes.name(tensor.dtype) { pickle.global("torch", name) }
    }
    pickle.call()
  }
}

/// Which record of the archive holds which tensor.
private struct StorageKeys {
  /// The record's number, tensor by tensor.
  private(set) var keys: [Int] = []
  /// False where an earlier tensor has brought the record.
  private(set) var isFirst: [Bool] = []

  private struct View: Hashable {
    var storage: ObjectIdentifier
    var dtype: DType
    var shape: Shape
    var strides: [Int]
    var offset: Int
  }

  init(_ tensors: [StoredTensor]) {
    var known: [View: Int] = [:]
    for tensor in tensors {
      let view = View(
        storage: ObjectIdentifier(tensor.storage), dtype: tensor.dtype, shape: tensor.shape, strides: tensor.strides,
        offset: tensor.elementOffset)
      let key = known[view]
      isFirst.append(key == nil)
      keys.append(key ?? known.count)
      if key == nil { known[view] = known.count }
    }
  }
}

extension TorchTypes {
  /// The class of a storage of such elements, nil where PyTorch counts them in bytes.
  static func storageClass(_ dtype: DType) -> String? {
    switch dtype {
    case .f32: "FloatStorage"
    case .f64: "DoubleStorage"
    case .f16: "HalfStorage"
    case .bf16: "BFloat16Storage"
    case .i64: "LongStorage"
    case .i32: "IntStorage"
    case .i16: "ShortStorage"
    case .i8: "CharStorage"
    case .u8: "ByteStorage"
    case .bool: "BoolStorage"
    case .c64: "ComplexFloatStorage"
    case .c128: "ComplexDoubleStorage"
    default: nil
    }
  }

  /// PyTorch's name of a dtype, nil where it has none.
  static func name(_ dtype: DType) -> String? {
    switch dtype {
    case .f32: "float32"
    case .f64: "float64"
    case .f16: "float16"
    case .bf16: "bfloat16"
    case .i64: "int64"
    case .i32: "int32"
    case .i16: "int16"
    case .i8: "int8"
    case .u8: "uint8"
    case .u16: "uint16"
    case .u32: "uint32"
    case .u64: "uint64"
    case .bool: "bool"
    case .c64: "complex64"
    case .c128: "complex128"
    case .f8e4m3: "float8_e4m3fn"
    case .f8e5m2: "float8_e5m2"
    case .f8e8m0: "float8_e8m0fnu"
    case .f8e4m3fnuz: "float8_e4m3fnuz"
    case .f8e5m2fnuz: "float8_e5m2fnuz"
    case .f4, .f6e2m3, .f6e3m2: nil
    }
  }
}
