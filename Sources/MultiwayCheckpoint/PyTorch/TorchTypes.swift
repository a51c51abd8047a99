import MultiwayCore

/// The dtype names of PyTorch.
enum TorchTypes {
  /// What a storage class says about its elements.
  struct StorageType: Hashable {
    /// The element type; nil for untyped bytes.
    var dtype: DType?
    /// True for the integers of quantized tensors, which mean nothing without their scales.
    var isQuantized = false
    /// False where several integers share a byte, or are wider than fp32 holds exactly.
    var isWhole = true

    /// The size of the unit in which the storage is counted.
    var unitSize: Int { dtype?.byteWidth ?? 1 }
  }

  /// The storage class of exactly that name.
  static func storage(_ global: PickleGlobal) -> StorageType? {
    switch global.module {
    case "torch", "torch.cuda": typedStorages[global.name]
    case "torch.storage" where global.name == "UntypedStorage": StorageType(dtype: nil)
    default: nil
    }
  }

  /// The names of the storage classes, for messages.
  static var storageNames: [String] { typedStorages.keys.sorted() }

  /// The names of the dtypes of PyTorch, for messages.
  static var dtypeNames: [String] { dtypes.keys.sorted() }

  /// The codes of NumPy's dtypes, for messages.
  static var numpyNames: [String] { numpyDTypes.keys.sorted() }

  private static let typedStorages: [String: StorageType] = [
    "FloatStorage": .init(dtype: .f32), "DoubleStorage": .init(dtype: .f64), "HalfStorage": .init(dtype: .f16),
    "BFloat16Storage": .init(dtype: .bf16), "LongStorage": .init(dtype: .i64), "IntStorage": .init(dtype: .i32),
    "ShortStorage": .init(dtype: .i16), "CharStorage": .init(dtype: .i8), "ByteStorage": .init(dtype: .u8),
    "BoolStorage": .init(dtype: .bool), "ComplexFloatStorage": .init(dtype: .c64),
    "ComplexDoubleStorage": .init(dtype: .c128), "QInt8Storage": .init(dtype: .i8, isQuantized: true),
    "QUInt8Storage": .init(dtype: .u8, isQuantized: true),
    "QInt32Storage": .init(dtype: .i32, isQuantized: true, isWhole: false),
    "QUInt4x2Storage": .init(dtype: .u8, isQuantized: true, isWhole: false),
    "QUInt2x4Storage": .init(dtype: .u8, isQuantized: true, isWhole: false),
    "UntypedStorage": .init(dtype: nil),
  ]

  /// The dtype of exactly that name in the module `torch`.
  static func dtype(_ global: PickleGlobal) -> DType? {
    global.module == "torch" ? dtypes[global.name] : nil
  }

  private static let dtypes: [String: DType] = [
    "float32": .f32, "float": .f32, "float64": .f64, "double": .f64, "float16": .f16, "half": .f16, "bfloat16": .bf16,
    "int64": .i64, "long": .i64, "int32": .i32, "int": .i32, "int16": .i16, "short": .i16, "int8": .i8, "uint8": .u8,
    "uint16": .u16, "uint32": .u32, "uint64": .u64, "bool": .bool, "complex64": .c64, "cfloat": .c64,
    "complex128": .c128, "cdouble": .c128, "float8_e4m3fn": .f8e4m3, "float8_e5m2": .f8e5m2,
    "float8_e8m0fnu": .f8e8m0, "float8_e4m3fnuz": .f8e4m3fnuz, "float8_e5m2fnuz": .f8e5m2fnuz,
  ]

  /// The dtype of a NumPy type string such as `f4`, with its byte order sign or without.
  static func numpyDType(_ code: String) -> DType? {
    let code = code.first.map { "<>|=".contains($0) } == true ? String(code.dropFirst()) : code
    return numpyDTypes[code]
  }

  private static let numpyDTypes: [String: DType] = [
    "f2": .f16, "f4": .f32, "f8": .f64, "i1": .i8, "i2": .i16, "i4": .i32, "i8": .i64, "u1": .u8, "u2": .u16,
    "u4": .u32,
    "u8": .u64, "b1": .bool, "c8": .c64, "c16": .c128,
  ]
}
