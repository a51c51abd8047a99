private import CONNX
private import CProtobufC
public import MultiwayCore

/// Memory for the messages of one model, freed with it.
@safe
private final class MessageArena {
  private var blocks: [UnsafeMutableRawPointer] = unsafe []

  deinit { for index in unsafe blocks.indices { unsafe blocks[index].deallocate() } }

  private func allocate<Element>(_ count: Int, of type: Element.Type) -> UnsafeMutablePointer<Element> {
    let block = UnsafeMutableRawPointer.allocate(
      byteCount: max(1, count) * MemoryLayout<Element>.stride, alignment: max(8, MemoryLayout<Element>.alignment))
    unsafe blocks.append(block)
    return unsafe block.bindMemory(to: type, capacity: max(1, count))
  }

  /// Keeps a message, whose place it gives.
  func keep<Message>(_ message: Message) -> UnsafeMutablePointer<Message> {
    let place = unsafe allocate(1, of: Message.self)
    unsafe place.initialize(to: message)
    return unsafe place
  }

  /// Keeps elements, whose place it gives.
  func keep<Element>(_ elements: [Element]) -> UnsafeMutablePointer<Element> {
    let place = unsafe allocate(elements.count, of: Element.self)
    for (index, element) in elements.enumerated() { unsafe (place + index).initialize(to: element) }
    return unsafe place
  }

  /// Keeps messages, and gives the places of all.
  func keepEach<Message>(_ messages: [Message]) -> UnsafeMutablePointer<UnsafeMutablePointer<Message>?> {
    let place = unsafe allocate(messages.count, of: UnsafeMutablePointer<Message>?.self)
    for (index, message) in messages.enumerated() { unsafe (place + index).initialize(to: keep(message)) }
    return unsafe place
  }

  /// Keeps bytes.
  func keep(bytes: [UInt8]) -> ProtobufCBinaryData {
    let place = unsafe allocate(bytes.count, of: UInt8.self)
    unsafe bytes.withUnsafeBytes { source in
      if let start = source.baseAddress {
        unsafe UnsafeMutableRawPointer(place).copyMemory(from: start, byteCount: source.count)
      }
    }
    return unsafe ProtobufCBinaryData(len: bytes.count, data: place)
  }

  /// Keeps a text as a C string; zero bytes, which would end it, are left out.
  func keep(text: String) -> UnsafeMutablePointer<CChar> {
    unsafe keep(text.utf8.filter { $0 != 0 }.map { CChar(bitPattern: $0) } + [0])
  }

  func keep(texts: [String]) -> UnsafeMutablePointer<UnsafeMutablePointer<CChar>?> {
    let place = unsafe allocate(texts.count, of: UnsafeMutablePointer<CChar>?.self)
    for (index, text) in texts.enumerated() { unsafe (place + index).initialize(to: keep(text: text)) }
    return unsafe place
  }
}

extension ONNXModel {
  /// The bytes of the model. Throws `.unexportable` where they would be more than protobuf allows.
  public func encoded() throws(ONNXError) -> TensorBytes {
    let arena = MessageArena()
    var model = unsafe Onnx__ModelProto()
    unsafe onnx__model_proto__init(&model)
    unsafe model.has_ir_version = 1
    unsafe model.ir_version = Int64(irVersion)
    unsafe model.producer_name = arena.keep(text: producerName)
    unsafe model.producer_version = arena.keep(text: producerVersion)
    unsafe model.doc_string = arena.keep(text: description)
    unsafe model.graph = arena.keep(ONNXModel.message(graph, arena))
    var opset = unsafe Onnx__OperatorSetIdProto()
    unsafe onnx__operator_set_id_proto__init(&opset)
    unsafe opset.domain = arena.keep(text: "")
    unsafe opset.has_version = 1
    unsafe opset.version = Int64(self.opset)
    unsafe model.n_opset_import = 1
    unsafe model.opset_import = arena.keepEach([opset])
    unsafe model.n_metadata_props = properties.count
    unsafe model.metadata_props = arena.keepEach(properties.map { unsafe ONNXModel.message($0, arena) })

    let size = unsafe onnx__model_proto__get_packed_size(&model)
    guard size < Int(Int32.max) else {
      throw ONNXError(
        .unexportable, "the model without its external data takes \(size) bytes",
        expected: "less than 2 GiB, the limit of protobuf")
    }
    let buffer = AlignedBuffer(byteCount: size)
    unsafe _ = onnx__model_proto__pack(&model, buffer.mutablePointer(to: UInt8.self))
    return buffer.bytes
  }

  /// The digest of the nodes' bytes after one another, by which a reader knows that no other program has changed them.
  public func nodesDigest() -> String {
    var digest = TensorDigest()
    for node in graph.nodes {
      let arena = MessageArena()
      var message = unsafe ONNXModel.message(node, arena)
      let buffer = AlignedBuffer(byteCount: unsafe onnx__node_proto__get_packed_size(&message))
      unsafe _ = onnx__node_proto__pack(&message, buffer.mutablePointer(to: UInt8.self))
      let bytes = buffer.bytes
      digest.update(bytes.span)
    }
    return digest.finish()
  }

  private static func message(_ property: ONNXProperty, _ arena: MessageArena) -> Onnx__StringStringEntryProto {
    var entry = unsafe Onnx__StringStringEntryProto()
    unsafe onnx__string_string_entry_proto__init(&entry)
    unsafe entry.key = arena.keep(text: property.key)
    unsafe entry.value = arena.keep(text: property.value)
    return unsafe entry
  }

  private static func message(_ graph: ONNXGraph, _ arena: MessageArena) -> Onnx__GraphProto {
    var message = unsafe Onnx__GraphProto()
    unsafe onnx__graph_proto__init(&message)
    unsafe message.name = arena.keep(text: graph.name)
    unsafe message.n_node = graph.nodes.count
    unsafe message.node = arena.keepEach(graph.nodes.map { unsafe ONNXModel.message($0, arena) })
    unsafe message.n_initializer = graph.initializers.count
    unsafe message.initializer = arena.keepEach(graph.initializers.map { unsafe ONNXModel.message($0, arena) })
    unsafe message.n_input = graph.inputs.count
    unsafe message.input = arena.keepEach(graph.inputs.map { unsafe ONNXModel.message($0, arena) })
    unsafe message.n_output = graph.outputs.count
    unsafe message.output = arena.keepEach(graph.outputs.map { unsafe ONNXModel.message($0, arena) })
    unsafe message.n_value_info = graph.values.count
    unsafe message.value_info = arena.keepEach(graph.values.map { unsafe ONNXModel.message($0, arena) })
    return unsafe message
  }

  private static func message(_ node: ONNXNode, _ arena: MessageArena) -> Onnx__NodeProto {
    var message = unsafe Onnx__NodeProto()
    unsafe onnx__node_proto__init(&message)
    unsafe message.name = arena.keep(text: node.name)
    unsafe message.op_type = arena.keep(text: node.type)
    unsafe message.n_input = node.inputs.count
    unsafe message.input = arena.keep(texts: node.inputs)
    unsafe message.n_output = node.outputs.count
    unsafe message.output = arena.keep(texts: node.outputs)
    unsafe message.n_attribute = node.attributes.count
    unsafe message.attribute = arena.keepEach(node.attributes.map { unsafe ONNXModel.message($0, arena) })
    return unsafe message
  }

  private static func message(_ attribute: ONNXAttribute, _ arena: MessageArena) -> Onnx__AttributeProto {
    var message = unsafe Onnx__AttributeProto()
    unsafe onnx__attribute_proto__init(&message)
    unsafe message.name = arena.keep(text: attribute.name)
    unsafe message.has_type = 1
    unsafe message.type = Int32(attribute.value.typeNumber)
    switch attribute.value {
    case .integer(let value):
      unsafe message.has_i = 1
      unsafe message.i = Int64(value)
    case .real(let value):
      unsafe message.has_f = 1
      unsafe message.f = value
    case .text(let value):
      unsafe message.has_s = 1
      unsafe message.s = arena.keep(bytes: Array(value.utf8))
    case .integers(let values):
      unsafe message.n_ints = values.count
      unsafe message.ints = arena.keep(values.map { Int64($0) })
    case .reals(let values):
      unsafe message.n_floats = values.count
      unsafe message.floats = arena.keep(values)
    case .other: break
    }
    return unsafe message
  }

  private static func message(_ tensor: ONNXTensor, _ arena: MessageArena) -> Onnx__TensorProto {
    var message = unsafe Onnx__TensorProto()
    unsafe onnx__tensor_proto__init(&message)
    unsafe message.name = arena.keep(text: tensor.name)
    unsafe message.has_data_type = 1
    unsafe message.data_type = Int32(clamping: tensor.elementType)
    unsafe message.n_dims = tensor.dimensions.count
    unsafe message.dims = arena.keep(tensor.dimensions.map { Int64($0) })
    switch tensor.content {
    case .inline(let bytes):
      unsafe message.has_raw_data = 1
      unsafe message.raw_data = arena.keep(bytes: bytes)
    case .external(let location, let offset, let byteCount):
      let entries = [
        ONNXProperty("location", location), ONNXProperty("offset", String(offset)),
        ONNXProperty("length", String(byteCount)),
      ]
      unsafe message.has_data_location = 1
      unsafe message.data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL
      unsafe message.n_external_data = entries.count
      unsafe message.external_data = arena.keepEach(entries.map { unsafe ONNXModel.message($0, arena) })
    }
    return unsafe message
  }

  private static func message(_ value: ONNXValueInfo, _ arena: MessageArena) -> Onnx__ValueInfoProto {
    var shape = unsafe Onnx__TensorShapeProto()
    unsafe onnx__tensor_shape_proto__init(&shape)
    unsafe shape.n_dim = value.dimensions.count
    unsafe shape.dim = arena.keepEach(value.dimensions.map { unsafe ONNXModel.message($0, arena) })
    var tensor = unsafe Onnx__TypeProto__Tensor()
    unsafe onnx__type_proto__tensor__init(&tensor)
    unsafe tensor.has_elem_type = 1
    unsafe tensor.elem_type = Int32(clamping: value.elementType)
    unsafe tensor.shape = arena.keep(shape)
    var type = unsafe Onnx__TypeProto()
    unsafe onnx__type_proto__init(&type)
    unsafe type.value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE
    unsafe type.tensor_type = arena.keep(tensor)
    var message = unsafe Onnx__ValueInfoProto()
    unsafe onnx__value_info_proto__init(&message)
    unsafe message.name = arena.keep(text: value.name)
    unsafe message.type = arena.keep(type)
    return unsafe message
  }

  private static func message(
    _ dimension: ONNXValueInfo.Dimension, _ arena: MessageArena
  ) -> Onnx__TensorShapeProto__Dimension {
    var message = unsafe Onnx__TensorShapeProto__Dimension()
    unsafe onnx__tensor_shape_proto__dimension__init(&message)
    switch dimension {
    case .size(let size):
      unsafe message.value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE
      unsafe message.dim_value = Int64(size)
    case .symbol(let name):
      unsafe message.value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM
      unsafe message.dim_param = arena.keep(text: name)
    }
    return unsafe message
  }
}

extension ONNXAttribute.Value {
  /// The standard's number for the type.
  var typeNumber: Int {
    switch self {
    case .real: 1
    case .integer: 2
    case .text: 3
    case .reals: 6
    case .integers: 7
    case .other(let type): type
    }
  }
}
