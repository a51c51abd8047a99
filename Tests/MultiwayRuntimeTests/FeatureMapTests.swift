import MultiwayCore
import MultiwayGraph
import MultiwayKernels
import MultiwayTestSupport
import Testing

/// A random chain of ops on feature maps, each result of another size: another one for every seed.
private struct RandomMaps {
  var sketch: GraphSketch
  private var maps: [(value: ValueID, grid: Grid)] = []
  private var count = 0

  init(seed: UInt64) throws {
    sketch = GraphSketch(seed: seed)
    let grid = Grid(height: 1 + pick(9), width: 1 + pick(14))
    let x = sketch.graph.addInput(
      "image", ValueType(.f32, [.symbol("batch"), .fixed(grid.height * grid.width), .fixed(4 * (1 + pick(6)))]))
    maps.append((x, grid))
    for _ in 0..<7 { try addOne() }
    for (index, map) in maps.enumerated() {
      sketch.output("map.\(index)", try add(.toImage, map))
    }
    try sketch.graph.verify()
  }

  private mutating func pick(_ count: Int) -> Int { Int(sketch.numbers.next() % UInt64(count)) }

  private func channels(_ value: ValueID) -> Int { sketch.graph[value].type.dimensions[2].size ?? 0 }

  private mutating func add(_ op: FeatureMapOp, _ map: (value: ValueID, grid: Grid)) throws -> ValueID {
    count += 1
    return try sketch.add(.featureMap(op, map.grid), map.value, name: "\(op.name).\(count)")
  }

  private mutating func addOne() throws {
    let map = maps[pick(maps.count)]
    let grid = map.grid
    switch pick(6) {
    case 0 where channels(map.value) % 4 == 0 && grid.height * grid.width < 200:
      maps.append((try add(.pixelShuffle, map), grid.doubled))
    case 1 where grid.halved.positions != nil: maps.append((try add(.maxPool, map), grid.halved))
    case 2:
      let bins = 1 + pick(7)
      maps.append((try add(.averagePool(bins: bins), map), Grid(height: bins, width: bins)))
    case 3:
      let target = Grid(height: 1 + pick(20), width: 1 + pick(20))
      maps.append((try add(.resize(to: target), map), target))
    case 4:
      count += 1
      let joined = try sketch.add(.joinChannels, map.value, map.value, name: "joined.\(count)")
      maps.append((joined, grid))
    default: maps.append((try convolution(map), grid))
    }
  }

  private mutating func convolution(_ map: (value: ValueID, grid: Grid)) throws -> ValueID {
    let (kernel, outputs) = ([1, 3, 5][pick(3)], [4, 12, 68][pick(3)])
    let dtype: DType = [.f32, .f16, .bf16][pick(3)]
    let layer = sketch.linear(
      "weights.\(count)", outputs: outputs, inputs: kernel * kernel * channels(map.value), hasBias: pick(2) == 0,
      as: dtype)
    guard case .linear(let weight, let bias) = layer else { return map.value }
    return try add(.convolution(weight: weight, bias: bias, kernel: kernel), map)
  }
}

@Suite struct FeatureMapTests {
  private static let seeds: [UInt64] = Array(0..<24)

  /// 120 dB: the largest maps come from seven operations in fp32, none of which magnifies an error.
  @Test(arguments: seeds)
  func theRuntimeComputesTheSameAsTheReference(seed: UInt64) throws {
    let graph = try RandomMaps(seed: seed).sketch.graph
    let inputs = randomInputs(for: graph, batch: 2, seed: seed)
    let expected = try Engine.reference.run(graph, inputs)
    let found = try Engine.runtime.run(graph, inputs)
    #expect(found.keys.sorted() == expected.keys.sorted())
    for (name, value) in expected {
      let quality = decibels(value, try #require(found[name]))
      #expect(quality >= 120, "seed \(seed), \(name): \(quality) dB\n\(graph)")
    }
  }

  @Test(arguments: seeds.prefix(6))
  func theSameBitsEverywhere(seed: UInt64) throws {
    let graph = try RandomMaps(seed: seed).sketch.graph
    let inputs = randomInputs(for: graph, batch: 2, seed: seed)
    let expected = try runtimeOutputs(graph, inputs, isa: .scalar, threads: 1).bits
    for isa in ISA.supported {
      for threads in [1, 3] {
        #expect(try runtimeOutputs(graph, inputs, isa: isa, threads: threads).bits == expected, "\(isa), \(threads)")
      }
    }
  }

  @Test func theSeedsCoverEveryOp() throws {
    let names = try FeatureMapTests.seeds.flatMap { try RandomMaps(seed: $0).sketch.graph.nodes.map(\.op.name) }
    #expect(
      Set(names) == [
        "convolution", "pixel_shuffle", "max_pool", "average_pool", "resize_bilinear", "to_image", "join_channels",
      ])
  }
}
