import CMultiwayKernels
public import MultiwayCore

extension KernelContext {
  /// The mean over the tokens in `range` of `x` [batch, tokens, width], as y [batch, width].
  public func meanRows(
    _ arena: inout Arena, batch: Int, tokens: Int, width: Int, range: Range<Int>, x: Region, into y: Region
  ) {
    precondition(range.lowerBound >= 0 && range.upperBound <= tokens, "the tokens lie outside the sequence")
    precondition(!y.overlaps(x), "the result overlaps its input")
    unsafe check(
      mwk_mean_rows_f32(
        pointer, batch, tokens, width, range.lowerBound, range.count,
        arena.pointer(x, count: product(batch, tokens, width)), arena.pointer(y, count: product(batch, width))))
  }

  /// Cuts images [images, channels, height, width] into patches: [images · (height/p) · (width/p), channels · p · p],
  /// each row in the order of a convolution's weights (channel, row, column).
  public func patchify(
    _ arena: inout Arena, images: Int, channels: Int, height: Int, width: Int, patch: Int, x: Region, into y: Region
  ) {
    precondition(patch > 0 && height % patch == 0 && width % patch == 0, "the image is not a whole number of patches")
    precondition(!y.overlaps(x), "the result overlaps its input")
    let count = product(images, channels, height, width)
    unsafe check(
      mwk_patchify_f32(
        pointer, images, channels, height, width, patch, arena.pointer(x, count: count),
        arena.pointer(y, count: count)))
  }

  /// Copies the rows of `table` [tableRows, width] that `ids` names, decoded to f32, to y [ids.count, width].
  ///
  /// Every id must be in 0 ..< tableRows: check what comes from outside before.
  public func gatherRows(
    _ arena: inout Arena, table: TensorBytes, type: WeightType, tableRows: Int, width: Int, ids: [Int], into y: Region
  ) {
    precondition(ids.allSatisfy { $0 >= 0 && $0 < tableRows }, "an id lies outside the table")
    defer { withExtendedLifetime(table) {} }
    let source = unsafe table.pointer(count: product(tableRows, width, type.byteWidth), of: UInt8.self)
    let target = unsafe arena.pointer(y, count: product(ids.count, width))
    let rows = ids.map(Int64.init)
    unsafe rows.withUnsafeBufferPointer { rows in
      guard let first = rows.baseAddress else { return }
      unsafe check(mwk_gather_rows_f32(pointer, rows.count, width, type.code, source, first, target))
    }
  }

  /// Copies rows of `width` f32 elements from rows `xStride` apart to rows `yStride` apart.
  public func copyRows(
    _ arena: inout Arena, rows: Int, width: Int, x: Region, xStride: Int, into y: Region, yStride: Int
  ) {
    precondition(!y.overlaps(x) || rows == 0, "the result overlaps its input")
    let source = unsafe arena.pointer(x, count: extent(rows: rows, width: width, stride: xStride))
    let target = unsafe arena.pointer(y, count: extent(rows: rows, width: width, stride: yStride))
    for row in 0..<rows { unsafe (target + row * yStride).update(from: source + row * xStride, count: width) }
  }
}
