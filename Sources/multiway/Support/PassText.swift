import MultiwayParity
import MultiwayPasses

/// What a pass did, in words.
enum PassText {
  static func text(_ statistics: PassStatistics) -> String {
    var parts = ["\(statistics.rewrites) rewrites"]
    if statistics.removedNodes > 0 { parts.append("\(statistics.removedNodes) nodes removed") }
    return (parts + statistics.notes).joined(separator: ", ")
  }
}

/// A time for people.
func fixedSeconds(_ seconds: Double) -> String {
  seconds < 1 ? "\(fixed(seconds * 1000, 0)) ms" : "\(fixed(seconds, 2)) s"
}
