public import MultiwayCore

/// A version of the standard's operators, which decides what single ops there are and what their inputs are.
public struct ONNXOpset: Hashable, Sendable {
  /// The number.
  public let version: Int

  /// The versions that are written. Below 13 the masks, softmax and axes differ; no op of ours changed for the better above 21.
  public static let supported = 13...21
  /// What is written unless another is asked for: the first with LayerNormalization, which every current consumer reads.
  public static let standard = ONNXOpset(uncheckedVersion: 17)

  private init(uncheckedVersion version: Int) { self.version = version }

  /// Takes a version; throws `.unsupportedOpset` for one that is not written.
  public init(_ version: Int) throws(ONNXError) {
    guard ONNXOpset.supported.contains(version) else {
      throw ONNXError(
        .unsupportedOpset, "opset \(version)",
        expected: "\(ONNXOpset.supported.lowerBound) to \(ONNXOpset.supported.upperBound)",
        remedy: "leave it out to write opset \(ONNXOpset.standard.version), or ask your consumer what it reads")
    }
    self.version = version
  }

  /// The oldest version of the file format that knows the opset.
  public var irVersion: Int {
    switch version {
    case ..<15: 7
    case ..<19: 8
    case ..<21: 9
    default: 10
    }
  }

  /// LayerNormalization is one op.
  var hasLayerNormalization: Bool { version >= 17 }
  /// Gelu is one op.
  var hasGelu: Bool { version >= 20 }
  /// The axes of reductions other than ReduceSum are an input, not an attribute.
  var hasAxesAsInput: Bool { version >= 18 }
}
