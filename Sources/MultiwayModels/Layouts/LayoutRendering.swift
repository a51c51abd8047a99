public import MultiwayCore
public import MultiwayGraph

/// A tensor as a key layout wants it.
public struct RenderedTensor: Sendable {
  /// The layout's key.
  public var key: String
  /// The elements under the layout's shape.
  public var data: TensorExpression
  /// What the parameters in it are for, in their order; empty for a buffer.
  public var roles: [Role] = []
}

/// A model's parameters in the form of a key layout.
public struct RenderedStateDict: Sendable {
  /// The tensors in the order of the model's declaration.
  public var tensors: [RenderedTensor]
  /// What has no place in the layout, for people.
  public var notes: [String]
}

extension Model {
  /// The parameters under the keys and in the shapes of a layout.
  ///
  /// Throws `.unsupported` for a layout that does not exist for the architecture or cannot hold the model.
  public func rendered(layout name: String, file: String) throws(ModelError) -> RenderedStateDict {
    guard let keyMap = layouts.first(where: { $0.layout == name }) else {
      throw ModelError(
        .unsupported, "there is no \(name) layout for \(summary)",
        expected: "one of " + layouts.map(\.layout).joined(separator: ", "), file: file)
    }
    let bound = parameters.parameters
    let (entries, homeless) = KeyEntry.entries(of: bound.map(\.declaration), in: keyMap)
    var tensors: [RenderedTensor] = []
    for entry in entries {
      tensors.append(
        RenderedTensor(key: entry.key, data: expression(of: entry), roles: entry.declarations.map(\.role)))
    }
    tensors += keyMap.buffers.map { RenderedTensor(key: $0.name, data: .stored($0)) }
    return RenderedStateDict(tensors: tensors, notes: notes(homeless, layout: name))
  }

  private func expression(of entry: KeyEntry) -> TensorExpression {
    var parts = entry.declarations.compactMap { parameters[$0.name]?.data }
    if entry.leadingRows > 0, let first = parts.first {
      let dimensions = [entry.leadingRows] + first.shape.dimensions.dropFirst()
      let zeros = StoredTensor.zeros(name: entry.key, dtype: first.dtype, shape: Shape(dimensions))
      parts.insert(.stored(zeros), at: 0)
    }
    let joined = parts.count == 1 ? parts[0] : TensorExpression.joinedRows(parts)
    return joined.shape == entry.shape ? joined : .reshaped(joined, entry.shape)
  }

  private func notes(_ homeless: [ParameterDeclaration], layout: String) -> [String] {
    guard !homeless.isEmpty else { return [] }
    let text = homeless.filter { $0.modality == .text }.count
    let others = homeless.filter { $0.modality != .text }.map(\.name)
    var parts = text > 0 ? ["\(text) text parameters"] : []
    parts += others.prefix(8)
    if others.count > 8 { parts.append("\(others.count - 8) more") }
    return ["no place in the \(layout) layout: " + parts.joined(separator: ", ")]
  }
}

extension StoredTensor {
  /// A tensor of zeros in memory.
  static func zeros(name: String, dtype: DType, shape: Shape) -> StoredTensor {
    let bytes = AlignedBuffer(byteCount: shape.byteCount(of: dtype) ?? 0).bytes
    return StoredTensor(name: name, dtype: dtype, shape: shape, storage: MemoryStorage(bytes))
  }
}
