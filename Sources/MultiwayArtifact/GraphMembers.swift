import MultiwayCore
import MultiwayGraph

/// The members of a JSON object in the graph, taken out with their types checked.
struct GraphMembers {
  private let object: JSONObject
  /// Where the object stands: `nodes[12]`.
  let place: String

  init(_ value: JSONValue, place: String) throws(ArtifactError) {
    guard let object = value.object else {
      throw ArtifactError(.malformedGraph, "not a JSON object", expected: "a JSON object", node: place)
    }
    self.object = object
    self.place = place
  }

  /// An error about this object.
  func error(_ found: String, expected: String) -> ArtifactError {
    ArtifactError(.malformedGraph, found, expected: expected, node: place)
  }

  private func wrong(_ key: String, _ expected: String) -> ArtifactError {
    guard object[key] != nil else { return error("'\(key)' is missing", expected: expected) }
    return error("'\(key)' is of another type or out of range", expected: expected)
  }

  func has(_ key: String) -> Bool { object[key] != nil }

  /// Refuses members that nobody would read.
  func requireOnly(_ keys: [String]) throws(ArtifactError) {
    for (key, _) in object.members where !keys.contains(key) {
      throw error("the member '\(key)'", expected: keys.isEmpty ? "no members" : "only " + keys.joined(separator: ", "))
    }
  }

  func array(_ key: String) throws(ArtifactError) -> [JSONValue] {
    guard let array = object[key]?.array else { throw wrong(key, "an array") }
    guard array.count <= GraphJSON.maximumCount else {
      throw error("\(array.count) \(key)", expected: "at most \(GraphJSON.maximumCount)")
    }
    return array
  }

  /// The objects of an array.
  func entries(_ key: String) throws(ArtifactError) -> [GraphMembers] {
    var entries: [GraphMembers] = []
    for (index, value) in try array(key).enumerated() {
      entries.append(try GraphMembers(value, place: "\(key)[\(index)]"))
    }
    return entries
  }

  /// The object of a key, an empty one if there is none.
  func members(_ key: String) throws(ArtifactError) -> GraphMembers {
    try GraphMembers(object[key] ?? .object([:]), place: "\(place).\(key)")
  }

  func string(_ key: String) throws(ArtifactError) -> String {
    guard let string = object[key]?.string else { throw wrong(key, "a string") }
    return string
  }

  func name(_ key: String) throws(ArtifactError) -> String { try checked(try string(key)) }

  func names(_ key: String) throws(ArtifactError) -> [String] {
    var names: [String] = []
    for value in try array(key) {
      guard let name = value.string else { throw wrong(key, "an array of names") }
      names.append(try checked(name))
    }
    return names
  }

  private func checked(_ name: String) throws(ArtifactError) -> String {
    guard (1...GraphJSON.maximumNameSize).contains(name.utf8.count) else {
      throw error("a name of \(name.utf8.count) bytes", expected: "1 to \(GraphJSON.maximumNameSize)")
    }
    return name
  }

  func integer(_ key: String, in range: ClosedRange<Int>) throws(ArtifactError) -> Int {
    guard let integer = object[key]?.integer, range.contains(integer) else {
      throw wrong(key, "a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return integer
  }

  func float(_ key: String) throws(ArtifactError) -> Float {
    guard let number = object[key]?.number, Float(number).isFinite else { throw wrong(key, "a number of fp32") }
    return Float(number)
  }

  func bool(_ key: String) throws(ArtifactError) -> Bool {
    guard let bool = object[key]?.bool else { throw wrong(key, "true or false") }
    return bool
  }

  /// One of the words of an enumeration.
  func choice<Choice: RawRepresentable<String> & CaseIterable>(
    _ key: String, _ type: Choice.Type
  ) throws(ArtifactError) -> Choice {
    guard let choice = Choice(rawValue: try string(key)) else {
      throw wrong(key, "one of " + type.allCases.map(\.rawValue).joined(separator: ", "))
    }
    return choice
  }
}
