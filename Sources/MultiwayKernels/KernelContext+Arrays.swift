extension KernelContext {
  /// gelu of every element, with the same bits as in a model.
  public func gelu(_ elements: [Float]) throws(KernelError) -> [Float] {
    let region = Region(byteOffset: 0, byteCount: product(elements.count, 4))
    var arena = try Arena(byteCount: region.byteCount)
    arena.write(elements, at: region)
    gelu(&arena, count: elements.count, x: region, into: region)
    return arena.read(region)
  }
}
