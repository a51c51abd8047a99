import CMultiwayKernels
import MultiwayCore
import MultiwayKernels
import Testing

/// One int8 linear layer with full-range operands.
struct Int8Case: CustomTestStringConvertible {
  var rows: Int, inputs: Int, outputs: Int
  var extreme = false
  var groups = 1
  var q: [UInt8] = [], weights: [[Int8]] = []
  private(set) var panels: [Int8] = [], sums: [Int32] = []

  var testDescription: String { "\(rows)×\(inputs)→\(outputs) in \(groups)\(extreme ? " extreme" : "")" }

  init(_ rows: Int, _ inputs: Int, _ outputs: Int, groups: Int = 1, extreme: Bool = false) {
    (self.rows, self.inputs, self.outputs, self.extreme) = (rows, inputs, outputs, extreme)
    self.groups = groups
    var numbers = Numbers(seed: rows * 31 + inputs * 7 + outputs)
    let stride = QuantizedRows.stride(width: inputs)
    q = extreme ? Array(repeating: 255, count: rows * stride) : numbers.bytes(rows * stride)
    for output in 0..<outputs {
      let row = numbers.bytes(inputs).map { max(-127, Int8(bitPattern: $0)) }
      weights.append(extreme ? row.map { _ in output % 2 == 0 ? 127 : -127 } : row)
    }
    panels = packed()
    sums = summed()
  }

  private func packed() -> [Int8] {
    let quads = (inputs + 3) / 4
    var panels = [Int8](repeating: 0, count: (outputs + 63) / 64 * quads * 256)
    for (o, row) in weights.enumerated() {
      for (i, w) in row.enumerated() { panels[((o / 64 * quads + i / 4) * 64 + o % 64) * 4 + i % 4] = w }
    }
    return panels
  }
  func range(_ group: Int) -> Range<Int> { inputs / groups * group..<inputs / groups * (group + 1) }
  private func summed() -> [Int32] {
    var sums: [Int32] = []
    for group in 0..<groups {
      for row in weights { sums.append(row[range(group)].reduce(Int32(0)) { $0 + Int32($1) }) }
    }
    return sums
  }
  var scales: [Float] { (0..<groups * rows).map { 0.001 * Float($0 + 1) } }
  var zeros: [Int32] { (0..<groups * rows).map { Int32($0 * 37 % 256) } }
  var weightScales: [Float] { (0..<groups * outputs).map { 0.002 + 0.0001 * Float($0) } }
  var bias: [Float] { (0..<outputs).map { Float($0 % 17) * 0.1 - 0.8 } }
  var residual: [Float] { (0..<(rows * outputs)).map { Float($0 % 29) * 0.05 - 0.7 } }

  func run(_ context: RawContext, bias withBias: Bool, residual withResidual: Bool, gelu: Bool) -> [Float] {
    let (q, p) = (GuardedBuffer(q), GuardedBuffer(panels))
    let (s, z) = (GuardedBuffer(scales), GuardedBuffer(zeros))
    let (ws, wsum, b) = (GuardedBuffer(weightScales), GuardedBuffer(sums), GuardedBuffer(bias))
    let (r, y) = (GuardedBuffer(residual), GuardedBuffer<Float>(count: rows * outputs))
    var job = unsafe mwk_linear_i8_job(
      rows: rows, inputs: inputs, outputs: outputs, groups: groups, q: q.pointer, scale: s.pointer, zero: z.pointer,
      panels: p.pointer,
      weight_scale: ws.pointer, weight_sum: wsum.pointer, bias: withBias ? UnsafePointer(b.pointer) : nil,
      residual: withResidual ? UnsafePointer(r.pointer) : nil,
      activation: gelu ? mwk_activation_gelu : mwk_activation_none, y: y.pointer, y_stride: outputs)
    #expect(unsafe mwk_linear_i8(context.pointer, &job) == mwk_ok)
    withExtendedLifetime((q, p, s, z, ws, wsum, b, r)) {}
    return y.values
  }

  /// The definition, one output at a time.
  func reference(bias withBias: Bool, residual withResidual: Bool) -> [Float] {
    let stride = QuantizedRows.stride(width: inputs)
    var y: [Float] = []
    for r in 0..<rows {
      for o in 0..<outputs {
        var v: Float = 0
        for group in 0..<groups {
          var sum: Int64 = 0
          let zero = Int64(zeros[group * rows + r])
          for i in range(group) { sum += (Int64(q[r * stride + i]) - zero) * Int64(weights[o][i]) }
          let (t, s) = (Float(Int32(sum)), scales[group * rows + r] * weightScales[group * outputs + o])
          v = group == 0 ? (withBias ? bias[o].addingProduct(t, s) : t * s) : t * s + v
        }
        y.append(withResidual ? v + residual[r * outputs + o] : v)
      }
    }
    return y
  }
}

@Suite struct LinearInt8Tests {
  static let cases = [
    Int8Case(0, 8, 8), Int8Case(1, 1, 1), Int8Case(2, 3, 63), Int8Case(5, 4, 64), Int8Case(6, 5, 65),
    Int8Case(7, 88, 100), Int8Case(13, 17, 129), Int8Case(3, 0, 5), Int8Case(7, 16, 65, groups: 2),
    Int8Case(13, 36, 130, groups: 3),
  ]

  @Test(arguments: cases) func variantsAgreeWithTheDefinition(layer: Int8Case) {
    for (bias, residual) in [(true, true), (true, false), (false, true), (false, false)] {
      let y = checkVariants { layer.run($0, bias: bias, residual: residual, gelu: false).bits }
      #expect(y == layer.reference(bias: bias, residual: residual).bits)
    }
    checkVariants { layer.run($0, bias: true, residual: true, gelu: true).bits }
  }

  @Test(arguments: [Int8Case(3, 4096, 66, extreme: true), Int8Case(2, 65536, 2, extreme: true)])
  func extremesDoNotSaturate(layer: Int8Case) {
    let y = checkVariants(threads: [2]) { layer.run($0, bias: false, residual: false, gelu: false).bits }
    #expect(y == layer.reference(bias: false, residual: false).bits)
  }

  @Test(arguments: [
    Int8Case(197, 768, 192), Int8Case(197, 256, 768), Int8Case(50, 3072, 64), Int8Case(50, 3072, 64, groups: 4),
  ])
  func modelShapes(layer: Int8Case) {
    checkVariants { layer.run($0, bias: true, residual: true, gelu: true).bits }
  }

  @Test func aBrokenRowGivesNaN() throws {
    let context = try KernelContext(threads: 2)
    var layout = RegionLayout()
    let (x, y) = (layout.floats(3 * 20), layout.floats(3 * 70))
    let rows = QuantizedRows(values: layout.bytes(3 * 20), scales: layout.floats(3), zeros: layout.floats(3))
    var arena = try Arena(byteCount: layout.byteCount)
    var numbers = Numbers(seed: 1)
    var values = numbers.floats(60)
    values[25] = .nan
    arena.write(values, at: x)
    context.quantizeRows(&arena, rows: 3, width: 20, x: x, into: rows)
    let weights = try context.quantizeWeightPanels(
      TensorBytes(copying: numbers.floats(70 * 20)), outputs: 70, inputs: 20)
    let constants = Int8Weights(
      outputs: 70, inputs: 20, panels: weights.panels, scales: weights.scales, sums: weights.sums)
    let epilogue = Epilogue(activation: .gelu)
    context.linear(&arena, rows: 3, x: rows, weights: constants, epilogue: epilogue, into: y)
    let result = arena.read(y)
    #expect(result[0..<70].allSatisfy { $0.isFinite } && result[140...].allSatisfy { $0.isFinite })
    #expect(result[70..<140].allSatisfy { $0.isNaN })
  }
}

@Suite struct WeightQuantizationTests {
  @Test(arguments: [(1, 1), (3, 5), (64, 16), (65, 88), (130, 33), (70, 768)], [false, true])
  func panelsFollowTheDefinition(shape: (outputs: Int, inputs: Int), hasColumnScales: Bool) {
    let (outputs, inputs) = shape
    var numbers = Numbers(seed: outputs + inputs)
    var w = numbers.floats(outputs * inputs, scale: 0.1)
    let columns = hasColumnScales ? numbers.floats(inputs).map { $0 + 1.5 } : nil
    if outputs > 1 { for i in 0..<inputs { w[inputs + i] = 0 } }
    let quads = (inputs + 3) / 4, panelBytes = Int8Weights.panelByteCount(outputs: outputs, inputs: inputs)
    let result = checkVariants { context -> [UInt32] in
      let (source, panels) = (GuardedBuffer(w), GuardedBuffer([Int8](repeating: 99, count: panelBytes)))
      let (scale, sum) = (GuardedBuffer<Float>(count: outputs), GuardedBuffer<Int32>(count: outputs))
      let scales = columns.map { GuardedBuffer($0) }
      var broken = 0
      unsafe _ = mwk_quantize_weight_panels(
        context.pointer, outputs, inputs, 1, source.pointer, scales?.pointer, panels.pointer, scale.pointer,
        sum.pointer,
        &broken)
      #expect(broken == 0)
      return panels.values.map { UInt32(bitPattern: Int32($0)) } + scale.values.bits
        + sum.values.map { UInt32(bitPattern: $0) }
    }
    if let columns { for i in w.indices { w[i] *= columns[i % inputs] } }
    var panels = [UInt32](repeating: 0, count: panelBytes)
    var scales: [Float] = []
    var sums: [UInt32] = []
    for o in 0..<outputs {
      let row = w[(o * inputs)..<((o + 1) * inputs)]
      let top = row.map(abs).max() ?? 0
      var sum: Int32 = 0
      for (i, value) in row.enumerated() {
        let q = top == 0 ? 0 : Int32((value * (127 / top)).rounded(.toNearestOrEven))
        panels[((o / 64 * quads + i / 4) * 64 + o % 64) * 4 + i % 4] = UInt32(bitPattern: max(-127, min(127, q)))
        sum += max(-127, min(127, q))
      }
      scales.append(top == 0 ? 1 : top / 127)
      sums.append(UInt32(bitPattern: sum))
    }
    #expect(result == panels + scales.bits + sums)
  }

  /// Weights in groups are as many matrices of a group's width; their panels lie one after the other in each panel.
  @Test(arguments: [(65, 16, 2), (130, 36, 3)]) func groupsAreMatricesOfTheirOwn(
    outputs: Int, inputs: Int, groups: Int
  ) throws {
    var numbers = Numbers(seed: outputs)
    let w = numbers.floats(outputs * inputs)
    let columns = numbers.floats(inputs).map { $0 + 1.5 }
    let context = try KernelContext(threads: 2)
    let whole = try context.quantizeWeightPanels(
      TensorBytes(copying: w), outputs: outputs, inputs: inputs, groups: groups,
      columnScales: TensorBytes(copying: columns))
    let panels = whole.panels.array(of: Int8.self)
    let part = inputs / groups
    for g in 0..<groups {
      var slice: [Float] = []
      for o in 0..<outputs {
        for i in 0..<part { slice.append(w[o * inputs + g * part + i] * columns[g * part + i]) }
      }
      let own = try context.quantizeWeightPanels(TensorBytes(copying: slice), outputs: outputs, inputs: part)
      let range = g * outputs..<(g + 1) * outputs
      #expect(own.scales.array(of: Float.self) == Array(whole.scales.array(of: Float.self)[range]))
      #expect(own.sums.array(of: Int32.self) == Array(whole.sums.array(of: Int32.self)[range]))
      let ownPanels = own.panels.array(of: Int8.self)
      for p in 0..<(outputs + 63) / 64 {
        let start = (p * inputs + g * part) * 64
        #expect(panels[start..<start + part * 64] == ownPanels[p * part * 64..<(p + 1) * part * 64])
      }
    }
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity]) func aWeightThatIsNotFiniteIsRefused(value: Float) throws {
    var weights = [Float](repeating: 1, count: 3 * 40)
    weights[79] = value
    let context = try KernelContext()
    var code: KernelErrorCode?
    do throws(KernelError) {
      _ = try context.quantizeWeightPanels(TensorBytes(copying: weights), outputs: 3, inputs: 40)
    } catch {
      code = error.code
    }
    #expect(code == .nonFinite)
  }

  @Test func emptyLayers() throws {
    let context = try KernelContext()
    let none: [Float] = []
    let noOutputs = try context.quantizeWeightPanels(TensorBytes(copying: none), outputs: 0, inputs: 4)
    let noInputs = try context.quantizeWeightPanels(TensorBytes(copying: none), outputs: 2, inputs: 0)
    #expect(noOutputs.panels.byteCount == 0)
    #expect(noInputs.scales.array(of: Float.self) == [1, 1] && noInputs.sums.array(of: Int32.self) == [0, 0])
  }
}
