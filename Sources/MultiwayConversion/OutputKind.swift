public import MultiwayCore

/// What an output is, from its extension, or from the slash at its end.
public enum OutputKind: String, CaseIterable, Sendable {
  /// An artifact, or a plain GGUF container.
  case gguf
  /// A safetensors file.
  case safetensors
  /// An ONNX model.
  case onnx
  /// A PyTorch checkpoint.
  case pth
  /// A folder with safetensors and the JSON files by which loaders find a model.
  case folder

  /// Finds the kind of a path.
  public init(path: String) throws(ConversionError) {
    let name = path.split(separator: "/", omittingEmptySubsequences: false).last.map(String.init) ?? path
    let suffix = name.lastIndex(of: ".").map { String(name[name.index(after: $0)...]) } ?? ""
    let kind = OutputKind(rawValue: suffix.lowercased())
    // A folder that is there needs no slash, unless its name is that of another kind: then somebody meant a file.
    if name.isEmpty || kind == nil && Folder.exists(path) {
      self = .folder
      return
    }
    guard let kind, kind != .folder else {
      throw ConversionError(
        .usage, suffix.isEmpty ? "the output has no extension" : "outputs of the kind .\(suffix) are not supported",
        expected: OutputKind.names, file: path)
    }
    self = kind
  }

  /// `.gguf, .safetensors, …`, for messages.
  private static var names: String {
    (allCases.filter { $0 != .folder }.map { "." + $0.rawValue } + ["a folder's name with / at its end"])
      .joined(separator: ", ")
  }

  /// True for the kinds that hold a state dict under the keys of a code base.
  var holdsStateDict: Bool { self == .safetensors || self == .pth || self == .folder }

  /// Refuses an output that cannot be written before anything is read: one that exists, or is an input. What is in a folder is looked at when
  /// its files' names are known.
  public static func checkDestination(_ path: String, overwrite: Bool) throws {
    if try OutputKind(path: path) != .folder { try OutputFile.checkDestination(path, overwrite: overwrite) }
  }
}
