import ArgumentParser
import MultiwayCore
import MultiwayGraph
import MultiwayRuntime

/// How a captioning model writes captions for images that come without a text.
struct CaptionArguments: ParsableArguments {
  @Option(help: "Captions: how many texts are followed at once; 3 unless given.")
  var beams: Int?

  @Option(name: .customLong("max-length"), help: "Captions: the most tokens, begin and end included; 64 unless given.")
  var maximumLength: Int?

  @Option(
    name: .customLong("length-penalty"),
    help: "Captions: sums of log-probabilities are divided by the length to this power; 0.6 unless given.")
  var lengthPenalty: Double?

  @Option(
    name: .customLong("mask-token"), help: "Captions: the id of the mask token; 64001, as released, unless given.")
  var maskToken: Int?

  /// True where one of the options stands on the command line.
  var isGiven: Bool { beams != nil || maximumLength != nil || lengthPenalty != nil || maskToken != nil }

  /// What the options say.
  var options: BeamSearchOptions {
    var options = BeamSearchOptions()
    if let beams { options.beams = beams }
    if let maximumLength { options.maximumLength = maximumLength }
    if let lengthPenalty { options.lengthPenalty = lengthPenalty }
    if let maskToken { options.maskToken = maskToken }
    return options
  }

  /// What writes captions, and for which images; nil where the model is run as it is: it is for something else, or there is more than
  /// images.
  func generator(
    for graph: Graph, inputs: [String: TensorValue]
  ) throws -> (generator: CaptionGenerator, image: TensorValue)? {
    guard let image = inputs["image"], inputs.count == 1, CaptionDecoding.capacity(of: graph) != nil else {
      guard !isGiven else {
        throw ValidationError(
          "--beams, --max-length, --length-penalty and --mask-token are for a captioning model and images without a text."
        )
      }
      return nil
    }
    return (try CaptionGenerator(graph, options: options), image)
  }
}

extension Captions {
  /// The captions as outputs.
  var outputs: [(name: String, value: TensorValue)] { [("tokens", tokens), ("scores", scores)] }

  /// The tokens of each caption, without what fills its row.
  func rows(padding: Int) -> [(tokens: [Int], score: Float)] {
    let (ids, width) = (tokens.integers ?? [], tokens.shape.last)
    return scores.floats.enumerated().map { image, score in
      let row = ids[image * width..<(image + 1) * width]
      return (Array(row.prefix((row.lastIndex { $0 != padding } ?? row.startIndex) + 1 - row.startIndex)), score)
    }
  }
}
