import MultiwayQuantization
import Testing

@Suite struct ActivationStatisticsTests {
  /// Two streams through one norm: means weigh by examples, and samples come from both.
  @Test func valuesThatShareANormCountTogether() throws {
    var statistics = ActivationStatistics()
    statistics.add([1, 10, 3, 10], width: 2, of: "vision", examples: 3)
    statistics.add([6, -2], width: 2, of: "text", examples: 1)
    let both = try #require(statistics.together(["vision", "text"]))
    #expect(both.means == [2 * 0.75 + 6 * 0.25, 10 * 0.75 - 2 * 0.25])
    #expect(both.meanSquares == [5 * 0.75 + 36 * 0.25, 100 * 0.75 + 4 * 0.25])
    #expect(both.samples.count == ActivationStatistics.sampleCount)
    for token in [[1, 10], [3, 10], [6, -2]] as [[Float]] { #expect(both.samples.contains(token)) }
  }

  @Test func oneValueIsItselfAndNoneIsNone() {
    var statistics = ActivationStatistics()
    statistics.add([1, 2, 3, 4], width: 2, of: "vision", examples: 1)
    #expect(statistics.together(["vision", "text"])?.means == statistics["vision"]?.means)
    #expect(statistics.together(["text"]) == nil)
    statistics.add([1], width: 1, of: "text", examples: 1)
    #expect(statistics.together(["vision", "text"])?.means == [2, 3], "another width is another value")
  }
}
