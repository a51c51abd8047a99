public import MultiwayCore
import MultiwayKernels

/// How captions are searched for. The defaults are the original's.
public struct BeamSearchOptions: Sendable {
  /// How many texts are followed at once.
  public var beams = 3
  /// One more than the most tokens of a caption, its first and last included.
  public var maximumLength = 64
  /// Sums of log-probabilities are divided by the length to this power.
  public var lengthPenalty = 0.6
  /// Stands where the next word is wanted.
  public var maskToken = 64001
  /// The first token of every caption.
  public var beginToken = 0
  /// The token that ends a caption.
  public var endToken = 2
  /// What fills the rest of a row of tokens.
  public var paddingToken = 1

  /// The default options.
  public init() {}
}

/// Captions of a batch of images.
public struct Captions: Sendable {
  /// Token ids [images, maximum length]: begin, words, end, padding.
  public var tokens: TensorValue
  /// The score of each caption [images]: the sum of its log-probabilities divided by a power of its length.
  public var scores: TensorValue
}

/// Beam search over the captions of a batch of images, step by step; whoever has the logits drives it.
///
/// It is the search of unilm `beit3/engine_for_finetuning.py`: of the 3 · beams best continuations of all beams of an image, those that
/// end close a caption and the first others go on; the best closed caption is kept; an image is done when no beam can beat it; at the
/// maximum length all close. Continuations are ordered by their sum of log-probabilities in fp32, equal ones by beam, then by token:
/// PyTorch leaves that open. Images do not influence one another.
struct BeamSearch {
  /// What goes on after a step.
  struct Continuation {
    /// The next token of each beam [images · beams].
    var words: [Int]
    /// The beam that each of them continues, among all.
    var parents: [Int]
  }

  private struct Candidate {
    var score: Float
    var beam: Int
    var word: Int
  }

  private struct Caption {
    var words: [Int]
    var score: Double
  }

  private let options: BeamSearchOptions
  private let images: Int
  private let vocabulary: Int
  private let kernels: KernelContext
  private var sums: [Float]
  private var texts: [[Int]]
  private var best: [Caption?]
  private var isDone: [Bool]
  /// Tokens of a text with its mask: 2 at the first step.
  private(set) var length = 2

  /// How many continuations of an image are looked at, for each beam.
  private static let candidatesPerBeam = 3
  /// The sum that keeps all beams but the first out of the first step, where all are the same.
  private static let excluded: Float = -1e9

  init(images: Int, vocabulary: Int, options: BeamSearchOptions, kernels: KernelContext) {
    self.kernels = kernels
    self.images = images
    self.vocabulary = vocabulary
    self.options = options
    sums = (0..<images * options.beams).map { $0 % options.beams == 0 ? 0 : BeamSearch.excluded }
    texts = Array(repeating: [options.beginToken], count: images * options.beams)
    best = Array(repeating: nil, count: images)
    isDone = Array(repeating: false, count: images)
  }

  /// Takes the logits [images · beams, vocabulary] at the mask of every beam.
  /// - Returns: how the beams go on, nil when all captions are found.
  mutating func advance(_ logits: [Float]) -> Continuation? {
    let isLast = length + 1 >= options.maximumLength
    var next = Continuation(words: [], parents: [])
    var nextSums: [Float] = []
    let normalizers = LogSoftmax.normalizers(logits, width: vocabulary, kernels)
    for image in 0..<images {
      let kept = isDone[image] ? [] : advance(image, candidates(image, logits, normalizers), isLast: isLast)
      for beam in 0..<options.beams {
        // A done image's beams go on with anything: nothing looks at them.
        let place = image * options.beams
        next.words.append(beam < kept.count ? kept[beam].word : options.paddingToken)
        next.parents.append(place + (beam < kept.count ? kept[beam].beam : 0))
        nextSums.append(beam < kept.count ? kept[beam].score : 0)
      }
    }
    guard !isLast, isDone.contains(false) else { return nil }
    texts = zip(next.parents, next.words).map { texts[$0] + [$1] }
    sums = nextSums
    length += 1
    return next
  }

  /// Closes the captions that end, and gives the beams that go on.
  private mutating func advance(_ image: Int, _ candidates: [Candidate], isLast: Bool) -> [Candidate] {
    if let best = best[image], let top = candidates.first,
      best.score >= Double(top.score) / Power.of(options.maximumLength - 1, options.lengthPenalty)
    {
      isDone[image] = true
      return []
    }
    var kept: [Candidate] = []
    for candidate in candidates {
      if candidate.word == options.endToken || isLast {
        let score = Double(candidate.score) / Power.of(length, options.lengthPenalty)
        if best[image].map({ score > $0.score }) ?? true {
          best[image] = Caption(words: texts[image * options.beams + candidate.beam], score: score)
        }
      } else {
        kept.append(candidate)
      }
      if kept.count == options.beams { break }
    }
    return kept
  }

  /// The best continuations of an image's beams, best first.
  private func candidates(_ image: Int, _ logits: [Float], _ normalizers: [Double]) -> [Candidate] {
    let wanted = BeamSearch.candidatesPerBeam * options.beams
    var best: [Candidate] = []
    for beam in 0..<options.beams {
      let row = (image * options.beams + beam) * vocabulary
      let sum = sums[image * options.beams + beam]
      let normalizer = normalizers[image * options.beams + beam]
      // A smaller logit never has a larger score: what is not above one that was too small is too small itself.
      var tooSmall = -Float.infinity
      for word in 0..<vocabulary {
        let logit = logits[row + word]
        if logit <= tooSmall, best.count == wanted { continue }
        let score = Float(Double(logit) - normalizer) + sum
        // Beams and tokens come in order, so among equal scores the first stays first.
        if best.count == wanted, score <= best[wanted - 1].score {
          tooSmall = logit
          continue
        }
        let place = best.firstIndex { score > $0.score } ?? best.count
        best.insert(Candidate(score: score, beam: beam, word: word), at: place)
        if best.count > wanted { best.removeLast() }
      }
    }
    return best
  }

  /// The captions found.
  var captions: Captions {
    let rows = best.map { caption -> [Int] in
      let row = (caption?.words ?? [options.beginToken]) + [options.endToken]
      return row + Array(repeating: options.paddingToken, count: max(0, options.maximumLength - row.count))
    }
    return Captions(
      tokens: TensorValue([images, options.maximumLength], integers: rows.flatMap { $0 }),
      scores: TensorValue([images], best.map { Float($0?.score ?? 0) }))
  }
}

/// Powers of whole numbers, the same bits on every machine.
enum Power {
  /// base to the power, for a base from 1 on.
  static func of(_ base: Int, _ power: Double) -> Double {
    let exponent = LogSoftmax.logarithm(Double(base)) * power
    return exponent <= 0 ? LogSoftmax.exponential(exponent) : 1 / LogSoftmax.exponential(-exponent)
  }
}
