public import MultiwayCore
public import MultiwayGraph

/// A parameter that an architecture declares: what a checkpoint has to bring.
public struct ParameterDeclaration: Sendable {
  /// Whether a checkpoint may lack it.
  public enum Presence: Hashable, Sendable {
    /// It must be there.
    case required
    /// It may be absent on its own.
    case optional
    /// All parameters of the group are there, or none.
    case group(String)
  }

  /// The canonical name, which is also the constant's name in the graph: `layers.3.vision.query.weight`.
  public var name: String
  /// The shape in the checkpoint.
  public var shape: Shape
  /// What it is for.
  public var role: Role
  /// Which tokens it serves.
  public var modality: Modality
  /// Whether it may be absent.
  public var presence: Presence

  /// Declares a parameter.
  public init(_ name: String, _ shape: Shape, _ role: Role, _ modality: Modality, _ presence: Presence = .required) {
    self.name = name
    self.shape = shape
    self.role = role
    self.modality = modality
    self.presence = presence
  }
}

/// What can be wrong between a checkpoint and the architectures.
public enum ModelErrorCode: FailureCode {
  /// No architecture has keys like these.
  case unknownArchitecture
  /// The architecture is known, but a part of it is not supported.
  case unsupported
  /// Keys are missing, left over or mis-shaped.
  case keysDoNotFit

  /// The exit code class.
  public var category: FailureCategory { .data }
}

/// An error about a model.
public typealias ModelError = Failure<ModelErrorCode>
