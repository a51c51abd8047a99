import MultiwayCore

/// Prefixes that training frameworks put before every key of a model: data parallelism, compilation, trainers.
enum WrapperPrefix {
  private static let known = [
    "module.", "_orig_mod.", "model.", "_forward_module.", "state_dict.", "net.", "ema_model.",
  ]

  /// The tensors without the prefixes that all keys have, and a note where there were any.
  static func strip(_ tensors: [StoredTensor]) -> (tensors: [StoredTensor], note: String?) {
    var prefix = ""
    while !tensors.isEmpty,
      let next = known.lazy.map({ prefix + $0 }).first(where: { longer in
        tensors.allSatisfy { $0.name.utf8.count > longer.utf8.count && $0.name.hasPrefix(longer) }
      })
    {
      prefix = next
    }
    guard !prefix.isEmpty else { return (tensors, nil) }
    let stripped = tensors.map { tensor in
      var tensor = tensor
      tensor.name = String(tensor.name.dropFirst(prefix.count))
      return tensor
    }
    return (stripped, "every key starts with '\(prefix)', which a training framework added")
  }
}
