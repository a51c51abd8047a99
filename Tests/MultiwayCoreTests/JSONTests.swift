import MultiwayCore
import Testing

@Suite struct JSONTests {
  private func parse(_ text: String) throws -> JSONValue { try JSONParser.parse(Array(text.utf8)) }

  @Test(arguments: [
    "", " ", "{", "[", "}", "{}x", "{}{}", "[1,]", "{\"a\":1,}", "{'a':1}", "{a:1}", "{\"a\" 1}", "[1 2]", "nan",
    "NaN", "Infinity", "-Infinity", "-", "+1", "01", "1.", ".5", "1e", "1e+", "0x10", "tru", "nul", "falsee",
    "/*c*/{}", "{}//c", "\u{FEFF}{}", "{}\0", "\"a", "\"\\x41\"", "\"\\u12\"", "\"\\u12G4\"", "\"\\ud800\"",
    "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\u{1}\"", "\"\n\"", "{\"a\":1,\"a\":2}", "{\"a\":1,\"\\u0061\":2}", "1e999",
    "[\u{A0}1]",
  ])
  func refuses(text: String) {
    #expect(throws: JSONError.self) { try parse(text) }
  }

  @Test(
    arguments: [[0x22, 0xFF, 0x22], [0x22, 0xC0, 0xAF, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0xFF]] as [[UInt8]])
  func refusesWhatIsNotUTF8(bytes: [UInt8]) {
    #expect(throws: JSONError.self) { try JSONParser.parse(bytes) }
  }

  @Test func readsValues() throws {
    #expect(try parse(" \t\r\n null ") == .null)
    #expect(try parse("[true,false]") == .array([.bool(true), .bool(false)]))
    #expect(try parse("9223372036854775807") == .integer(.max))
    #expect(try parse("-9223372036854775808") == .integer(.min))
    #expect(try parse("9223372036854775808") == .real(9_223_372_036_854_775_808))
    #expect(try parse("6.0") == .real(6))
    #expect(try parse("6e0") == .real(6))
    #expect(try parse("\"\\u0041\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\\"\\\\\"") == .string("A😀/\u{8}\u{C}\n\r\t\"\\"))
  }

  @Test func boundsDepth() throws {
    let nested = { (depth: Int) in String(repeating: "[", count: depth) + String(repeating: "]", count: depth) }
    #expect(throws: Never.self) { try parse(nested(127)) }
    #expect(throws: JSONError.self) { try parse(nested(129)) }
    #expect(throws: JSONError.self) { try parse(nested(100_000)) }
    #expect(throws: JSONError.self) { try parse(String(repeating: "{\"a\":", count: 100_000)) }
  }

  @Test func tellsWhere() {
    do {
      _ = try parse("{\"a\":1,\"a\":2}")
    } catch let error as JSONError {
      #expect(error.byteOffset == 7)
      #expect(error.message.contains("twice"))
    } catch {
      Issue.record(error)
    }
  }

  @Test func objectsKeepTheirOrder() throws {
    var object = JSONObject()
    for index in 0..<100 { object["key \(index)"] = .integer(index) }
    object["key 50"] = .null
    #expect(object.members.count == 100)
    #expect(object.members.map(\.key) == (0..<100).map { "key \($0)" })
    #expect(object["key 50"] == .null)
    #expect(object["key 99"] == .integer(99))
    #expect(object["key 100"] == nil)
  }

  @Test func comesBack() throws {
    let text = #"{"a":[1,2.5,-0.1,1e-07,null,true],"b":{"c":"\u0001\b\f\n\"\\é😀"},"d":[],"e":{}}"#
    let value = try parse(text)
    #expect(try parse(value.text()) == value)
    #expect(try parse(value.text(indented: true)) == value)
    #expect(JSONValue.string("\u{8}\u{C}\u{1}/").text() == "\"\\b\\f\\u0001/\"")
  }

  @Test func everyTruncationIsAnError() {
    let text = Array(#"{"weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"n":-1.5e3}"#.utf8)
    for count in text.indices { #expect(throws: JSONError.self) { try JSONParser.parse(Array(text[..<count])) } }
  }

  /// What a text may make a reader hold, however long it is.
  @Test func boundsMemory() throws {
    let long = String(repeating: "x", count: JSONParser.maximumString)
    #expect(throws: JSONError.self) { try parse("[\"\(long)x\"]") }
    #expect(throws: JSONError.self) { try parse(String(repeating: "1", count: JSONParser.maximumNumber + 1)) }
    #expect(try parse(String(repeating: "0", count: 0) + "0." + String(repeating: "0", count: 1000)) == .real(0))
    let list = Array(("[" + String(repeating: "0,", count: 999) + "0]").utf8)
    #expect(throws: Never.self) { try JSONParser.parse(list, allowance: 64_000) }
    #expect(throws: JSONError.self) { try JSONParser.parse(list, allowance: 63_999) }
    let object = Array(("{" + (0..<100).map { "\"\($0)\":{}" }.joined(separator: ",") + "}").utf8)
    #expect(throws: JSONError.self) { try JSONParser.parse(object, allowance: 10_000) }
    #expect(throws: Never.self) { try JSONParser.parse(object, allowance: 20_000) }
  }

  /// Members one by one: the same texts are right and wrong as when they are parsed whole.
  @Test(
    arguments: [
      "{}", " { } ", #"{"a":1}"#, #"{"a":1,"b":[{}]} "#, #"{"a":{"a":1},"b":2}"#, "[]", "1", "{", #"{"a""#, #"{"a":"#,
      #"{"a":1"#, #"{"a":1,"#, #"{"a":1,}"#, "{,}", #"{"a":1 "b":2}"#, #"{"a" 1}"#, #"{"a":1}x"#, #"{"a":1}}"#,
      #"{1:2}"#,
    ])
  func membersOneByOne(text: String) throws {
    let whole = try? parse(text).object
    var parser = JSONParser(TensorBytes(copying: Array(text.utf8)))
    var found = JSONObject()
    var isGood = true
    do {
      isGood = try parser.beginObject()
      while isGood, let (key, offset) = try parser.nextMember() {
        #expect(Array(text.utf8)[offset] == UInt8(ascii: "\""))
        found[key] = try parser.value(allowance: 1 << 20)
      }
      if isGood { try parser.end() }
    } catch {
      isGood = false
    }
    #expect((isGood ? found : nil) == whole ?? nil)
  }
}
