import ArgumentParser
import MultiwayConversion
import MultiwayCore

/// `multiway quantize IN OUT`.
struct Quantize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes a small artifact by a recipe.",
    discussion: "Recipes:\n" + Recipes.all.map { "  \($0.name): \($0.summary)." }.joined(separator: "\n"))

  @Argument(help: "A checkpoint or a floating-point artifact.") var input: String
  @Argument(help: "The artifact: .gguf.") var output: String
  @Option(help: "A recipe's name, or the path of a recipe file (JSON).") var recipe = "int8"
  @Option(help: "Examples to balance the layers on: a safetensors file of inputs. Without it the weights alone decide.")
  var calibration: String?
  @OptionGroup var inputs: InputArguments
  @OptionGroup var sources: SourceArguments
  @OptionGroup var memory: MemoryArguments
  @OptionGroup var outputs: OutputArguments

  func run() throws { try memory.limit { try work() } }

  private func work() throws {
    let start = System.now
    try OutputFile.checkDestination(output, overwrite: outputs.force)
    let recipe = try Recipes.find(recipe)
    let model = try LoadedModel(try sources.open(input, for: output), options: inputs.options)
    let calibration = try calibration.map { path in
      let examples = try TensorFiles.readInputs(path, for: model.graph)
      let name = path.split(separator: "/").last.map(String.init) ?? path
      return Calibration(inputs: examples.tensors, description: "inputs of \(name)")
    }
    let bar = ProgressBar("quantizing")
    let report = try Conversions.quantize(
      model, recipe: recipe, calibration: calibration, to: output, overwrite: outputs.force
    ) { bar.update($0, $1) }
    report.show(title: "quantized (\(recipe.name))", seconds: System.now - start, json: outputs.json)
  }
}
