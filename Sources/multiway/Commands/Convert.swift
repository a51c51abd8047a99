import ArgumentParser
import MultiwayConversion
import MultiwayCore

/// `multiway convert IN OUT`.
struct Convert: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes the same model in another container, dtype, key layout or image size.",
    discussion: """
      To .safetensors and .pth every tensor goes under its own name and with its own bytes unless --dtype asks otherwise; no known \
      architecture is needed. To a folder, which ends in /, go safetensors, whole or in shards, and the config.json and \
      preprocessor_config.json by which transformers and timm load the model by name. To .gguf a model of a known architecture becomes an artifact that runs; of an unknown one, a plain container. \
      --layout gives the parameters the keys and shapes of another code base, so that it loads them strictly; --image-size resizes \
      position tables as the code base of the input's own layout does. To .onnx goes the graph of a known architecture or an artifact; weights \
      of more than 64 MiB lie in a file beside it, OUT.onnx.DIGEST.data. --int8 makes a floating-point model int8 as `quantize` does.
      """)

  @Argument(help: "A checkpoint or an artifact.") var input: String
  @Argument(help: "The output: .gguf, .safetensors, .pth, .onnx, or a folder's name with / at its end.") var output:
    String
  @Option(help: ArgumentHelp("keep, f32, f16 or bf16: the dtype of floating-point tensors.", valueName: "dtype"))
  var dtype: Target = .keep
  @Option(
    help: ArgumentHelp(
      "unilm, timm or huggingface: the keys of that code base, to .safetensors, .pth or a folder.", valueName: "layout")
  )
  var layout: Layout?
  @Option(help: ArgumentHelp("The side of the image in pixels that positions are resized for.", valueName: "pixels"))
  var imageSize: Int?
  @Option(help: ArgumentHelp("The version of ONNX's operators, to .onnx; 17 unless given.", valueName: "version"))
  var opset: Int?
  @Option(
    help: ArgumentHelp(
      "dynamic or qdq: int8 layers to .onnx, with ranges of activations found when it runs or fixed now.",
      valueName: "form"))
  var int8: Form?
  @Option(
    help:
      "Examples for --int8: a safetensors file of inputs, from which qdq takes the ranges; synthetic ones without it.")
  var calibration: String?
  @Option(
    help: ArgumentHelp(
      "How large a file of weights may be, to a folder: 2GB, 500MB, 1GiB or a number of bytes.", valueName: "size"))
  var shardSize: ByteSize?
  @OptionGroup var inputs: InputArguments
  @OptionGroup var sources: SourceArguments
  @OptionGroup var memory: MemoryArguments
  @OptionGroup var outputs: OutputArguments

  enum Target: String, ExpressibleByArgument, CaseIterable {
    case keep, f32, f16, bf16
  }

  enum Form: String, ExpressibleByArgument, CaseIterable {
    case dynamic, qdq
  }

  enum Layout: String, ExpressibleByArgument, CaseIterable {
    case unilm, timm, huggingface
  }

  func run() throws { try memory.limit { try work() } }

  private func work() throws {
    let start = System.now
    try OutputKind.checkDestination(output, overwrite: outputs.force)
    let file = try sources.open(input, for: output)
    let bar = ProgressBar("converting")
    var options = inputs.options
    options.imageSize = imageSize
    var onnx = ONNXOptions(opset: opset, int8: int8.flatMap { Int8Form(rawValue: $0.rawValue) })
    onnx.calibration = try calibration.map { path in
      Calibration(
        inputs: try TensorFiles.readInputs(path, for: LoadedModel(file, options: options).graph).tensors,
        description: "inputs of \(path.split(separator: "/").last.map(String.init) ?? path)")
    }
    let report = try Conversions.convert(
      file, options: options, layout: layout?.rawValue, dtype: DType(shortName: dtype.rawValue), onnx: onnx,
      shardSize: shardSize?.count, to: output, overwrite: outputs.force
    ) { bar.update($0, $1) }
    report.show(title: "converted", seconds: System.now - start, json: outputs.json)
  }
}
