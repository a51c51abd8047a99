import MultiwayCore
import MultiwayGraph
import MultiwayPasses
import MultiwayTestSupport
import Testing

/// The law of every pass: inputs and outputs keep their names and types, the graph verifies, and the reference computes what it
/// computed before. Returns the graph after the pass.
@discardableResult
func checkPass(
  _ pass: any Pass, on graph: Graph, atLeast floor: Double, engine: Engine = .reference, isIdempotent: Bool = true,
  sourceLocation: SourceLocation = #_sourceLocation
) throws -> Graph {
  var after = graph
  let reports = try PassPipeline([pass]).run(on: &after)
  #expect(reports.map(\.name) == [type(of: pass).name], sourceLocation: sourceLocation)
  try after.verify()
  #expect(interface(after) == interface(graph), sourceLocation: sourceLocation)
  for batch in [1, 2] {
    let inputs = randomInputs(for: graph, batch: batch)
    let expected = try engine.run(graph, inputs)
    let found = try engine.run(after, inputs)
    for (name, value) in expected {
      let quality = decibels(value, try #require(found[name], sourceLocation: sourceLocation))
      #expect(quality >= floor, "\(name): \(quality) dB", sourceLocation: sourceLocation)
    }
  }
  if isIdempotent {
    var again = after
    let second = try PassPipeline([pass]).run(on: &again)
    #expect(again.description == after.description, sourceLocation: sourceLocation)
    #expect(second.map(\.statistics.rewrites) == [0], sourceLocation: sourceLocation)
  }
  return after
}

/// What callers of a graph see: inputs and outputs with their types.
func interface(_ graph: Graph) -> [String] {
  graph.inputs.map { "\(graph[$0].name): \(graph[$0].type)" }
    + graph.outputs.map { "\($0.name) = \(graph[$0.value].type)" }
}

/// Runs passes and gives the printed graph.
func printed(_ graph: Graph, after passes: any Pass...) throws -> String {
  var graph = graph
  _ = try PassPipeline(passes).run(on: &graph)
  return graph.description
}
