import CMultiwayKernels

extension KernelContext {
  /// For each row of `x` [rows, width] its largest element, NaN left out, and Σ exp(x − largest): what makes logarithms of
  /// probabilities. −∞ and 0 for rows without elements.
  public func exponentialSums(_ x: [Float], width: Int) -> [(largest: Float, sum: Double)] {
    precondition(width > 0 && x.count % width == 0, "the elements do not fill rows")
    let rows = x.count / width
    var largest = [Float](repeating: 0, count: rows)
    var sums = [Double](repeating: 0, count: rows)
    unsafe check(mwk_exp_sums(pointer, rows, width, x, &largest, &sums))
    return zip(largest, sums).map { ($0, $1) }
  }
}
