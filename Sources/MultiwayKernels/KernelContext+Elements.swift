import CMultiwayKernels
public import MultiwayCore

extension KernelContext {
  /// y = x · Φ(x), the exact gelu, for `count` f32 elements. `y` may be `x`.
  public func gelu(_ arena: inout Arena, count: Int, x: Region, into y: Region) {
    unsafe check(mwk_gelu_f32(pointer, count, arena.pointer(x, count: count), arena.pointer(y, count: count)))
  }

  /// y = tanh x for `count` f32 elements. `y` may be `x`.
  public func tanh(_ arena: inout Arena, count: Int, x: Region, into y: Region) {
    unsafe check(mwk_tanh_f32(pointer, count, arena.pointer(x, count: count), arena.pointer(y, count: count)))
  }

  /// y = max(x, 0) for `count` f32 elements; NaN stays. `y` may be `x`.
  public func relu(_ arena: inout Arena, count: Int, x: Region, into y: Region) {
    unsafe check(mwk_relu_f32(pointer, count, arena.pointer(x, count: count), arena.pointer(y, count: count)))
  }

  /// y = eˣ for `count` f32 elements. `y` may be `x`.
  public func exp(_ arena: inout Arena, count: Int, x: Region, into y: Region) {
    unsafe check(mwk_exp_f32(pointer, count, arena.pointer(x, count: count), arena.pointer(y, count: count)))
  }

  /// y = a + b for `count` f32 elements. `y` may be `a` or `b`.
  public func add(_ arena: inout Arena, count: Int, _ a: Region, _ b: Region, into y: Region) {
    unsafe check(
      mwk_add_f32(
        pointer, count, arena.pointer(a, count: count), arena.pointer(b, count: count), arena.pointer(y, count: count)))
  }

  /// y = factor · x for `count` f32 elements. `y` may be `x`.
  public func scale(_ arena: inout Arena, count: Int, by factor: Float, x: Region, into y: Region) {
    unsafe check(mwk_scale_f32(pointer, count, factor, arena.pointer(x, count: count), arena.pointer(y, count: count)))
  }

  /// Adds row i mod `tableRows` of a constant table [tableRows, width] to row i of `x` [rows, width]. `y` may be `x`.
  public func add(
    _ arena: inout Arena, rows: Int, width: Int, x: Region, table: TensorBytes, tableRows: Int, into y: Region
  ) {
    precondition(tableRows > 0, "the table is empty")
    defer { withExtendedLifetime(table) {} }
    let count = product(rows, width)
    unsafe check(
      mwk_add_table_f32(
        pointer, rows, width, arena.pointer(x, count: count), tableRows,
        table.pointer(count: product(tableRows, width), of: Float.self), arena.pointer(y, count: count)))
  }

  /// Multiplies row i of `x` [rows, width] by row i mod `tableRows` of a constant table. `y` may be `x`.
  public func multiply(
    _ arena: inout Arena, rows: Int, width: Int, x: Region, table: TensorBytes, tableRows: Int = 1, into y: Region
  ) {
    precondition(tableRows > 0, "the table is empty")
    defer { withExtendedLifetime(table) {} }
    let count = product(rows, width)
    unsafe check(
      mwk_multiply_table_f32(
        pointer, rows, width, arena.pointer(x, count: count), tableRows,
        table.pointer(count: product(tableRows, width), of: Float.self), arena.pointer(y, count: count)))
  }
}
