import MultiwayCore
import MultiwayParity
import MultiwayTestSupport
import Testing

/// Segmentation from the command line: taps as an option, answers for every position.
@Suite struct SegmentationTests {
  private let model = Fixtures.path("tiny/segmentation/mmseg.pth")
  private let inputs = Fixtures.path("tiny/segmentation/inputs.safetensors")

  @Test func tapsAreChosenAndRecorded() throws {
    let assumed = try multiway("inspect", model, "--json").json
    #expect(assumed["hyperparameters"]?["segmentation.taps"]?.string == "2,3,4,6")
    let chosen = try multiway("inspect", model, "--taps", "0,1,2,4", "--json").json
    #expect(chosen["hyperparameters"]?["segmentation.taps"]?.string == "0,1,2,4")
    let folder = try TemporaryFolder()
    _ = try multiway("convert", model, folder.path("model.gguf"), "--taps", "1,2,3,4")
    let artifact = try multiway("inspect", folder.path("model.gguf"), "--json").json
    #expect(artifact["hyperparameters"]?["segmentation.taps"]?.string == "1,2,3,4")
  }

  @Test(arguments: [("4,6,8,x", 64), ("1,,2,3", 64), ("", 64), ("1,2,3", 65), ("1,2,3,7", 65)])
  func impossibleTapsAreRefused(taps: String, status: Int32) throws {
    #expect(try CommandLineRun(["run", model, "--inputs", inputs, "--taps=" + taps]).status == status)
  }

  @Test func aRunSaysWhichClassesThePositionsHave() throws {
    let run = try multiway("run", model, "--inputs", inputs, "--json").json
    let answers = try #require(run["answers"]?.array)
    #expect(answers.count == 2)
    let golden = try #require(try Fixtures.values("tiny/segmentation/outputs.safetensors")["logits_unilm"])
    for (example, answer) in answers.enumerated() {
      let labels = TopOne.answers(golden.rows(example..<example + 1))
      let top = try #require(answer.object?["top"]?.array?.first?.object)
      let (label, share) = (try #require(top["class"]?.integer), try #require(top["share_of_positions"]?.number))
      #expect(labels.count == 24 * 24)
      #expect(abs(Double(labels.count { $0 == label }) / Double(labels.count) - share) < 1e-9)
      #expect((0..<7).allSatisfy { other in labels.count { $0 == other } <= labels.count { $0 == label } })
    }
    #expect(try multiway("run", model, "--inputs", inputs).output.contains("logits [2, 7, 24, 24]"))
  }

  @Test func anArtifactIsVerified() throws {
    let folder = try TemporaryFolder()
    _ = try multiway("quantize", model, folder.path("model.gguf"), "--recipe", "f16")
    let run = try multiway(
      "verify", model, folder.path("model.gguf"), "--inputs", inputs, "--layers", "--json", folder.path("report.json"))
    #expect(run.output.contains("PASSED"))
    let report = try #require(try JSONParser.parse(folder.bytes("report.json")).object)
    let layers = report["layers"]?.array?.compactMap { $0.object?["name"]?.string } ?? []
    #expect(layers.contains("decoder.fused") && layers.contains("decoder.laterals.0"))
  }
}
