import MultiwayCore

/// Everything that is wrong between a checkpoint's keys and a declaration.
struct KeyProblems {
  var missing: [String] = []
  var leftOver: [String] = []
  var misshapen: [String] = []

  /// How many keys of a kind the error lists.
  private static let maximumLines = 1000

  /// What advice looks at.
  var sample: KeyProblems {
    KeyProblems(
      missing: OrdinaryKeys.sample(missing), leftOver: OrdinaryKeys.sample(leftOver),
      misshapen: OrdinaryKeys.sample(misshapen))
  }

  /// The error that lists it all, and what may mend it; nil where nothing is wrong.
  func error(model: String, layout: String, tensors: [StoredTensor], file: String) -> ModelError? {
    guard !missing.isEmpty || !leftOver.isEmpty || !misshapen.isEmpty else { return nil }
    var lines = ["the keys do not fit \(model) (\(layout) layout)"]
    for (title, keys) in [("missing", missing), ("mis-shaped", misshapen), ("unexpected", leftOver)] where !keys.isEmpty
    {
      lines.append("  \(title) (\(keys.count)):")
      lines += keys.prefix(KeyProblems.maximumLines).map { "    " + $0 }
      if keys.count > KeyProblems.maximumLines { lines.append("    and \(keys.count - KeyProblems.maximumLines) more") }
    }
    let advice = ImportDoctor.advice(for: self, tensors: tensors)
    return ModelError(
      .keysDoNotFit, lines.joined(separator: "\n"),
      remedy: (advice + [
        "check that the file holds the whole model; `multiway convert IN OUT.safetensors` needs no known architecture"
      ]).joined(separator: "\n"),
      file: file)
  }
}
