import ArgumentParser
import MultiwayArtifact
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayModels
import MultiwayParity

/// `multiway inspect FILE`.
struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says what a file holds, without reading its weights.",
    discussion: """
      For a pickle it also lists what the file wanted to call; nothing of it is ever called. --verify reads a file that multiway \
      wrote and compares the digests of every tensor, and of everything else, with those that it records; exit code 65 names the first \
      damaged tensor.
      """)

  @Argument(help: "A checkpoint or an artifact: a file, an index of shards, or a model's folder.") var file: String
  @Flag(help: "List every tensor.") var tensors = false
  @Flag(help: "Print the graph of the model.") var graph = false
  @Flag(help: "Compare every tensor, and all else, with the digests that the file records.") var verify = false
  @Flag(help: "Print one JSON object instead of text.") var json = false
  @OptionGroup var input: InputArguments

  func run() throws {
    let opened = try ModelFile.open(file)
    let bar = ProgressBar("verifying")
    let verification = verify ? try DigestVerification.verify(file) { bar.update($0, $1) } : nil
    let inspection = try Inspection(opened, options: input.options, verification: verification)
    if json {
      Console.print(inspection.json(listsTensors: tensors).text(indented: true))
      return
    }
    Console.print(Text.table(inspection.rows))
    if tensors { Console.print("\n" + inspection.tensorTable) }
    if graph, let model = inspection.model { Console.print("\n" + model.graph.description) }
  }
}

/// What there is to say about a file.
private struct Inspection {
  let file: ModelFile
  let tensors: [StoredTensor]
  let stateDict: String?
  /// The model, nil where the architecture is unknown or the keys do not fit.
  let model: LoadedModel?
  /// Why there is no model.
  let problem: String?
  let verification: DigestVerification.Report?

  init(_ file: ModelFile, options: InputOptions, verification: DigestVerification.Report?) throws {
    self.file = file
    self.verification = verification
    switch file {
    case .artifact:
      let loaded = try LoadedModel(file)
      tensors = loaded.storedTensors
      (model, problem, stateDict) = (loaded, nil, nil)
    case .checkpoint(let checkpoint):
      let dictionary = try checkpoint.stateDict(named: options.stateDict)
      tensors = dictionary.tensors
      stateDict = dictionary.name
      do {
        model = try LoadedModel(file, options: options)
        problem = nil
      } catch let error as ModelError {
        model = nil
        problem = error.description
      }
    }
  }

  var rows: [[String]] {
    var rows = [
      ["file", file.path], ["format", "\(file.format), \(Text.bytes(file.byteCount))"],
      ["tensors", "\(tensors.count), \(Text.count(elementCount)) elements: \(dtypes)"],
    ]
    if let model {
      rows.append(["model", model.summary])
      let reached = model.graph.parameterCount
      rows.append(["parameters", "\(Text.count(model.parameterCount)), the task reaches \(Text.count(reached))"])
      rows.append([
        "inputs", model.graph.inputs.map { "\(model.graph[$0].name) \(model.graph[$0].type)" }.joined(separator: ", "),
      ])
      rows.append([
        "outputs", model.graph.outputs.map { "\($0.name) \(model.graph[$0.value].type)" }.joined(separator: ", "),
      ])
      rows += model.hyperparameters.map { ["  " + $0.name, $0.value] }
      if let layout = model.model?.layout { rows.append(["layout", layout]) }
      rows += model.assumptions.map { ["assumed", $0] }
      rows += model.notes.map { ["note", $0] }
    }
    if let problem { rows.append(["model", "none: " + problem.replacing("\n", with: "\n  ")]) }
    rows += file.recordedFiles.map { file in
      ["made from", "\(file.name), \(Text.bytes(file.byteCount))" + (file.sha256.map { ", sha256 \($0)" } ?? "")]
    }
    if let verification {
      rows.append([
        "verified",
        "\(verification.tensorCount) tensors, \(Text.bytes(verification.byteCount)), "
          + (verification.coversHeader ? "and all else: " : "header not covered: ") + verification.algorithm,
      ])
    }
    return rows + containerRows
  }

  private var containerRows: [[String]] {
    switch file {
    case .artifact(let artifact):
      var rows = [["recipe", artifact.metadata.recipe["name"]?.string ?? "none"]]
      if let license = artifact.metadata.license { rows.append(["licence", license]) }
      if let certificate = artifact.metadata.certificate {
        rows.append(["certificate", certificate["verdict"]?.string ?? "unreadable"])
      }
      return rows + [["written by", "multiway " + artifact.metadata.toolVersion]]
    case .checkpoint(let checkpoint):
      var rows: [[String]] = []
      let names = checkpoint.stateDicts.map { $0.name.isEmpty ? "(bare)" : $0.name }
      if names.count > 1 || names != ["(bare)"] {
        rows.append(["state dict", names.joined(separator: ", ") + (names.count > 1 ? "; the first is taken" : "")])
      }
      if !checkpoint.opaqueRecords.isEmpty {
        rows.append(["never called", checkpoint.opaqueRecords.joined(separator: ", ")])
      }
      return rows + checkpoint.notes.map { ["note", $0] }
    }
  }

  var tensorTable: String {
    Text.table(
      [["tensor", "dtype", "shape", "bytes"]]
        + tensors.map { [$0.name, $0.typeName, $0.shape.description, Text.count($0.storedByteCount)] },
      rightAligned: [3])
  }

  func json(listsTensors: Bool) -> JSONValue {
    var object: JSONObject = [
      "file": .string(file.path), "format": .string(file.format), "bytes": .integer(file.byteCount),
      "tensor_count": .integer(tensors.count), "element_count": .integer(elementCount),
    ]
    if let model {
      object["model"] = .string(model.summary)
      object["parameters"] = .integer(model.parameterCount)
      object["reached_parameters"] = .integer(model.graph.parameterCount)
      object["task"] = .string(model.task)
      object["inputs"] = .object(
        names(model.graph.inputs.map { (model.graph[$0].name, model.graph[$0].type.description) }))
      object["outputs"] = .object(names(model.graph.outputs.map { ($0.name, model.graph[$0.value].type.description) }))
      object["hyperparameters"] = .object(names(model.hyperparameters))
      object["assumptions"] = .array(model.assumptions.map { .string($0) })
    }
    if let problem { object["problem"] = .string(problem) }
    addContainer(to: &object)
    object["made_from"] = .array(
      file.recordedFiles.map { file in
        var object: JSONObject = ["name": .string(file.name), "bytes": .integer(file.byteCount)]
        object["sha256"] = file.sha256.map { .string($0) }
        return .object(object)
      })
    if let verification {
      object["verified"] = .object([
        "tensors": .integer(verification.tensorCount), "bytes": .integer(verification.byteCount),
        "header": .bool(verification.coversHeader), "digest": .string(verification.algorithm),
      ])
    }
    if listsTensors {
      object["tensors"] = .array(
        tensors.map { tensor in
          .object([
            "name": .string(tensor.name), "dtype": .string(tensor.typeName),
            "shape": .array(tensor.shape.dimensions.map { .integer($0) }), "bytes": .integer(tensor.storedByteCount),
          ])
        })
    }
    return .object(object)
  }

  private func addContainer(to object: inout JSONObject) {
    switch file {
    case .artifact(let artifact):
      object["recipe"] = .object(artifact.metadata.recipe)
      if let certificate = artifact.metadata.certificate { object["certificate"] = certificate }
    case .checkpoint(let checkpoint):
      object["state_dicts"] = .array(checkpoint.stateDicts.map { .string($0.name) })
      object["never_called"] = .array(checkpoint.opaqueRecords.map { .string($0) })
      object["metadata"] = .object(checkpoint.metadata)
      object["notes"] = .array(checkpoint.notes.map { .string($0) })
    }
  }

  private func names(_ pairs: [(name: String, value: String)]) -> JSONObject {
    var object = JSONObject()
    for (name, value) in pairs { object[name] = .string(value) }
    return object
  }

  private var elementCount: Int { tensors.reduce(0) { $0 &+ $1.shape.elementCount } }

  private var dtypes: String {
    var counts: [String: Int] = [:]
    for tensor in tensors { counts[tensor.typeName, default: 0] += 1 }
    let names = DType.allCases.map(\.shortName) + BlockType.allCases.map(\.rawValue)
    return names.compactMap { name in counts[name].map { "\($0) × \(name)" } }.joined(separator: ", ")
  }
}
