private import CONNX
private import CProtobufC
public import MultiwayCore

extension ONNXModel {
  /// Reads the bytes of a model; tensors with external data stay references. Fields that the schema leaves out are skipped. Throws
  /// `.malformed` for bytes that are not a model.
  ///
  /// The schema has no message in itself, so no file makes this recurse, and what is allocated is bounded by the bytes there are.
  public init(decoding bytes: RawSpan, file: String? = nil) throws(ONNXError) {
    let unpacked = unsafe bytes.withUnsafeBytes { buffer in
      unsafe onnx__model_proto__unpack(
        nil, buffer.count, buffer.baseAddress?.assumingMemoryBound(to: UInt8.self))
    }
    guard let message = unsafe unpacked else {
      throw ONNXError(
        .malformed, "\(bytes.byteCount) bytes that protobuf cannot read as a ModelProto", expected: "an ONNX model",
        file: file)
    }
    defer { unsafe onnx__model_proto__free_unpacked(message, nil) }
    guard let graph = unsafe message.pointee.graph else {
      throw ONNXError(.malformed, "a model without a graph", expected: "an ONNX model", file: file)
    }
    let opsets = unsafe ONNXModel.messages(message.pointee.n_opset_import, message.pointee.opset_import)
    var standard: Int64?
    for index in unsafe opsets.indices {
      let opset = unsafe opsets[index].pointee
      if unsafe ["", "ai.onnx"].contains(ONNXModel.text(opset.domain)) { standard = unsafe opset.version }
    }
    guard let version = standard.flatMap({ Int(exactly: $0) }) else {
      throw ONNXError(.malformed, "a model that imports no standard operators", expected: "an opset", file: file)
    }
    unsafe self.init(
      irVersion: Int(clamping: message.pointee.ir_version), opset: version,
      producerName: ONNXModel.text(message.pointee.producer_name),
      producerVersion: ONNXModel.text(message.pointee.producer_version),
      description: ONNXModel.text(message.pointee.doc_string), graph: ONNXGraph(name: ""),
      properties: ONNXModel.messages(message.pointee.n_metadata_props, message.pointee.metadata_props).map {
        unsafe ONNXModel.property($0)
      })
    self.graph = unsafe try ONNXModel.graph(graph, file: file)
  }

  private static func text(_ characters: UnsafeMutablePointer<CChar>?) -> String {
    unsafe characters.map { unsafe String(cString: $0) } ?? ""
  }

  private static func texts(
    _ count: Int, _ places: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
  ) -> [String] {
    guard let places = unsafe places else { return [] }
    return (0..<count).map { unsafe text(places[$0]) }
  }

  private static func messages<Message>(
    _ count: Int, _ places: UnsafeMutablePointer<UnsafeMutablePointer<Message>?>?
  ) -> [UnsafeMutablePointer<Message>] {
    guard let places = unsafe places else { return unsafe [] }
    var messages: [UnsafeMutablePointer<Message>] = unsafe []
    for index in 0..<count { if let place = unsafe places[index] { unsafe messages.append(place) } }
    return unsafe messages
  }

  private static func integers(_ count: Int, _ places: UnsafeMutablePointer<Int64>?) -> [Int] {
    guard let places = unsafe places else { return [] }
    return (0..<count).map { unsafe Int(places[$0]) }
  }

  private static func bytes(_ data: ProtobufCBinaryData) -> [UInt8] {
    guard let start = unsafe data.data else { return [] }
    return unsafe Array(UnsafeBufferPointer(start: start, count: data.len))
  }

  private static func property(_ entry: UnsafeMutablePointer<Onnx__StringStringEntryProto>) -> ONNXProperty {
    unsafe ONNXProperty(text(entry.pointee.key), text(entry.pointee.value))
  }

  private static func graph(
    _ message: UnsafeMutablePointer<Onnx__GraphProto>, file: String?
  ) throws(ONNXError) -> ONNXGraph {
    var graph = unsafe ONNXGraph(name: text(message.pointee.name))
    graph.nodes = unsafe messages(message.pointee.n_node, message.pointee.node).map { unsafe node($0) }
    let tensors = unsafe messages(message.pointee.n_initializer, message.pointee.initializer)
    for index in unsafe tensors.indices {
      graph.initializers.append(unsafe try ONNXModel.tensor(tensors[index], file: file))
    }
    graph.inputs = unsafe messages(message.pointee.n_input, message.pointee.input).map { unsafe value($0) }
    graph.outputs = unsafe messages(message.pointee.n_output, message.pointee.output).map { unsafe value($0) }
    graph.values = unsafe messages(message.pointee.n_value_info, message.pointee.value_info).map { unsafe value($0) }
    return graph
  }

  private static func node(_ message: UnsafeMutablePointer<Onnx__NodeProto>) -> ONNXNode {
    unsafe ONNXNode(
      text(message.pointee.op_type), name: text(message.pointee.name),
      inputs: texts(message.pointee.n_input, message.pointee.input),
      outputs: texts(message.pointee.n_output, message.pointee.output),
      attributes: messages(message.pointee.n_attribute, message.pointee.attribute).map { unsafe attribute($0) })
  }

  private static func attribute(_ message: UnsafeMutablePointer<Onnx__AttributeProto>) -> ONNXAttribute {
    let value: ONNXAttribute.Value =
      switch unsafe message.pointee.type {
      case 1: unsafe .real(message.pointee.f)
      case 2: unsafe .integer(Int(message.pointee.i))
      case 3: unsafe .text(String(decoding: bytes(message.pointee.s), as: UTF8.self))
      case 6: unsafe .reals((0..<message.pointee.n_floats).map { unsafe message.pointee.floats[$0] })
      case 7: unsafe .integers(integers(message.pointee.n_ints, message.pointee.ints))
      case let type: .other(type: Int(type))
      }
    return unsafe ONNXAttribute(text(message.pointee.name), value)
  }

  private static func tensor(
    _ message: UnsafeMutablePointer<Onnx__TensorProto>, file: String?
  ) throws(ONNXError) -> ONNXTensor {
    let name = unsafe text(message.pointee.name)
    let content: ONNXTensor.Content
    if unsafe message.pointee.data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL {
      let entries = unsafe messages(message.pointee.n_external_data, message.pointee.external_data)
        .map { unsafe property($0) }
      func entry(_ key: String) -> String? { entries.last { $0.key == key }?.value }
      guard let location = entry("location"), let offset = Int(entry("offset") ?? "0"), offset >= 0,
        let byteCount = Int(entry("length") ?? ""), byteCount >= 0
      else {
        throw ONNXError(
          .malformed, "external data without a location or with an impossible place",
          expected: "a file name, an offset and a length", file: file, tensor: name)
      }
      content = .external(location: location, offset: offset, byteCount: byteCount)
    } else {
      content = .inline(unsafe bytes(message.pointee.raw_data))
    }
    return unsafe ONNXTensor(
      name: name, elementType: Int(message.pointee.data_type),
      dimensions: integers(message.pointee.n_dims, message.pointee.dims), content: content)
  }

  private static func value(_ message: UnsafeMutablePointer<Onnx__ValueInfoProto>) -> ONNXValueInfo {
    var info = unsafe ONNXValueInfo(name: text(message.pointee.name), elementType: 0, dimensions: [])
    guard let type = unsafe message.pointee.type,
      unsafe type.pointee.value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE,
      let tensor = unsafe type.pointee.tensor_type
    else { return info }
    info.elementType = unsafe Int(tensor.pointee.elem_type)
    guard let shape = unsafe tensor.pointee.shape else { return info }
    info.dimensions = unsafe messages(shape.pointee.n_dim, shape.pointee.dim).map { dimension in
      switch unsafe dimension.pointee.value_case {
      case ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE:
        unsafe .size(Int(dimension.pointee.dim_value))
      case ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM:
        unsafe .symbol(text(dimension.pointee.dim_param))
      default: .symbol("")
      }
    }
    return info
  }
}
