/// What a recipe promises about a model's outputs, measured against the fp32 reference.
public struct Gates: Sendable, Hashable {
  /// The least SQNR of every output, in dB.
  public var outputSQNR: Double
  /// The least SQNR of every linear layer on the reference's own activations, in dB; checked where layers are compared.
  public var layerSQNR: Double?
  /// The least share of equal answers, for classifiers.
  public var topOneAgreement: Double

  /// Makes gates.
  public init(outputSQNR: Double, layerSQNR: Double? = nil, topOneAgreement: Double) {
    self.outputSQNR = outputSQNR
    self.layerSQNR = layerSQNR
    self.topOneAgreement = topOneAgreement
  }
}
