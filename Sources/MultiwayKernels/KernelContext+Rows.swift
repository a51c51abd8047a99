import CMultiwayKernels
public import MultiwayCore

/// Rows of 8-bit numbers in an arena, with a scale and a zero point each: x ≈ scale · (q − zero).
public struct QuantizedRows: Sendable, Hashable {
  /// The u8 values; rows are `QuantizedRows.stride(width:)` bytes apart.
  public var values: Region
  /// One f32 a row, [groups, rows].
  public var scales: Region
  /// One i32 a row, [groups, rows].
  public var zeros: Region

  /// Names the three regions.
  public init(values: Region, scales: Region, zeros: Region) {
    self.values = values
    self.scales = scales
    self.zeros = zeros
  }

  /// The bytes from one row to the next: `width` rounded up to a multiple of 4.
  public static func stride(width: Int) -> Int { (width + 3) / 4 * 4 }
}

extension KernelContext {
  /// LayerNorm of `rows` rows [rows, width] of f32: (x − mean) / √(variance + epsilon) · weight + bias. `y` may be `x`.
  public func layerNorm(
    _ arena: inout Arena, rows: Int, width: Int, x: Region, weight: TensorBytes?, bias: TensorBytes?, epsilon: Float,
    into y: Region
  ) {
    defer { withExtendedLifetime((weight, bias)) {} }
    let count = product(rows, width)
    unsafe check(
      mwk_layer_norm_f32(
        pointer, rows, width, arena.pointer(x, count: count), weight?.pointer(count: width, of: Float.self),
        bias?.pointer(count: width, of: Float.self), epsilon, arena.pointer(y, count: count)))
  }

  /// Quantizes each row of `x` [rows, width] to u8 with its own scale and zero point.
  /// A row is cut into `groups` runs of equal length, each with its own.
  public func quantizeRows(
    _ arena: inout Arena, rows: Int, width: Int, groups: Int = 1, x: Region, into y: QuantizedRows
  ) {
    let (q, scales, zeros) = unsafe arena.pointers(y, rows: rows, width: width, groups: groups)
    unsafe check(
      mwk_quantize_rows(pointer, rows, width, groups, arena.pointer(x, count: product(rows, width)), q, scales, zeros))
  }

  /// `layerNorm` and then `quantizeRows`, with the same bits, without storing the rows in between.
  public func layerNormQuantize(
    _ arena: inout Arena, rows: Int, width: Int, groups: Int = 1, x: Region, weight: TensorBytes?, bias: TensorBytes?,
    epsilon: Float,
    into y: QuantizedRows
  ) {
    defer { withExtendedLifetime((weight, bias)) {} }
    let (q, scales, zeros) = unsafe arena.pointers(y, rows: rows, width: width, groups: groups)
    unsafe check(
      mwk_layer_norm_quantize(
        pointer, rows, width, groups, arena.pointer(x, count: product(rows, width)),
        weight?.pointer(count: width, of: Float.self), bias?.pointer(count: width, of: Float.self), epsilon, q, scales,
        zeros))
  }

  /// Divides each row of `x` [rows, width] by max(√Σx², 1e-12). `y` may be `x`.
  public func l2Normalize(_ arena: inout Arena, rows: Int, width: Int, x: Region, into y: Region) {
    let count = product(rows, width)
    unsafe check(
      mwk_l2_normalize_f32(pointer, rows, width, arena.pointer(x, count: count), arena.pointer(y, count: count)))
  }
}

extension Arena {
  /// The three checked addresses of quantized rows.
  @unsafe func pointers(
    _ rows: QuantizedRows, rows count: Int, width: Int, groups: Int
  ) -> (UnsafeMutablePointer<UInt8>, UnsafeMutablePointer<Float>, UnsafeMutablePointer<Int32>) {
    Int8Weights.check(inputs: width, groups: groups)
    let stride = QuantizedRows.stride(width: width)
    let scaleCount = product(groups, count)
    return unsafe (
      pointer(rows.values, count: product(count, stride), of: UInt8.self), pointer(rows.scales, count: scaleCount),
      pointer(rows.zeros, count: scaleCount, of: Int32.self)
    )
  }
}
