import ArgumentParser
import MultiwayConversion
import MultiwayCore
import MultiwayGraph

/// `multiway prune IN OUT`.
struct Prune: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Drops the experts that are not needed, exactly.",
    discussion: """
      With --keep the experts of one modality stay, and the outputs for that modality's inputs stay the same to the last bit. \
      Without it everything goes that the model's task never reaches: for ImageNet classification all text experts.
      """)

  @Argument(help: "A checkpoint or an artifact.") var input: String
  @Argument(help: "The output: .gguf, .onnx, or .safetensors, .pth or a folder for the checkpoint's own tensors.")
  var output: String
  @Option(help: "The modality to keep: vision or text.") var keep: Keep?
  @OptionGroup var inputs: InputArguments
  @OptionGroup var sources: SourceArguments
  @OptionGroup var memory: MemoryArguments
  @OptionGroup var outputs: OutputArguments

  enum Keep: String, ExpressibleByArgument, CaseIterable {
    case vision, text
  }

  func run() throws { try memory.limit { try work() } }

  private func work() throws {
    let start = System.now
    try OutputKind.checkDestination(output, overwrite: outputs.force)
    let model = try LoadedModel(try sources.open(input, for: output), options: inputs.options)
    let bar = ProgressBar("pruning")
    let report = try Conversions.prune(
      model, keep: keep.flatMap { Modality(rawValue: $0.rawValue) }, to: output, overwrite: outputs.force
    ) { bar.update($0, $1) }
    report.show(title: "pruned", seconds: System.now - start, json: outputs.json)
  }
}
