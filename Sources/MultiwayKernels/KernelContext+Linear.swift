import CMultiwayKernels
public import MultiwayCore

/// What a linear layer applies to its sums.
public enum Activation: Sendable {
  /// Nothing.
  case none
  /// x · Φ(x), the exact gelu.
  case gelu

  var code: mwk_activation {
    switch self {
    case .none: mwk_activation_none
    case .gelu: mwk_activation_gelu
    }
  }
}

/// What follows the sums of a linear layer, in this order: bias, activation, residual.
public struct Epilogue: Sendable {
  /// [outputs] of f32.
  public var bias: TensorBytes?
  /// Applied after the bias.
  public var activation: Activation
  /// Added last; its rows lie as those of the result, which it may be.
  public var residual: Region?

  /// Makes an epilogue; without arguments it does nothing.
  public init(bias: TensorBytes? = nil, activation: Activation = .none, residual: Region? = nil) {
    self.bias = bias
    self.activation = activation
    self.residual = residual
  }
}

/// The int8 weights of a linear layer, in the layout that the kernels read in place.
public struct Int8Weights: Sendable {
  /// The number of outputs.
  public let outputs: Int
  /// The number of inputs, at most 65536.
  public let inputs: Int
  /// s8, [⌈outputs/64⌉][⌈inputs/4⌉][64][4], zero padded.
  public let panels: TensorBytes
  /// The number of runs of equal length that the inputs are cut into, each with its own scales.
  public let groups: Int
  /// f32, [groups, outputs]: weight ≈ scale · s8.
  public let scales: TensorBytes
  /// i32, [groups, outputs]: the sum of the s8 weights.
  public let sums: TensorBytes

  /// Outputs of one panel.
  public static let panelOutputs = 64
  /// The most inputs of a group whose int32 sums cannot overflow.
  public static let maximumInputs = 1 << 16

  /// Checks the sizes; constants that are too small stop the program.
  public init(
    outputs: Int, inputs: Int, groups: Int = 1, panels: TensorBytes, scales: TensorBytes, sums: TensorBytes
  ) {
    Self.check(inputs: inputs, groups: groups)
    precondition(panels.byteCount >= Self.panelByteCount(outputs: outputs, inputs: inputs), "the panels are too small")
    let scaleBytes = product(groups, outputs, 4)
    precondition(scales.byteCount >= scaleBytes && sums.byteCount >= scaleBytes, "too few scales")
    self.groups = groups
    self.outputs = outputs
    self.inputs = inputs
    self.panels = panels
    self.scales = scales
    self.sums = sums
  }

  /// Stops the program where inputs cannot be cut so: groups are equal, whole quads where there are several, and not too long.
  static func check(inputs: Int, groups: Int) {
    precondition(groups >= 1 && inputs % groups == 0, "the groups are not equal")
    precondition(groups == 1 || inputs / groups % 4 == 0, "a group is not a multiple of 4")
    precondition(inputs / groups <= maximumInputs, "int32 sums could overflow")
  }

  /// The bytes that the panels of a layer take.
  public static func panelByteCount(outputs: Int, inputs: Int) -> Int {
    product((outputs + panelOutputs - 1) / panelOutputs, (inputs + 3) / 4, panelOutputs * 4)
  }
}

/// The storage type of floating-point weights.
public enum WeightType: Sendable, CaseIterable {
  /// IEEE binary32.
  case f32
  /// IEEE binary16.
  case f16
  /// bfloat16.
  case bf16

  /// The type for a dtype, nil for any other dtype.
  public init?(_ dtype: DType) {
    switch dtype {
    case .f32: self = .f32
    case .f16: self = .f16
    case .bf16: self = .bf16
    default: return nil
    }
  }

  /// The bytes of one weight.
  public var byteWidth: Int { self == .f32 ? 4 : 2 }

  var code: mwk_weight_type {
    switch self {
    case .f32: mwk_weight_f32
    case .f16: mwk_weight_f16
    case .bf16: mwk_weight_bf16
    }
  }
}

/// Floating-point weights [outputs, inputs], row-major, at any address of a mapped file.
public struct FloatWeights: Sendable {
  /// The number of outputs.
  public let outputs: Int
  /// The number of inputs.
  public let inputs: Int
  /// The weights.
  public let bytes: TensorBytes
  /// How a weight is stored.
  public let type: WeightType

  /// Checks the size; a constant that is too small stops the program.
  public init(outputs: Int, inputs: Int, bytes: TensorBytes, type: WeightType) {
    precondition(bytes.byteCount >= product(outputs, inputs, type.byteWidth), "the weights are too small")
    self.outputs = outputs
    self.inputs = inputs
    self.bytes = bytes
    self.type = type
  }
}

extension KernelContext {
  /// y [rows, outputs] = epilogue(x · weightsᵀ) on 8-bit numbers, summed exactly in int32.
  ///
  /// `yStride` is the number of elements from one row of `y` to the next; nil means `outputs`.
  public func linear(
    _ arena: inout Arena, rows: Int, x: QuantizedRows, weights: Int8Weights, epilogue: Epilogue = Epilogue(),
    into y: Region, yStride: Int? = nil
  ) {
    defer { withExtendedLifetime((weights, epilogue)) {} }
    let stride = yStride ?? weights.outputs
    let reach = extent(rows: rows, width: weights.outputs, stride: stride)
    precondition(
      !y.overlaps(x.values) && !y.overlaps(x.scales) && !y.overlaps(x.zeros), "the result overlaps its input")
    let (q, scales, zeros) = unsafe arena.pointers(x, rows: rows, width: weights.inputs, groups: weights.groups)
    var job = unsafe mwk_linear_i8_job()
    unsafe job.rows = rows
    unsafe job.inputs = weights.inputs
    unsafe job.outputs = weights.outputs
    unsafe job.groups = weights.groups
    unsafe job.q = UnsafePointer(q)
    unsafe job.scale = UnsafePointer(scales)
    unsafe job.zero = UnsafePointer(zeros)
    unsafe job.panels = weights.panels.pointer(
      count: Int8Weights.panelByteCount(outputs: weights.outputs, inputs: weights.inputs), of: Int8.self)
    unsafe job.weight_scale = weights.scales.pointer(count: weights.groups * weights.outputs, of: Float.self)
    unsafe job.weight_sum = weights.sums.pointer(count: weights.groups * weights.outputs, of: Int32.self)
    unsafe job.bias = epilogue.bias?.pointer(count: weights.outputs, of: Float.self)
    unsafe job.residual = epilogue.residual.map { unsafe UnsafePointer(arena.pointer($0, count: reach)) }
    unsafe job.activation = epilogue.activation.code
    unsafe job.y = arena.pointer(y, count: reach)
    unsafe job.y_stride = stride
    unsafe check(mwk_linear_i8(pointer, &job))
  }

  /// y [rows, outputs] = epilogue(x · weightsᵀ) in fp32, each sum a chain of fma in the order of the inputs.
  ///
  /// `xStride` and `yStride` are elements from one row to the next; nil means `inputs` and `outputs`.
  public func linear(
    _ arena: inout Arena, rows: Int, x: Region, xStride: Int? = nil, weights: FloatWeights,
    epilogue: Epilogue = Epilogue(), into y: Region, yStride: Int? = nil
  ) {
    defer { withExtendedLifetime((weights, epilogue)) {} }
    let stride = yStride ?? weights.outputs
    let reach = extent(rows: rows, width: weights.outputs, stride: stride)
    precondition(!y.overlaps(x) || rows == 0, "the result overlaps its input")
    var job = unsafe mwk_linear_f32_job()
    unsafe job.rows = rows
    unsafe job.inputs = weights.inputs
    unsafe job.outputs = weights.outputs
    let inputReach = extent(rows: rows, width: weights.inputs, stride: xStride ?? weights.inputs)
    unsafe job.x = UnsafePointer(arena.pointer(x, count: inputReach))
    unsafe job.x_stride = xStride ?? weights.inputs
    unsafe job.weight = UnsafeRawPointer(
      weights.bytes.pointer(count: product(weights.outputs, weights.inputs, weights.type.byteWidth), of: UInt8.self))
    unsafe job.weight_type = weights.type.code
    unsafe job.bias = epilogue.bias?.pointer(count: weights.outputs, of: Float.self)
    unsafe job.residual = epilogue.residual.map { unsafe UnsafePointer(arena.pointer($0, count: reach)) }
    unsafe job.activation = epilogue.activation.code
    unsafe job.y = arena.pointer(y, count: reach)
    unsafe job.y_stride = stride
    unsafe check(mwk_linear_f32(pointer, &job))
  }
}
