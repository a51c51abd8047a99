/// A change of the size of a table that has one row for every place of a square grid: absolute positions, or relative position
/// biases. Rows before and behind the grid's stay as they are.
public struct Resampling: Hashable, Sendable {
  /// How values between grid points are found. The original implementations differ, and so do their results.
  public enum Method: String, CaseIterable, Sendable {
    /// Cubic convolution with a = −0.75 and no antialiasing: `F.interpolate(mode="bicubic")`. unilm and transformers, for positions.
    case bicubic
    /// Cubic convolution with a = −0.5, widened where the grid shrinks: `F.interpolate(mode="bicubic", antialias=True)`. timm, for
    /// positions.
    case bicubicAntialiased
    /// `F.interpolate(mode="bilinear")`. transformers, for bias tables.
    case bilinear
    /// Bias tables in timm: source points in geometric progression, lines between them.
    case geometricLinear
    /// Bias tables in unilm: source points in geometric progression, a cubic spline through them (SciPy's `interp2d`).
    case geometricCubic
  }

  /// How values are found.
  public var method: Method
  /// The source's points along a side.
  public var from: Int
  /// The result's points along a side.
  public var to: Int
  /// Rows before the grid's.
  public var leadingRows: Int
  /// Rows behind the grid's.
  public var trailingRows: Int

  /// Describes a change of size.
  public init(_ method: Method, from: Int, to: Int, leadingRows: Int = 0, trailingRows: Int = 0) {
    self.method = method
    self.from = from
    self.to = to
    self.leadingRows = leadingRows
    self.trailingRows = trailingRows
  }

  /// The number of rows of the result.
  public var rows: Int { leadingRows + to * to + trailingRows }
}
