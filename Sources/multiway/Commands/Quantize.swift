import ArgumentParser
import MultiwayConversion
import MultiwayCore

/// `multiway quantize IN OUT`.
struct Quantize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes a small artifact by a recipe.",
    discussion: """
      To a folder, which ends in /, go int8 weights with their scales as compressed-tensors has them, under the keys of --layout or the \
      file's own: what vLLM and transformers load. They are rounded as they are, without the folding that makes an artifact better.

      Recipes:

      """ + Recipes.all.map { "  \($0.name): \($0.summary)." }.joined(separator: "\n"))

  @Argument(help: "A checkpoint or a floating-point artifact.") var input: String
  @Argument(help: "The artifact: .gguf; or a folder's name with / at its end.") var output: String
  @Option(help: "A recipe's name, or the path of a recipe file (JSON).") var recipe = "int8"
  @Option(help: "Examples to balance the layers on: a safetensors file of inputs. Without it the weights alone decide.")
  var calibration: String?
  @Option(
    help: ArgumentHelp("unilm, timm or huggingface: the keys of that code base, to a folder.", valueName: "layout"))
  var layout: Convert.Layout?
  @OptionGroup var inputs: InputArguments
  @OptionGroup var sources: SourceArguments
  @OptionGroup var memory: MemoryArguments
  @OptionGroup var outputs: OutputArguments

  func run() throws { try memory.limit { try work() } }

  private func work() throws {
    let start = System.now
    try OutputKind.checkDestination(output, overwrite: outputs.force)
    let recipe = try Recipes.find(recipe)
    let model = try LoadedModel(try sources.open(input, for: output), options: inputs.options)
    let bar = ProgressBar("quantizing")
    if try OutputKind(path: output) == .folder {
      guard calibration == nil else {
        throw ConversionError(
          .usage, "calibration decides what folds into the layers, and into compressed tensors nothing folds",
          remedy: "leave --calibration out", file: output)
      }
      let report = try Conversions.quantizeToFolder(
        model, recipe: recipe, layout: layout?.rawValue, to: output, overwrite: outputs.force
      ) { bar.update($0, $1) }
      report.show(title: "quantized (\(recipe.name))", seconds: System.now - start, json: outputs.json)
      return
    }
    guard layout == nil else {
      throw ConversionError(
        .usage, "an artifact has no key layout", expected: "an output that ends in /", file: output)
    }
    let calibration = try calibration.map { path in
      let examples = try TensorFiles.readInputs(path, for: model.graph)
      let name = path.split(separator: "/").last.map(String.init) ?? path
      return Calibration(inputs: examples.tensors, description: "inputs of \(name)")
    }
    let report = try Conversions.quantize(
      model, recipe: recipe, calibration: calibration, to: output, overwrite: outputs.force
    ) { bar.update($0, $1) }
    report.show(title: "quantized (\(recipe.name))", seconds: System.now - start, json: outputs.json)
  }
}
