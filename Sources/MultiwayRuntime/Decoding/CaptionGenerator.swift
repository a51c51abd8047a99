public import MultiwayCore
public import MultiwayGraph
import MultiwayKernels

/// Whatever runs the two graphs of a `CaptionDecoding`.
public protocol DecodingEngine {
  /// Runs the opening.
  mutating func open(_ inputs: [String: TensorValue]) throws -> [(name: String, value: TensorValue)]
  /// Runs a step. The keys and values of the image are those that the last opening gave.
  mutating func step(_ inputs: [String: TensorValue]) throws -> [(name: String, value: TensorValue)]
}

/// Writes captions for images by beam search, with the keys and values of what is written kept from step to step and those of the image
/// shared by its beams.
public struct CaptionGenerator: Sendable {
  /// The graphs.
  public let decoding: CaptionDecoding
  /// How captions are searched for.
  public let options: BeamSearchOptions

  private typealias State = CaptionDecoding.State

  /// Splits the graph of a captioning model. Throws `.configuration` for options that do not fit it.
  public init(_ graph: Graph, options: BeamSearchOptions = BeamSearchOptions()) throws {
    decoding = try CaptionDecoding(graph)
    self.options = options
    try checkOptions()
  }

  private func checkOptions() throws(RuntimeError) {
    var problems: [String] = []
    let most = decoding.capacity + 1
    if options.beams < 1 || options.beams > 64 { problems.append("\(options.beams) beams, expected 1 to 64") }
    if options.maximumLength < 3 || options.maximumLength > most {
      problems.append(
        "a length of \(options.maximumLength), expected 3 to \(most): the model has \(most - 1) positions")
    }
    if !(0...4).contains(options.lengthPenalty) {
      problems.append("a length penalty of \(options.lengthPenalty), expected 0 to 4")
    }
    if decoding.vocabulary < 3 { problems.append("a vocabulary of \(decoding.vocabulary)") }
    let tokens = [
      ("mask", options.maskToken), ("begin", options.beginToken), ("end", options.endToken),
      ("padding", options.paddingToken),
    ]
    for (name, token) in tokens where !(0..<decoding.vocabulary).contains(token) {
      problems.append("the \(name) token \(token), which is not in a vocabulary of \(decoding.vocabulary)")
    }
    guard problems.isEmpty else {
      throw RuntimeError(
        .configuration, problems.joined(separator: "; "),
        remedy: "give other options; --mask-token names the mask of a vocabulary of its own")
    }
  }

  /// Writes a caption for each image [N, C, H, W], a few at a time, so that memory does not grow with their number.
  public func generate<Engine: DecodingEngine>(
    _ image: TensorValue, atMost examples: Int, with engine: inout Engine,
    progress: ((_ done: Int, _ total: Int) -> Void)? = nil
  ) throws -> Captions {
    let batches = ExampleBatches(["image": image], for: decoding.opening)
    var (tokens, scores): ([Int], [Float]) = ([], [])
    for range in batches.ranges(of: examples) {
      let part = try generate(batches.part(range)["image"] ?? image, with: &engine)
      tokens += part.tokens.integers ?? []
      scores += part.scores.floats
      progress?(range.upperBound, batches.count)
    }
    return Captions(
      tokens: TensorValue([scores.count, options.maximumLength], integers: tokens),
      scores: TensorValue([scores.count], scores))
  }

  /// Writes a caption for each image [N, C, H, W].
  public func generate<Engine: DecodingEngine>(_ image: TensorValue, with engine: inout Engine) throws -> Captions {
    let (images, beams) = (image.shape.dimensions.first ?? 0, options.beams)
    var search = BeamSearch(
      images: images, vocabulary: decoding.vocabulary, options: options, kernels: try KernelContext())
    let ids = (0..<images).flatMap { _ in [options.beginToken, options.maskToken] }
    var outputs = Outputs(try engine.open(["image": image, "text": TensorValue([images, 2], integers: ids)]))
    var inputs: [String: TensorValue] = [:]
    for layer in 0..<decoding.layers {
      for state in [State.imageKey, .imageValue] { inputs[state.name(layer)] = try outputs.take(state.name(layer)) }
    }
    // All beams begin as one.
    var parents = (0..<images * beams).map { $0 / beams }
    var logits = try outputs.take("logits").rows(parents).floats
    while let next = search.advance(logits) {
      // A beam continues another one of its image; at the first step all of them continue the only one.
      let rows = next.parents.map { parents[$0] }
      for layer in 0..<decoding.layers {
        for state in [State.textKey, .textValue] {
          let name = state.name(layer)
          inputs[name] = TensorValue.appending(try outputs.take(name), to: inputs[name], rows: rows)
        }
      }
      // The word has the place before the mask, which the length counts too.
      let place = decoding.firstPosition + search.length - 2
      let shape: Shape = [images * beams, 2]
      inputs["text"] = TensorValue(shape, integers: next.words.flatMap { [$0, options.maskToken] })
      inputs[CaptionDecoding.positionsName] = TensorValue(
        shape, integers: next.words.flatMap { _ in [place, place + 1] })
      outputs = Outputs(try engine.step(inputs))
      logits = try outputs.take("logits").floats
      parents = Array(0..<images * beams)
    }
    return search.captions
  }
}

/// The outputs of a run, each taken once.
private struct Outputs {
  private var values: [String: TensorValue]

  init(_ outputs: [(name: String, value: TensorValue)]) {
    values = Dictionary(outputs.map { ($0.name, $0.value) }, uniquingKeysWith: { first, _ in first })
  }

  mutating func take(_ name: String) throws(RuntimeError) -> TensorValue {
    guard let value = values.removeValue(forKey: name) else {
      throw RuntimeError(
        .unsupported, "a decoding step without '\(name)'", expected: "an engine that runs the graph given")
    }
    return value
  }
}

extension TensorValue {
  /// Rows of the first axis in any order.
  fileprivate func rows(_ places: [Int]) -> TensorValue {
    let width = shape.elementCount / max(1, shape[0])
    let values = floats
    var elements: [Float] = []
    elements.reserveCapacity(places.count * width)
    for place in places { elements += values[place * width..<(place + 1) * width] }
    return TensorValue(Shape([places.count] + shape.dimensions.dropFirst()), elements)
  }

  /// The first of the two tokens in `new` [N, 2, width] behind those in `old` [N, tokens, width], for the examples in `rows`.
  fileprivate static func appending(_ new: TensorValue, to old: TensorValue?, rows: [Int]) -> TensorValue {
    let width = new.shape[2]
    let tokens = old?.shape[1] ?? 0
    let (before, after) = (old?.floats ?? [], new.floats)
    var elements: [Float] = []
    elements.reserveCapacity(rows.count * (tokens + 1) * width)
    for row in rows {
      elements += before[row * tokens * width..<(row + 1) * tokens * width]
      elements += after[row * 2 * width..<(row * 2 + 1) * width]
    }
    return TensorValue([rows.count, tokens + 1, width], elements)
  }
}
