import MultiwayCore

/// The types of attention.
extension TypeInference {
  func attention(_ attention: Attention) throws(GraphError) -> [ValueType] {
    guard (0...Attention.maximumMemories).contains(attention.memories) else {
      throw fail("\(attention.memories) memories", expected: "0 to \(Attention.maximumMemories)")
    }
    let others = attention.memories * 2 + (attention.isPadded ? 1 : 0)
    let streams = (node.inputs.count - others) / 3
    guard (1...Attention.maximumStreams).contains(streams), node.inputs.count == streams * 3 + others else {
      throw fail(
        "\(node.inputs.count) inputs",
        expected: "key and value of \(attention.memories) memories, query, key and value of one or two streams")
    }
    var types: [ValueType] = []
    for stream in 0..<streams { types.append(try self.stream(stream, of: attention)) }
    for memory in 0..<attention.memories { try checkMemory(memory, of: attention, like: types[0]) }
    if attention.isPadded, let last = types.last {
      let mask = try input(node.inputs.count - 1, rank: 2, dtype: .u8)
      try require(mask.dimensions == Array(last.dimensions[..<2]), "a mask for each token")
    }
    if let bias = attention.bias { try checkBias(bias, of: attention, types.map { $0.dimensions[1] }) }
    return types
  }

  private func stream(_ stream: Int, of attention: Attention) throws(GraphError) -> ValueType {
    let place = attention.queryPlace(stream)
    let query = try tokens(place)
    guard attention.heads > 0, let width = query.dimensions[2].size, width % attention.heads == 0 else {
      throw fail(
        "a width of \(query.dimensions[2]) for \(attention.heads) heads", expected: "a multiple of the heads")
    }
    let first = graph[node.inputs[attention.queryPlace(0)]].type
    let key = try tokens(place + 1)
    let value = try tokens(place + 2)
    try require(
      key == query && value == query && query.dimensions[0] == first.dimensions[0]
        && query.dimensions[2] == first.dimensions[2], "query, key and value of the same type")
    return query
  }

  /// A memory's batch may have a symbol of its own: that it divides the streams' is checked when inputs are bound.
  private func checkMemory(
    _ memory: Int, of attention: Attention, like stream: ValueType
  ) throws(GraphError) {
    let place = attention.memoryPlace(memory)
    let key = try tokens(place)
    let value = try tokens(place + 1)
    try require(
      key == value && key.dimensions[2] == stream.dimensions[2],
      "key and value of the same type and of the streams' width")
    if let few = key.dimensions[0].size, let many = stream.dimensions[0].size {
      try require(few > 0 && many % few == 0, "a memory batch that divides the streams' batch")
    }
  }

  private func checkBias(
    _ bias: RelativeBias, of attention: Attention, _ lengths: [Dimension]
  ) throws(GraphError) {
    guard attention.memories == 0 else {
      throw fail("a relative bias with \(attention.memories) memories", expected: "a bias over streams alone")
    }
    let table = try matrix(bias.table)
    guard table[1] == attention.heads, table[0] > 0, table[0] <= Int(Int16.max) + 1 else {
      throw fail(
        "a bias table \(table) for \(attention.heads) heads",
        expected: "[1 to \(Int(Int16.max) + 1), \(attention.heads)]")
    }
    let index = try constant(bias.index).data
    guard index.dtype == .i16, index.shape.rank == 2, index.shape[0] == index.shape[1] else {
      throw fail("a bias index \(index.dtype.shortName)\(index.shape)", expected: "i16[T, T]")
    }
    // Only the last stream's length may depend on the inputs: its tokens are the last of the joint sequence.
    guard lengths.dropLast().allSatisfy({ $0.size != nil }) else {
      throw fail(
        "a relative bias over streams of \(lengths.map(\.description))", expected: "a fixed length before the last")
    }
    let least = lengths.reduce(0) { $0 + $1.offset }
    let isFixed = lengths.allSatisfy { $0.size != nil }
    guard isFixed ? index.shape[0] == least : index.shape[0] > least else {
      throw fail(
        "a bias index \(index.shape) over \(lengths.map(\.description)) tokens", expected: "a row for each token")
    }
  }
}
