import MultiwayCore

/// The folder of a Hugging Face model: weights in one file or in shards, and JSON files beside them.
enum ModelFolder {
  /// The name of weights in one safetensors file.
  static let safetensors = "model.safetensors"
  /// The name of the index of safetensors shards.
  static let safetensorsIndex = "model.safetensors.index.json"
  /// The names of the weights, in the order in which they are looked for.
  static let weightNames = [safetensors, safetensorsIndex, "pytorch_model.bin", "pytorch_model.bin.index.json"]

  /// The JSON files that are read into the metadata, and the keys that they get there.
  static let companions = [("config.json", "config"), ("preprocessor_config.json", "preprocessor_config")]

  /// The largest of them that is read, in bytes.
  private static let maximumCompanionSize = 16 << 20

  /// The folder part of a path.
  static func folder(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  /// Reads the checkpoint in the folder `path`.
  static func read(_ path: String) throws -> Checkpoint {
    let folder = try Folder(path: path)
    guard let (name, file) = try weights(in: folder) else { throw nothing(in: folder) }
    var checkpoint = try CheckpointFormats.read(file)
    checkpoint.path = path
    checkpoint.notes.insert("the folder's weights: \(name)", at: 0)
    return checkpoint
  }

  private static func weights(in folder: borrowing Folder) throws -> (name: String, file: MappedFile)? {
    for name in weightNames {
      if let file = try ModelFolder.file(name, in: folder) { return (name, file) }
    }
    return nil
  }

  /// A file of the folder, nil if there is none of that name.
  static func file(_ name: String, in folder: borrowing Folder) throws(FileError) -> MappedFile? {
    do throws(FileError) {
      return try folder.open(name)
    } catch {
      if error.code == .notFound { return nil }
      throw error
    }
  }

  /// The JSON files that lie beside the weights of a model in such a folder; none beside a file of another name.
  static func metadata(beside path: String) throws(CheckpointError) -> [(name: String, key: String, value: JSONObject)]
  {
    let name = path.split(separator: "/").last.map(String.init) ?? path
    guard weightNames.contains(name) else { return [] }
    do {
      let folder = try Folder(path: folder(of: path))
      var found: [(name: String, key: String, value: JSONObject)] = []
      for (name, key) in companions {
        guard let file = try file(name, in: folder) else { continue }
        found.append((name, key, try JSONFile.object(file, limit: maximumCompanionSize)))
      }
      return found
    } catch let error as CheckpointError {
      throw error
    } catch let error as FileError {
      throw CheckpointError(error.code == .leavesFolder ? .leavesFolder : .missingRecord, error.diagnosis)
    } catch {
      throw CheckpointError(.missingRecord, "\(error)", file: path)
    }
  }

  /// Turns what a conversion to safetensors kept of these files, as text, back into objects.
  static func restore(_ metadata: inout JSONObject) {
    for (_, key) in companions {
      guard let text = metadata[key]?.string, let value = try? JSONParser.parse(Array(text.utf8)), value.object != nil
      else { continue }
      metadata[key] = value
    }
  }

  /// The error for a folder without weights: what it is instead, where that can be told.
  private static func nothing(in folder: borrowing Folder) -> CheckpointError {
    let names = folder.names
    if names.contains(where: { $0.contains("zero_pp_rank_") || $0.hasPrefix("global_step") }) {
      return CheckpointError(
        .unsupported, "this is the folder of a DeepSpeed ZeRO checkpoint, whose tensors are split over the ranks",
        expected: "a file or folder with whole tensors",
        remedy: "run the zero_to_fp32.py that lies beside it: `python zero_to_fp32.py . pytorch_model.bin`",
        file: folder.path)
    }
    if names.contains(where: { $0.hasSuffix(".distcp") }) {
      return CheckpointError(
        .unsupported, "this is the folder of a distributed PyTorch checkpoint, whose tensors are split",
        expected: "a file or folder with whole tensors",
        remedy: "run `python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE`", file: folder.path)
    }
    return CheckpointError(
      .noTensors, "the folder holds \(names.isEmpty ? "nothing" : listed(names))",
      expected: "one of " + weightNames.joined(separator: ", "), remedy: "give the file with the weights",
      file: folder.path)
  }
}
