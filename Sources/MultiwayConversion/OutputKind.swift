public import MultiwayCore

/// What an output file is, from its extension.
public enum OutputKind: String, CaseIterable, Sendable {
  /// An artifact, or a plain GGUF container.
  case gguf
  /// A safetensors file.
  case safetensors
  /// An ONNX model.
  case onnx

  /// Finds the kind of a path.
  public init(path: String) throws(ConversionError) {
    let name = path.split(separator: "/", omittingEmptySubsequences: false).last.map(String.init) ?? path
    let suffix = name.lastIndex(of: ".").map { String(name[name.index(after: $0)...]) } ?? ""
    guard let kind = OutputKind(rawValue: suffix.lowercased()) else {
      throw ConversionError(
        .usage, suffix.isEmpty ? "the output has no extension" : "outputs of the kind .\(suffix) are not supported",
        expected: OutputKind.allCases.map { "." + $0.rawValue }.joined(separator: ", "), file: path)
    }
    self = kind
  }
}
