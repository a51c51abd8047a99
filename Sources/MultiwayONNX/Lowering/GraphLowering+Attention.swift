import MultiwayCore
import MultiwayGraph

/// Softmax attention over the joint sequence of all streams and memories.
extension GraphLowering {
  mutating func attention(_ attention: Attention) {
    let streams = node.outputs.count
    let width = outputType().dimensions[2].offset
    let size = width / attention.heads
    let places = (0..<streams).map { attention.queryPlace($0) }
    let query = joined(places.map { input($0) }, .local("queries"))
    let key = joined(memories(attention, part: 0) + places.map { input($0 + 1) }, .local("keys"))
    let value = joined(memories(attention, part: 1) + places.map { input($0 + 2) }, .local("values"))

    let queries = heads(query, attention.heads, size, [0, 2, 1, 3], "queries")
    let keys = heads(key, attention.heads, size, [0, 2, 3, 1], "keys")
    let values = heads(value, attention.heads, size, [0, 2, 1, 3], "values")
    var scores = emit("MatMul", [queries, keys], .local("scores"))
    if let bias = attention.bias { scores = emit("Add", [scores, relativeBias(bias)], .local("biased_scores")) }
    let lengths = attentionLengths(attention)
    let blocked = blockedKeys(attention, lengths)
    if let blocked { scores = emit("Add", [scores, penalty(blocked)], .local("masked_scores")) }
    var weights = emit("Softmax", [scores], .local("weights"), .init("axis", .integer(-1)))
    if let blocked, streams == 1, attention.memories == 0, attention.isPadded {
      // A query may have no key at all: its weights are zeros, not those of a softmax over equal penalties.
      weights = emit("Where", [blocked, number(0), weights], .local("allowed_weights"))
    }
    let mixed = emit("MatMul", [weights, values], .local("mixed_heads"))
    let ordered = transpose(mixed, [0, 2, 1, 3], .local("mixed_tokens"))
    let joint = reshape(ordered, [0, 0, width], streams == 1 ? .output(0) : .local("mixed"))
    if streams > 1 { split(joint) }
  }

  private mutating func joined(_ parts: [String], _ result: Result) -> String {
    parts.count == 1 ? parts[0] : concatenate(parts, axis: 1, result)
  }

  /// [N, T, width] → [N, heads, T, size], or for keys [N, heads, size, T].
  private mutating func heads(_ value: String, _ heads: Int, _ size: Int, _ order: [Int], _ name: String) -> String {
    let cut = reshape(value, [0, 0, heads, size], .local(name + "_heads"))
    return transpose(cut, order, .local(name + "_by_head"))
  }

  /// Cuts the joint sequence of two streams into the outputs.
  private mutating func split(_ joint: String) {
    var start = integers([0])
    for stream in node.outputs.indices {
      let isLast = stream == node.outputs.count - 1
      let end =
        isLast
        ? axisEnd()
        : tokenCount([node.outputs[stream]])
      _ = slice(joint, from: start, to: end, axis: 1, .output(stream))
      start = end
    }
  }
}

// MARK: - Memories

extension GraphLowering {
  /// The keys (part 0) or values (part 1) of all memories, every example as often as the streams' batch asks for.
  private mutating func memories(_ attention: Attention, part: Int) -> [String] {
    let batch = outputType().dimensions[0]
    return (0..<attention.memories).map { memory in
      let place = attention.memoryPlace(memory) + part
      let type = inputType(place)
      guard type.dimensions[0] != batch else { return input(place) }
      return repeated(input(place), type, to: batch, of: input(attention.queryPlace(0)))
    }
  }

  /// [M, S, width] → [M, N / M, S, width] → [N, S, width].
  private mutating func repeated(_ memory: String, _ type: ValueType, to batch: Dimension, of stream: String) -> String
  {
    let width = integers([type.dimensions[2].offset])
    let few = length(memory, type.dimensions[0], axis: 0)
    let many = length(stream, batch, axis: 0)
    let tokens = length(memory, type.dimensions[1], axis: 1)
    return shared("repeated \(memory) \(stream)") { lowering in
      let times = lowering.emit("Div", [many, few], .named(memory + "/times"))
      let column = lowering.emit("Unsqueeze", [memory, lowering.integers([1])], .named(memory + "/single"))
      let wide = lowering.concatenate([few, times, tokens, width], axis: 0, .named(memory + "/repeated_shape"))
      let copies = lowering.emit("Expand", [column, wide], .named(memory + "/copies"))
      let shape = lowering.concatenate([many, tokens, width], axis: 0, .named(memory + "/joined_shape"))
      return lowering.emit("Reshape", [copies, shape], .named(memory + "/repeated"))
    }
  }
}

// MARK: - Who may attend to whom

/// How many queries and keys there are and how many of them are the last stream's, as int64 [1] each.
private struct AttentionLengths {
  var queries: String
  var keys: String
  var last: String
}

extension GraphLowering {
  private mutating func attentionLengths(_ attention: Attention) -> AttentionLengths? {
    guard attention.mask == .caption || attention.isPadded else { return nil }
    let streams = node.outputs.indices.map { node.inputs[attention.queryPlace($0)] }
    let memories = (0..<attention.memories).map { node.inputs[attention.memoryPlace($0)] }
    return AttentionLengths(
      queries: tokenCount(streams), keys: tokenCount(memories + streams), last: tokenCount(streams.suffix(1)))
  }

  /// Truth values [N or 1, 1, queries or 1, keys], true where a query may not attend to a key; nil where all may attend to all.
  private mutating func blockedKeys(_ attention: Attention, _ lengths: AttentionLengths?) -> String? {
    guard let lengths else { return nil }
    let padding = attention.isPadded ? paddedKeys(attention, lengths) : nil
    guard attention.mask == .caption else { return padding }
    let later = laterKeys(lengths)
    return padding.map { padding in
      shared("blocked \(padding) \(later)") { $0.emit("Or", [padding, later], .named("attention_mask/blocked")) }
    } ?? later
  }

  /// [N, 1, 1, keys]: the padded tokens of the last stream; what stands before them never is padded.
  private mutating func paddedKeys(_ attention: Attention, _ lengths: AttentionLengths) -> String {
    let padding = paddingMask(input(node.inputs.count - 1))
    let isAlone = attention.memories == 0 && node.outputs.count == 1
    return shared("padded \(padding) \(lengths.keys) \(lengths.last)") { lowering in
      var row = lowering.emit("Unsqueeze", [padding, lowering.integers([1, 2])], .named(padding + "/keys"))
      if !isAlone {
        let others = lowering.emit("Sub", [lengths.keys, lengths.last], .named("attention_mask/others"))
        let zeros = lowering.integers([0, 0, 0])
        let pads = lowering.concatenate(
          [zeros, others, lowering.integers([0, 0, 0, 0])], axis: 0, .named("attention_mask/pads"))
        // Bytes, as not every consumer pads truth values.
        let bytes = lowering.cast(row, to: .int32, .named("attention_mask/padding"))
        let padded = lowering.emit("Pad", [bytes, pads], .named("attention_mask/padded"))
        row = lowering.cast(padded, to: .bool, .named("attention_mask/padded_keys"))
      }
      return row
    }
  }

  /// [1, 1, queries, keys]: the tokens of the last stream that come after a query. Queries and keys end together, so query `i` may
  /// attend up to key `i + keys − queries`, and to everything before the last stream.
  private mutating func laterKeys(_ lengths: AttentionLengths) -> String {
    shared("later \(lengths.queries) \(lengths.keys) \(lengths.last)") { lowering in
      let shift = lowering.emit("Sub", [lengths.keys, lengths.queries], .named("attention_mask/shift"))
      let others = lowering.emit("Sub", [lengths.keys, lengths.last], .named("attention_mask/others"))
      let lastOther = lowering.emit("Sub", [others, lowering.integers([1])], .named("attention_mask/last_other"))
      let rows = lowering.range(lengths.queries, "attention_mask/query")
      let shifted = lowering.emit("Add", [rows, shift], .named("attention_mask/shifted"))
      let limits = lowering.emit("Max", [shifted, lastOther], .named("attention_mask/limits"))
      let column = lowering.emit("Unsqueeze", [limits, lowering.integers([1])], .named("attention_mask/limit"))
      let columns = lowering.range(lengths.keys, "attention_mask/key")
      let later = lowering.emit("Greater", [columns, column], .named("attention_mask/later"))
      return lowering.emit("Unsqueeze", [later, lowering.integers([0, 1])], .named("attention_mask/later_keys"))
    }
  }

  /// 0, 1, … below a number that is int64 [1].
  private mutating func range(_ count: String, _ name: String) -> String {
    let end = emit("Squeeze", [count, integers([0])], .named(name + "_count"))
    return emit("Range", [integer(0), end, integer(1)], .named(name))
  }

  /// What is added to the scores: 0, or for blocked keys a number so low that nothing is left of them after the softmax.
  private mutating func penalty(_ blocked: String) -> String {
    shared("penalty \(blocked)") { lowering in
      let lowest = lowering.number(-Float.greatestFiniteMagnitude)
      return lowering.emit("Where", [blocked, lowest, lowering.number(0)], .named("attention_mask"))
    }
  }
}

// MARK: - Relative positions

extension GraphLowering {
  /// [1, heads, queries, keys], or without the 1: the table's rows by the index. Both are constants, so a consumer computes it once
  /// when it loads the model; expanded in the file it would be many times the size of the table.
  private mutating func relativeBias(_ bias: RelativeBias) -> String {
    let name = graph[bias.table].name
    let whole = shared("bias \(bias.table.index) \(bias.index.index)") { lowering in
      let table = lowering.constant(bias.table, "_transposed") { $0.transposed }
      let index = lowering.biasIndex(bias)
      return lowering.emit("Gather", [table, index], .named(name + "/expanded"), .init("axis", .integer(1)))
    }
    guard node.outputs.contains(where: { graph[$0].type.dimensions[1].size == nil }) else { return whole }
    // Fewer tokens than the index has rows take its upper left corner.
    let total = tokenCount(node.outputs)
    return shared("corner \(whole) \(total)") { lowering in
      let ends = lowering.concatenate([total, total], axis: 0, .named(name + "/ends"))
      return lowering.emit(
        "Slice", [whole, lowering.integers([0, 0]), ends, lowering.integers([1, 2])],
        .named(name + "/corner"))
    }
  }

  private mutating func biasIndex(_ bias: RelativeBias) -> String {
    // Whether an index is right depends on the table's rows.
    let rows = graph[bias.table].data.shape[0]
    return shared("index \(bias.index.index) \(rows)") { lowering in
      let index = lowering.graph[bias.index]
      return lowering.weight(
        index.name, .int32, index.data.shape.dimensions, .biasIndex(index.data, rows: rows))
    }
  }
}
