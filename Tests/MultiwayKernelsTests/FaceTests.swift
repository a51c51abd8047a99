import MultiwayCore
import MultiwayKernels
import Testing

/// The Swift face passes on what it was given, and refuses what does not fit.
@Suite struct FaceTests {
  @Test func attentionMatchesTheKernel() throws {
    let attention = AttentionCase(2, 2, 16, [13, 9], caption: true, padded: true)
    let context = try KernelContext(threads: 2)
    var layout = RegionLayout()
    let inputs = attention.qkv.map { layout.floats($0.count) }
    let outputs = attention.tokens.map { layout.floats(2 * $0 * attention.width) }
    let padding = layout.bytes(attention.padding.count)
    var arena = try Arena(byteCount: layout.byteCount)
    for (region, values) in zip(inputs, attention.qkv) { arena.write(values, at: region) }
    arena.write(attention.padding, at: padding)
    let segments = (0..<2).map { s in
      AttentionSegment(
        query: inputs[s], key: inputs[s].dropping(elements: attention.width),
        value: inputs[s].dropping(elements: 2 * attention.width), output: outputs[s], tokens: attention.tokens[s],
        stride: attention.stride)
    }
    context.attention(
      &arena, batch: 2, heads: 2, headSize: 16, scale: 0.3, segments: segments, keyPadding: padding, mode: .caption)
    #expect(arena.read(outputs[0]) + arena.read(outputs[1]) == attention.run(RawContext(.scalar)))
  }

  @Test func memoriesAndBiasReachTheKernel() throws {
    let remembering = AttentionCase(
      6, 2, 8, [3], caption: true, memories: [.init(tokens: 5, share: 3), .init(tokens: 2)])
    let biased = AttentionCase(6, 2, 8, [3], biased: true)
    let context = try KernelContext(threads: 2)
    for attention in [remembering, biased] {
      var layout = RegionLayout()
      let input = layout.floats(attention.qkv[0].count)
      let output = layout.floats(6 * 3 * attention.width)
      let regions = attention.memories.map { (layout.floats($0.keys.count), layout.floats($0.values.count)) }
      var arena = try Arena(byteCount: layout.byteCount)
      arena.write(attention.qkv[0], at: input)
      for (memory, region) in zip(attention.memories, regions) {
        arena.write(memory.keys, at: region.0)
        arena.write(memory.values, at: region.1)
      }
      let segment = AttentionSegment(
        query: input, key: input.dropping(elements: attention.width),
        value: input.dropping(elements: 2 * attention.width), output: output, tokens: 3, stride: attention.stride)
      let memories = zip(attention.memories, regions).map { memory, region in
        AttentionMemory(key: region.0, value: region.1, tokens: memory.tokens, share: memory.share)
      }
      let bias = AttentionBias(
        table: TensorBytes(copying: attention.bias), rows: attention.biasRows,
        index: TensorBytes(copying: attention.biasIndex), tokens: 3 + attention.biasSlack)
      context.attention(
        &arena, batch: 6, heads: 2, headSize: 8, scale: 0.3, memories: memories, segments: [segment],
        mode: attention.caption ? .caption : .full, bias: attention.bias.isEmpty ? nil : bias)
      #expect(arena.read(output) == attention.run(RawContext(.scalar)))
    }
  }

  @Test func rowsAndLinearLayers() throws {
    var numbers = Numbers(seed: 9)
    let (values, weight, bias) = (numbers.floats(5 * 20), numbers.floats(20), numbers.floats(20))
    let context = try KernelContext(threads: 2)
    var layout = RegionLayout()
    let (x, y, z) = (layout.floats(100), layout.floats(100), layout.floats(5 * 30))
    let quantized = (0..<2).map { _ in
      QuantizedRows(values: layout.bytes(100), scales: layout.floats(5), zeros: layout.floats(5))
    }
    var arena = try Arena(byteCount: layout.byteCount)
    arena.write(values, at: x)
    let (w, b) = (TensorBytes(copying: weight), TensorBytes(copying: bias))
    context.layerNorm(&arena, rows: 5, width: 20, x: x, weight: w, bias: b, epsilon: 1e-6, into: y)
    context.quantizeRows(&arena, rows: 5, width: 20, x: y, into: quantized[0])
    context.layerNormQuantize(
      &arena, rows: 5, width: 20, x: x, weight: w, bias: b, epsilon: 1e-6, into: quantized[1])
    #expect(arena.read(quantized[0].values, as: UInt8.self) == arena.read(quantized[1].values, as: UInt8.self))
    #expect(arena.read(quantized[0].scales) == arena.read(quantized[1].scales))
    #expect(arena.read(quantized[0].zeros, as: Int32.self) == arena.read(quantized[1].zeros, as: Int32.self))

    let matrix = numbers.floats(30 * 20)
    let layer = FloatWeights(outputs: 30, inputs: 20, bytes: TensorBytes(copying: matrix), type: .f32)
    context.linear(&arena, rows: 5, x: y, weights: layer, epilogue: Epilogue(activation: .gelu), into: z)
    let exact = arena.read(z)
    let panels = try context.quantizeWeightPanels(TensorBytes(copying: matrix), outputs: 30, inputs: 20)
    let int8 = Int8Weights(
      outputs: 30, inputs: 20, panels: panels.panels, scales: panels.scales,
      sums: panels.sums)
    context.linear(&arena, rows: 5, x: quantized[0], weights: int8, epilogue: Epilogue(activation: .gelu), into: z)
    let worst = zip(arena.read(z), exact).map { abs($0 - $1) }.max() ?? 1
    // 20 terms, each off by half a step of a 255-step input (range ~ 4) or of a 127-step weight.
    #expect(worst < 0.2)
    context.l2Normalize(&arena, rows: 5, width: 20, x: x, into: x)
    #expect(arena.read(x) != values)
  }

  @Test func programmerErrorsStopTheProgram() async {
    await #expect(processExitsWith: .failure) {
      let context = try KernelContext()
      var arena = try Arena(byteCount: 64)
      let outside = Region(byteOffset: 32, byteCount: 64)
      context.gelu(&arena, count: 4, x: Region(byteOffset: 0, byteCount: 16), into: outside)
    }
    await #expect(processExitsWith: .failure) {
      let context = try KernelContext()
      var arena = try Arena(byteCount: 64)
      context.gelu(
        &arena, count: 5, x: Region(byteOffset: 0, byteCount: 16), into: Region(byteOffset: 32, byteCount: 32))
    }
    await #expect(processExitsWith: .failure) {
      _ = Int8Weights(
        outputs: 65, inputs: 4, panels: TensorBytes(copying: [UInt8](repeating: 0, count: 256)),
        scales: TensorBytes(copying: [Float](repeating: 1, count: 65)),
        sums: TensorBytes(copying: [Int32](repeating: 0, count: 65)))
    }
    await #expect(processExitsWith: .failure) {
      let context = try KernelContext()
      var arena = try Arena(byteCount: 256)
      let table = TensorBytes(copying: [Float](repeating: 1, count: 8))
      let y = Region(byteOffset: 0, byteCount: 64)
      context.gatherRows(&arena, table: table, type: .f32, tableRows: 2, width: 4, ids: [2], into: y)
    }
  }
}
