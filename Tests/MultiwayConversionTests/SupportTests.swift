import Foundation
import MultiwayCheckpoint
import MultiwayConversion
import MultiwayGraph
import MultiwayModels
import MultiwayTestSupport
import Testing

/// Docs/Support.md claims what the registries say, and what the registries say holds.
@Suite struct SupportTests {
  @Test func thePageIsThatOfTheRegistries() throws {
    let path = Fixtures.package + "/Docs/Support.md"
    if ProcessInfo.processInfo.environment["MULTIWAY_UPDATE_DOCUMENTS"] != nil {
      try SupportDocument.markdown.write(toFile: path, atomically: true, encoding: .utf8)
    }
    let page = try String(contentsOfFile: path, encoding: .utf8)
    #expect(page == SupportDocument.markdown, "stale: run MULTIWAY_UPDATE_DOCUMENTS=1 swift test --filter SupportTests")
  }

  /// Every fixture of every row is what the row says; together they come in every layout that the row reads.
  @Test(arguments: Architectures.all.map { $0.name })
  func rowsHold(architecture name: String) throws {
    let architecture = try #require(Architectures.all.first { $0.name == name })
    #expect(!architecture.support.isEmpty)
    for row in architecture.support {
      var graphs: [Graph] = []
      #expect(!row.fixtures.isEmpty)
      for fixture in row.fixtures {
        let loaded = try LoadedModel(path: Fixtures.path(fixture), options: InputOptions(heads: 2))
        let model = try #require(loaded.model)
        #expect(model.architecture == name, "\(fixture)")
        #expect(model.task == row.task, "\(fixture)")
        #expect(row.read.contains(model.layout), "\(fixture) is in the \(model.layout) layout")
        #expect(Set(model.layouts.map(\.layout)) == Set(row.written), "\(fixture)")
        graphs.append(model.graph)
      }
      let inputs = graphs.map { graph in graph.inputs.map { graph[$0].name } }
      #expect(inputs.allSatisfy { Set($0).isSubset(of: row.inputs) } && inputs.contains { Set($0) == Set(row.inputs) })
      let outputs = graphs.map { $0.outputs.map(\.name) }
      #expect(outputs.allSatisfy { Set($0).isSubset(of: row.outputs) })
      #expect(outputs.contains { Set($0) == Set(row.outputs) }, "\(row.task): \(outputs)")
    }
  }
}
