import MultiwayCore
import MultiwayGraph

/// The ops that make, move and take out tokens.
extension GraphLowering {
  /// [N, C, H, W] → [N, C, H/p, p, W/p, p] → [N, H/p, W/p, C, p, p] → [N, H/p · W/p, C·p·p].
  mutating func patchify(_ size: Int) {
    let (image, patches) = (inputType().dimensions.map(\.offset), outputType().dimensions.map(\.offset))
    let cut = reshape(
      input(), [0, image[1], image[2] / size, size, image[3] / size, size], .local("cut"))
    let ordered = transpose(cut, [0, 2, 4, 1, 3, 5], .local("ordered"))
    _ = reshape(ordered, [0, patches[1], patches[2]], .output(0))
  }

  mutating func embedding(_ table: ConstantID) {
    // The rows are cast, not the table: that one is large and mostly not read.
    let expression = graph[table].data
    switch expression.dtype {
    case .f16, .bf16:
      let type: ONNXElementType = expression.dtype == .f16 ? .float16 : .bfloat16
      let rows = shared("stored \(table.index)") { lowering in
        lowering.weight(
          lowering.graph[table].name + ".stored", type, expression.shape.dimensions, .floats(expression))
      }
      let found = emit("Gather", [rows, input()], .local("stored"), .init("axis", .integer(0)))
      _ = cast(found, to: .float, .output(0))
    default: emit("Gather", [constant(table), input()], .output(0), .init("axis", .integer(0)))
    }
  }

  mutating func prependToken(_ token: ConstantID) {
    let width = graph[token].data.shape[0]
    let vector = constant(token)
    let batch = length(input(), inputType().dimensions[0], axis: 0)
    let shape = concatenate([batch, integers([1, width])], axis: 0, .local("token_shape"))
    let tokens = emit("Expand", [vector, shape], .local("token"))
    _ = concatenate([tokens, input()], axis: 1, .output(0))
  }

  mutating func addPositions(_ table: ConstantID, _ firstRow: Int) {
    let tokens = inputType().dimensions[1]
    guard let count = tokens.size else {
      // The rows that are there bound the number of tokens: more of them make shapes that do not fit, and the consumer says so.
      let rows = constant(table)
      let length = length(input(), tokens, axis: 1)
      let first = integers([firstRow])
      let end = firstRow == 0 ? length : emit("Add", [length, first], .local("positions_end"))
      let positions = slice(rows, from: first, to: end, axis: 0, .local("positions"))
      emit("Add", [input(), positions], .output(0))
      return
    }
    // A part of the table is cut out by a node, which consumers compute once: so the whole table is in the file.
    let rows = firstRow..<firstRow + count
    let positions = constant(table)
    guard rows != 0..<graph[table].data.shape[0] else {
      emit("Add", [input(), positions], .output(0))
      return
    }
    let part = shared("rows \(rows) of \(table.index)") { lowering in
      let (first, end) = (lowering.integers([rows.lowerBound]), lowering.integers([rows.upperBound]))
      let name = "\(lowering.graph[table].name)/rows_\(rows.lowerBound)_\(rows.upperBound)"
      return lowering.slice(positions, from: first, to: end, axis: 0, .named(name))
    }
    emit("Add", [input(), part], .output(0))
  }

  mutating func zeroPadding() {
    let isPadding = paddingMask(input(1))
    let column = emit("Unsqueeze", [isPadding, integers([2])], .local("is_padding"))
    emit("Where", [column, number(0), input()], .output(0))
  }

  /// A padding mask as truth values.
  mutating func paddingMask(_ mask: String) -> String {
    shared("padding \(mask)") { $0.cast(mask, to: .bool, .named(mask + "/bool")) }
  }

  mutating func meanTokens(_ first: Int) {
    var tokens = input()
    if first > 0 { tokens = slice(tokens, from: integers([first]), to: axisEnd(), axis: 1, .local("tokens")) }
    _ = reduce("ReduceMean", tokens, axis: 1, keepsAxis: false, .output(0))
  }

  mutating func selectToken(_ index: Int) {
    emit("Gather", [input(), integer(index)], .output(0), .init("axis", .integer(1)))
  }

  mutating func dropTokens(_ first: Int) {
    _ = slice(input(), from: integers([first]), to: axisEnd(), axis: 1, .output(0))
  }

  mutating func joinInputs(axis: Int) {
    _ = concatenate(node.inputs.indices.map { input($0) }, axis: axis, .output(0))
  }
}
