import Foundation
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayCore
import MultiwayKernels
import MultiwayParity
import MultiwayTestSupport
import Testing

/// What the verbs do when all is well.
@Suite struct VerbTests {
  private let folder: TemporaryFolder
  private let digits = Fixtures.path("digits.pth")
  private let tests = Fixtures.path("digits_test.safetensors")
  private let tiny = Fixtures.path("tiny/features.pth")

  init() throws { folder = try TemporaryFolder() }

  /// The whole main job, as the README tells it.
  @Test func fromCheckpointToProvedArtifact() throws {
    let artifact = folder.path("digits.gguf")
    let quantized = try multiway("quantize", digits, artifact)
    #expect(quantized.output.contains("digits.gguf"))
    let run = try multiway("run", artifact, "--inputs", tests, "--outputs", folder.path("logits.safetensors"))
    #expect(run.output.contains("logits [360, 10]"))
    // The interpreter is slow without optimisation: fewer examples for it.
    let few = try Fixtures.digits(0..<24)
    try SafetensorsWriter.write(
      [few.image.stored(as: "image"), TensorValue([24], integers: few.labels).stored(as: "labels")],
      to: folder.path("few.safetensors"))
    let verified = try multiway(
      "verify", digits, artifact, "--inputs", folder.path("few.safetensors"), "--layers", "--bisect", "--report",
      folder.path("report.html"), "--json", folder.path("report.json"), "--certify")
    #expect(verified.output.contains("PASSED"))
    let accuracy = agreement(answers(few.logits), few.labels) * 100
    #expect(verified.output.contains("accuracy  reference \(fixed(accuracy, 2)) %"))
    let report = try #require(try JSONParser.parse(folder.bytes("report.json")).object)
    #expect(report["passed"]?.bool == true)
    #expect(report["examples"]?.integer == 24)
    #expect(report["layers"]?.array?.isEmpty == false)
    let page = String(decoding: try folder.bytes("report.html"), as: UTF8.self)
    #expect(page.hasPrefix("<!doctype html>") && page.contains("PASSED") && page.hasSuffix("</html>\n"))
    let inspected = try multiway("inspect", artifact, "--json").json
    #expect(inspected["certificate"]?["passed"]?.bool == true)
    // The certificate is no part of what the model computes.
    let again = try multiway("run", artifact, "--inputs", tests, "--outputs", folder.path("again.safetensors"))
    #expect(again.status == 0)
    let isEqual = try folder.bytes("again.safetensors") == folder.bytes("logits.safetensors")
    #expect(isEqual)
    #expect(
      try folder.names() == [
        "again.safetensors", "digits.gguf", "few.safetensors", "logits.safetensors", "report.html", "report.json",
      ])
  }

  @Test(arguments: [[], ["--calibration", Fixtures.path("digits_test.safetensors")]])
  func theSameCommandGivesTheSameBytes(options: [String]) throws {
    for name in ["a.gguf", "b.gguf"] {
      let run = try CommandLineRun(["quantize", digits, folder.path(name)] + options)
      #expect(run.status == 0, "\(run.errors)")
    }
    let isEqual = try folder.bytes("a.gguf") == folder.bytes("b.gguf")
    #expect(isEqual)
  }

  @Test(arguments: ISA.allCases) func everyInstructionSetGivesTheSameFile(isa: ISA) throws {
    let best = folder.path("best.safetensors")
    let other = folder.path("other.safetensors")
    let environment = ["MULTIWAY_ISA": isa.rawValue]
    guard isa.isSupported else {
      let run = try multiway("bench", tiny, "--runs", "1", expecting: 64, environment: environment)
      #expect(run.errors.contains("'\(isa.rawValue)', which this CPU does not support"))
      return
    }
    let inputs = Fixtures.path("tiny/features_inputs.safetensors")
    try multiway("run", tiny, "--inputs", inputs, "--outputs", best)
    let run = try multiway(
      "run", tiny, "--inputs", inputs, "--outputs", other, "--threads", "3", "--batch", "1",
      environment: environment)
    #expect(run.errors.contains("on \(isa.rawValue), 3 threads"))
    let isEqual = try folder.bytes("best.safetensors") == folder.bytes("other.safetensors")
    #expect(isEqual)
  }

  /// A folder takes the place of a file wherever one is read.
  @Test func aFolderIsAModel() throws {
    let model = folder.path("model")
    let converted = try multiway("convert", tiny, model + "/", "--shard-size", "40KB", "--json").json
    #expect(converted["output"]?.string == model + "/")
    #expect(try folder.names() == ["model"])
    let inspected = try multiway("inspect", model)
    #expect(inspected.output.contains("shards") && inspected.errors.isEmpty)
    #expect(try multiway("verify", tiny, model).output.contains("PASSED"))
    let again = try multiway("convert", tiny, model, "--shard-size", "40KB", expecting: 73)
    #expect(again.errors.contains("--force"))
    try multiway("convert", tiny, model, "--shard-size", "40KB", "--force")
    // The other way of keeping weights takes the place of the whole set.
    try multiway("convert", tiny, model, "--force")
    #expect(try folder.names(in: "model") == ["config.json", "model.safetensors", "preprocessor_config.json"])
    #expect(try multiway("verify", tiny, model).output.contains("PASSED"))
    try multiway("prune", tiny, folder.path("vision.pth"), "--keep", "vision")
    #expect(try multiway("verify", tiny, folder.path("vision.pth")).output.contains("PASSED"))
  }

  @Test func filesAreComparedTensorByTensor() throws {
    let half = folder.path("half.pth")
    try multiway("convert", tiny, half, "--dtype", "f16")
    let run = try multiway("diff", tiny, half, expecting: 1)
    #expect(run.output.contains("f32 → f16") && run.output.contains(" dB"))
    let object = try multiway("diff", tiny, half, "--json", expecting: 1).json
    #expect(object["equal"]?.bool == false)
    #expect((object["tensors"]?.array?[0]["sqnr_db"]?.number ?? 0) > 60)
    #expect(try multiway("diff", half, half).output.contains("different"))
  }

  /// int8 in the form of another library, and what cannot go there.
  @Test func quantizedFolders() throws {
    let model = folder.path("int8") + "/"
    try multiway("quantize", Fixtures.path("family/beit_classification/unilm.pth"), model, "--layout", "huggingface")
    #expect(String(decoding: try folder.bytes("int8/config.json"), as: UTF8.self).contains("compressed-tensors"))
    try multiway("quantize", tiny, folder.path("out.gguf"), "--layout", "unilm", expecting: 64)
    try multiway("quantize", tiny, folder.path("out") + "/", "--calibration", tests, expecting: 64)
    #expect(try folder.names() == ["int8"])
  }

  /// `--json` prints one object and nothing else.
  @Test func jsonIsOneObject() throws {
    let artifact = folder.path("out.gguf")
    let inspected = try multiway("inspect", tiny, "--json", "--tensors").json
    #expect(inspected["task"]?.string == "features")
    #expect(inspected["tensors"]?.array?.count == inspected["tensor_count"]?.integer)
    let quantized = try multiway("quantize", tiny, artifact, "--json").json
    #expect(quantized["output"]?.string == artifact)
    #expect(quantized["output_bytes"]?.integer == (try folder.bytes("out.gguf").count))
    #expect(quantized["passes"]?.array?.isEmpty == false)
    let converted = try multiway("convert", tiny, folder.path("out.safetensors"), "--json").json
    #expect(converted["parameters_before"]?.integer == converted["parameters_after"]?.integer)
    let pruned = try multiway("prune", tiny, folder.path("vision.gguf"), "--keep", "vision", "--json").json
    #expect((pruned["parameters_after"]?.integer ?? .max) < (pruned["parameters_before"]?.integer ?? 0))
    let inputs = Fixtures.path("tiny/features_inputs.safetensors")
    let run = try multiway("run", artifact, "--inputs", inputs, "--json").json
    #expect(run["outputs"]?.array?[0]["name"]?.string == "features")
    let bench = try multiway("bench", artifact, "--json", "--runs", "2", "--threads", "1").json
    #expect((bench["median_ms"]?.number ?? 0) > 0)
    #expect(bench["runs"]?.integer == 2)
    let verified = try multiway("verify", tiny, tiny, "--json", "-").json
    #expect(verified["synthetic_inputs"]?.bool == true)
    #expect(verified["verdict"]?.string?.contains("synthetic") == true)
  }

  /// A pruned model is held to what its original computes for the inputs that it still takes, whatever else the file holds.
  @Test(arguments: ["vision", "text"])
  func aPrunedModelIsProved(keep: String) throws {
    let artifact = folder.path("half.gguf")
    try multiway("prune", tiny, artifact, "--keep", keep)
    for arguments in [[], ["--inputs", Fixtures.path("tiny/features_inputs.safetensors")]] {
      let run = try CommandLineRun(["verify", tiny, artifact] + arguments)
      #expect(run.status == 0, "\(arguments): \(run.errors)")
      #expect(run.output.contains("PASSED"))
    }
  }

  @Test func aCheckpointSaysWhatItWouldHaveCalled() throws {
    let run = try multiway("inspect", Fixtures.path("tiny/views.pth"))
    #expect(run.output.contains("never called"))
    #expect(run.output.contains("none: "), "it is no model")
    let graph = try multiway("inspect", tiny, "--graph", "--tensors").output
    #expect(graph.contains("%features = join_tokens"))
    #expect(graph.contains("beit3.encoder.layers.0.self_attn.q_proj.A.weight"))
  }

  private func tensors(_ name: String) throws -> [String: [UInt8]] {
    let tensors = try CheckpointFormats.open(path: folder.path(name)).stateDict().tensors
    return try Dictionary(
      uniqueKeysWithValues: tensors.map { ($0.name, try $0.contiguousBytes().array(of: UInt8.self)) })
  }

  /// The same model from a plain file, a compressed one, shards and a folder: the same artifact, the same outputs.
  @Test func whereverItLies() throws {
    let tiny = Fixtures.path("tiny/classification.pth")
    let inputs = Fixtures.path("tiny/classification_inputs.safetensors")
    func run(_ model: String, _ options: String...) throws -> [UInt8] {
      let outputs = folder.path("outputs.safetensors")
      let run = try CommandLineRun(["run", model, "--inputs", inputs, "--outputs", outputs, "--force"] + options)
      #expect(run.status == 0, "\(run.errors)")
      return try folder.bytes("outputs.safetensors")
    }
    let expected = try run(tiny)
    func pack(_ path: String, as name: String) throws -> String {
      let file = try MappedFile(path: path).bytes
      return try folder.write(ZstdBuilder.frame(of: file.array(of: UInt8.self)), to: name)
    }
    let packed = try pack(tiny, as: "tiny.pth.zst")
    #expect(try run(packed) == expected)
    #expect(try multiway("inspect", packed).output.contains("zstd of PyTorch zip"))

    try multiway("convert", tiny, folder.path("plain.safetensors"))
    try multiway("convert", packed, folder.path("packed.safetensors"))
    // All but what the files say of their sources is the same.
    let (plain, unpacked) = try (tensors("plain.safetensors"), tensors("packed.safetensors"))
    #expect(plain == unpacked && plain.count > 20)

    try multiway("quantize", tiny, folder.path("tiny.gguf"))
    let artifact = try pack(folder.path("tiny.gguf"), as: "tiny.gguf.zst")
    #expect(try run(artifact) == run(folder.path("tiny.gguf")))
    #expect(try multiway("inspect", artifact).output.contains("zstd of multiway artifact"))
    let certified = try CommandLineRun([
      "verify", tiny, artifact, "--inputs", inputs, "--certify", "--threads", "1",
    ])
    #expect(certified.status == 64)
    #expect(certified.errors.contains("zstd -d"))

    let model = try TemporaryFolder()
    let tensors = try CheckpointFormats.open(path: tiny).stateDict().tensors
    var map = JSONObject()
    for (name, part) in [("1", tensors.prefix(20)), ("2", tensors.dropFirst(20))] {
      try SafetensorsWriter.write(Array(part), to: model.path(name + ".safetensors"))
      for tensor in part { map[tensor.name] = .string(name + ".safetensors") }
    }
    let index = JSONValue.object(["weight_map": .object(map)]).text()
    let path = try model.write(Array(index.utf8), to: "model.safetensors.index.json")
    #expect(try run(path, "--heads", "2") == expected)
    #expect(try run(URL(fileURLWithPath: path).deletingLastPathComponent().path, "--heads", "2") == expected)
    #expect(try multiway("inspect", path).output.contains("safetensors, 2 shards"))
    // An output may replace no shard, even by force.
    let refused = try CommandLineRun(["convert", path, model.path("2.safetensors"), "--force"])
    #expect(refused.status == 73)
    #expect(refused.errors.contains("also an input"))
  }

  @Test func theInputsMayHoldLabelsAndOutputs() throws {
    let run = try multiway("run", digits, "--inputs", tests)
    #expect(run.output.contains("accuracy 99.17 % of 360 examples"))
    #expect(run.output.contains("350 more"))
  }

  /// Images without a text are captioned, by a checkpoint and by its artifact; with a text the model is run.
  @Test func captionsAreWritten() throws {
    let model = Fixtures.path("tiny/heads/captioning.pth")
    let golden = try Fixtures.values("tiny/heads/captioning_search.safetensors")
    let (images, artifact) = (folder.path("images.safetensors"), folder.path("captioning.gguf"))
    try SafetensorsWriter.write(
      [try #require(golden["image"]).stored(as: "image")], to: images, overwrite: false)
    try multiway("quantize", model, artifact, "--recipe", "f32")
    for file in [model, artifact] {
      let outputs = folder.path("captions.safetensors")
      let run = try multiway(
        "run", file, "--inputs", images, "--mask-token", "19", "--max-length", "11", "--batch", "2", "--outputs",
        outputs,
        "--force")
      #expect(run.output.contains("tokens [5, 11]"))
      let stored = try CheckpointFormats.open(path: outputs).stateDict().tensors
      #expect(stored.map(\.name).sorted() == ["scores", "tokens"])
      #expect(try stored.filter { $0.name == "tokens" }.map { try TensorValue($0) } == [golden["default.tokens"]])
    }
    let json = try multiway(
      "run", artifact, "--inputs", images, "--mask-token", "18", "--max-length", "5", "--beams", "4", "--json"
    ).json
    #expect(json["captions"]?.array?[1]["tokens"]?.array?.map(\.integer) == [0, 19, 0, 2])
    let shown = try multiway("run", model, "--inputs", images, "--mask-token", "19", "--max-length", "11")
    #expect(shown.output.contains("example 1: 0 19 7 7 7 7 7 7 7 2   score -0.57"))
    let fixture = Fixtures.path("tiny/heads/captioning_inputs.safetensors")
    #expect(try multiway("run", model, "--inputs", fixture).output.contains("logits [2, 8, 20]"))
    // The mask of the released vocabulary is none of this one's; captions have no use for a text, nor other models for beams.
    let refused = try multiway("run", model, "--inputs", images, expecting: 64)
    #expect(refused.errors.contains("mask token 64001") && refused.errors.contains("--mask-token"))
    try multiway("run", model, "--inputs", fixture, "--beams", "2", expecting: 64)
    try multiway("run", tiny, "--inputs", images, "--length-penalty", "1", expecting: 64)
  }

  /// The opening and the steps of captions are measured apart, for images that are given or made up.
  @Test func captionsAreMeasured() throws {
    let model = Fixtures.path("tiny/heads/captioning.pth")
    let images = folder.path("images.safetensors")
    let golden = try Fixtures.values("tiny/heads/captioning_search.safetensors")
    try SafetensorsWriter.write([try #require(golden["image"]).stored(as: "image")], to: images, overwrite: false)
    let json = try multiway(
      "bench", model, "--captions", "--inputs", images, "--mask-token", "19", "--max-length", "11", "--runs", "2",
      "--json", "--profile"
    ).json
    #expect(json["captions"]?.array?[1].array?.map(\.integer) == [0, 19, 7, 7, 7, 7, 7, 7, 7, 2])
    #expect(json["images"]?.integer == 5 && json["beams"]?.integer == 3)
    #expect(json["steps_ms"]?.array?.count == json["steps"]?.integer)
    for key in ["opening_ms", "step_ms", "tokens_per_second"] { #expect((json[key]?.number ?? 0) > 0, "\(key)") }
    #expect(json["profile"]?.array?.contains { $0["kernel"]?.string == "attention" } == true)
    let made = try multiway(
      "bench", model, "--captions", "--beams", "1", "--mask-token", "19", "--max-length", "11", "--runs", "2"
    ).output
    #expect(made.contains("1 images, 1 beams, 2 runs") && made.contains("tokens a second after the opening"))
    try multiway("bench", tiny, "--captions", expecting: 65)
    try multiway("bench", model, "--inputs", images, expecting: 64)
    try multiway("bench", model, "--beams", "2", expecting: 64)
  }

  @Test func aRecipeFileIsRead() throws {
    let path = folder.path("mine.json")
    try folder.write(Array(#"{"name": "mine", "base": "f16"}"#.utf8), to: "mine.json")
    try multiway("quantize", tiny, folder.path("out.gguf"), "--recipe", path)
    #expect(try multiway("inspect", folder.path("out.gguf")).output.contains("mine"))
  }

  @Test func forceReplacesAndNothingElseDoes() throws {
    let path = folder.path("out.gguf")
    try multiway("convert", tiny, path)
    let before = try folder.bytes("out.gguf")
    let inputs = Fixtures.path("tiny/features_inputs.safetensors")
    for arguments in [
      ["convert", tiny, path], ["quantize", tiny, path], ["prune", tiny, path, "--keep", "text"],
      ["run", tiny, "--inputs", inputs, "--outputs", path], ["verify", tiny, tiny, "--report", path],
      ["verify", tiny, tiny, "--json", path],
    ] {
      let run = try CommandLineRun(arguments)
      #expect(run.status == 73, "\(arguments)")
      #expect(run.errors.contains("--force"))
      #expect(run.output.isEmpty)
      #expect(try folder.bytes("out.gguf") == before)
    }
    try multiway("quantize", tiny, path, "--force")
    #expect(try folder.bytes("out.gguf") != before)
    #expect(try folder.names() == ["out.gguf"])
  }

  @Test(arguments: [
    ("inspect", ["--tensors", "--graph", "--json", "--state-dict", "--heads"]),
    ("convert", ["--dtype", "--force", "--json", "--state-dict", "--heads"]),
    ("quantize", ["--recipe", "--calibration", "--force", "--json", "--state-dict", "--heads"]),
    ("prune", ["--keep", "--force", "--json", "--state-dict", "--heads"]),
    ("run", ["--beams", "--max-length", "--length-penalty", "--mask-token"]),
    ("run", ["--inputs", "--outputs", "--batch", "--threads", "--force", "--json", "--state-dict", "--heads"]),
    (
      "verify",
      [
        "--inputs", "--layers", "--bisect", "--report", "--json", "--certify", "--examples", "--seed", "--force",
        "--threads",
      ]
    ),
    ("bench", ["--batch", "--runs", "--threads", "--json", "--captions", "--inputs", "--beams"]),
  ])
  func helpListsTheFlags(verb: String, flags: [String]) throws {
    let run = try multiway(verb, "--help")
    #expect(run.errors.isEmpty)
    for flag in flags { #expect(run.output.contains(flag), "\(verb) \(flag)") }
    #expect(try multiway("--help").output.contains(verb))
    #expect(try multiway("help", verb).output == run.output)
  }

  @Test func versionAndExitCodesAreTold() throws {
    #expect(try multiway("--version").output == MultiwayVersion.current + "\n")
    let help = try multiway("--help").output
    for code in ["64", "65", "66", "70", "73", "74"] { #expect(help.contains(code)) }
  }

  /// Provenance and digests from the command line.
  @Test func digestsAreVerified() throws {
    let model = Fixtures.path("tiny/classification.pth")
    let path = folder.path("out.gguf")
    try multiway("quantize", model, path, "--hash-source")
    let shown = try multiway("inspect", path, "--verify", "--json").json
    #expect(shown["verified"]?["digest"]?.string == "xxh3-128")
    #expect(shown["verified"]?["header"]?.bool == true)
    #expect(shown["verified"]?["tensors"]?.integer == shown["tensor_count"]?.integer)
    #expect(shown["made_from"]?.array?.first?["sha256"]?.string?.utf8.count == 64)
    #expect(try multiway("inspect", path, "--verify").output.contains("verified"))
    var bytes = try folder.bytes("out.gguf")
    bytes[bytes.count - 100] ^= 1
    try folder.write(bytes, to: "out.gguf")
    let damaged = try multiway("inspect", path, "--verify", expecting: 65)
    #expect(damaged.errors.contains("tensor '") && damaged.errors.contains("as the file records"))
    try multiway("inspect", model, "--verify", expecting: 65)
    // Without the flag nothing is read, and nothing is found.
    try multiway("inspect", path)
  }
}
