import Foundation
import MultiwayCheckpoint
import MultiwayCore
import MultiwayTestSupport
import Testing

/// Models that take the place of others in their folder: the old one, the new one, or none, whatever happens on the way.
@Suite struct ModelFolderWriterTests {
  private static let weights = "model.safetensors"
  private static let index = "model.safetensors.index.json"

  /// What is written: how many tensors, and in how many files.
  enum Output: Sendable, CaseIterable {
    case whole, twoShards, threeShards

    var files: [String] {
      switch self {
      case .whole: [weights]
      case .twoShards: (1...2).map { "model-0000\($0)-of-00002.safetensors" } + [index]
      case .threeShards: (1...3).map { "model-0000\($0)-of-00003.safetensors" } + [index]
      }
    }
  }

  /// From each to each, itself too.
  private static let changes = Output.allCases.flatMap { old in Output.allCases.map { (old, $0) } }

  private static func write(
    _ output: Output, value: Float, to path: String, companions: [String] = ["config.json"], overwrite: Bool = true,
    inputs: [FileIdentity] = []
  ) throws {
    let tensors = (0..<6).map { number in
      StoredTensor(name: "t\(number)", dtype: .f32, shape: [4], elements: [Float](repeating: value, count: 4))
    }
    let size: Int? =
      switch output {
      case .whole: nil
      case .twoShards: 48
      case .threeShards: 32
      }
    _ = try ModelFolderWriter.write(
      tensors, shardSize: size, companions: companions.map { ($0, ["of": .integer(Int(value))]) }, to: path,
      overwrite: overwrite, inputs: inputs)
  }

  /// The files of a folder without those that begin with a dot, and these.
  private static func files(of path: String) throws -> (named: [String: [UInt8]], temporary: [String: [UInt8]]) {
    let names = try FileManager.default.contentsOfDirectory(atPath: path)
    let all = try names.map { ($0, try contents(of: path + "/" + $0)) }
    func dictionary(_ isHidden: Bool) -> [String: [UInt8]] {
      Dictionary(uniqueKeysWithValues: all.filter { $0.0.hasPrefix(".") == isHidden })
    }
    return (dictionary(false), dictionary(true))
  }

  /// A change of a folder, as it begins and as it ends when nothing happens.
  private struct Change {
    let folder: TemporaryFolder
    let new: Output
    let before: [String: [UInt8]]
    let after: [String: [UInt8]]
    let calls: [FaultyDevice.Call]
    let knowsUnnamed: Bool

    var path: String { folder.file("model") }

    init(from old: Output, to new: Output, knowsUnnamed: Bool = true) throws {
      self.new = new
      self.knowsUnnamed = knowsUnnamed
      folder = try TemporaryFolder()
      let path = folder.file("model")
      try write(old, value: 1, to: path)
      _ = try folder.write([1], as: "model/README.md")
      before = try files(of: path).named
      let device = FaultyDevice(failing: nil, knowsUnnamed: knowsUnnamed)
      try OutputDevices.$current.withValue(device) { try write(new, value: 2, to: path) }
      calls = device.calls
      let found = try files(of: path)
      after = found.named
      #expect(found.temporary.isEmpty)
    }

    /// Starts anew with a fault, and gives the error.
    func run(failing place: Int, with fault: FaultyDevice.Fault) throws -> FileError? {
      try FileManager.default.removeItem(atPath: path)
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
      for (name, bytes) in before { _ = try folder.write(bytes, as: "model/" + name) }
      do {
        let device = FaultyDevice(failing: place, with: fault, knowsUnnamed: knowsUnnamed)
        try OutputDevices.$current.withValue(device) { try write(new, value: 2, to: path) }
        return nil
      } catch let error as FileError {
        return error
      }
    }
  }

  /// The new model alone, and what was never a model's.
  @Test(arguments: changes) func nothingOfTheOldModelStays(old: Output, new: Output) throws {
    let change = try Change(from: old, to: new)
    #expect(change.before.keys.sorted() == (old.files + ["README.md", "config.json"]).sorted())
    #expect(change.after.keys.sorted() == (new.files + ["README.md", "config.json"]).sorted())
    let read = try readEverything(change.path)
    #expect(read.count == 6)
    for (tensor, _) in read { #expect(try tensor.contiguousBytes().array(of: Float.self) == [2, 2, 2, 2]) }
  }

  /// Each call fails once: everything is as it was, and nothing else is there.
  @Test(arguments: changes) func anErrorChangesNothing(outputs: (Output, Output)) throws {
    for knowsUnnamed in [true, false] {
      let change = try Change(from: outputs.0, to: outputs.1, knowsUnnamed: knowsUnnamed)
      #expect(change.calls.count >= 20)
      for place in change.calls.indices {
        // Old files are removed at the end, and a removal that failed is tried again.
        let call = change.calls[place]
        let error = try change.run(failing: place, with: .error(place % 2 == 0 ? ENOSPC : EIO))
        #expect((error == nil) == (call == .unlink), "\(call), \(place)")
        let found = try ModelFolderWriterTests.files(of: change.path)
        #expect(found.named == (error == nil ? change.after : change.before), "\(call), \(place)")
        #expect(found.temporary.isEmpty, "\(call), \(place)")
      }
    }
  }

  /// After each call nothing is done any more, as if the process were gone. Readers find the old model, the new one, or none, and of the
  /// old one nothing is lost as long as the new one is not there.
  @Test(arguments: changes) func aKilledProcessLeavesNoMixture(outputs: (Output, Output)) throws {
    var states: Set<String> = []
    for knowsUnnamed in [true, false] {
      let change = try Change(from: outputs.0, to: outputs.1, knowsUnnamed: knowsUnnamed)
      for place in change.calls.indices {
        let error = try change.run(failing: place, with: .death)
        let (named, temporary) = try ModelFolderWriterTests.files(of: change.path)
        let comment = "\(change.calls[place]), \(place)"
        if named == change.after {
          states.insert("new")
        } else {
          states.insert(named == change.before ? "old" : "none")
          let hasKey = named.keys.contains {
            [ModelFolderWriterTests.weights, ModelFolderWriterTests.index].contains($0)
          }
          #expect(named == change.before || !hasKey, "\(comment)")
          #expect(error != nil, "\(comment)")
          let left = Array(named.values) + Array(temporary.values)
          for (name, bytes) in change.before { #expect(left.contains(bytes), "\(name) is lost: \(comment)") }
          if named != change.before {
            #expect(error?.diagnosis.found.contains("could not be put back: ") == true, "\(comment)")
          }
        }
        // A rerun does not mind what is left.
        try ModelFolderWriterTests.write(change.new, value: 2, to: change.path)
        let again = try ModelFolderWriterTests.files(of: change.path).named
        #expect(again.filter { change.after[$0.key] != nil } == change.after, "a rerun after \(comment)")
      }
    }
    #expect(states == ["old", "none", "new"])
  }

  /// SIGTERM at each call: while files change places it waits, and nothing is left behind but a whole model.
  @Test func anInterruptLeavesTheOldModelOrTheNewOne() async throws {
    let change = try Change(from: .whole, to: .twoShards)
    let first = try #require(change.calls.firstIndex(of: .synchronizeFolder)) - 2
    var states: Set<String> = []
    for place in [0, 3, first - 1] + Array(first..<change.calls.count) {
      try FileManager.default.removeItem(atPath: change.path)
      try ModelFolderWriterTests.write(.whole, value: 1, to: change.path)
      _ = try change.folder.write([1], as: "model/README.md")
      let path = change.path
      await #expect(processExitsWith: .signal(SIGTERM)) { [path = path as String, place = place as Int] in
        // The threads of tests block signals, and whoever started them may have them ignored.
        var signals = sigset_t()
        unsafe sigemptyset(&signals)
        unsafe sigaddset(&signals, SIGTERM)
        unsafe pthread_sigmask(SIG_UNBLOCK, &signals, nil)
        signal(SIGTERM, SIG_DFL)
        Interrupts.removeTemporaryFiles()
        try OutputDevices.$current.withValue(FaultyDevice(failing: place, with: .signal(SIGTERM))) {
          try ModelFolderWriterTests.write(.twoShards, value: 2, to: path)
        }
      }
      let found = try ModelFolderWriterTests.files(of: path)
      #expect(found.named == (place < first ? change.before : change.after), "\(change.calls[place]), \(place)")
      #expect(found.temporary.isEmpty, "\(change.calls[place]), \(place)")
      states.insert(found.named == change.after ? "new" : "old")
    }
    #expect(states == ["old", "new"])
  }

  /// An index comes from strangers: it cannot name what shall be removed.
  @Test func onlyShardsGo() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("model")
    let stays = [
      "README.md", "model.txt", "model-1-of-2.safetensors", "model-00001-of-00002.bin",
      "other-00001-of-00002.safetensors",
      "model-00001-of-0000x.safetensors", "model-00009-of-00009.safetensors",
    ]
    let outside = "../model-00001-of-00001.safetensors"
    let goes = "model-00003-of-00003.safetensors"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    for name in stays + [outside, goes] { _ = try folder.write([1], as: "model/" + name) }
    // The last of them no index names.
    let map = (stays.dropLast() + [outside, goes]).map { "\"\($0)\": \"\($0)\"" }.joined(separator: ", ")
    _ = try folder.write(Array("{\"weight_map\": {\(map)}}".utf8), as: "model/" + ModelFolderWriterTests.index)
    try ModelFolderWriterTests.write(.whole, value: 2, to: path)
    let names = try FileManager.default.contentsOfDirectory(atPath: path).sorted()
    #expect(names == (stays + ["config.json", ModelFolderWriterTests.weights]).sorted())
    #expect(folder.names.contains("model-00001-of-00001.safetensors"))
    // One that cannot be read names nothing.
    _ = try folder.write(
      Array("{\"weight_map\": {\"a\": \"\(stays[6])\"".utf8), as: "model/" + ModelFolderWriterTests.index)
    try ModelFolderWriterTests.write(.whole, value: 2, to: path)
    #expect(try FileManager.default.contentsOfDirectory(atPath: path).sorted() == names)
  }

  @Test func whatIsRefused() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("model")
    func refused(
      _ output: Output, companions: [String] = ["config.json"], overwrite: Bool = true, inputs: [FileIdentity] = []
    ) throws -> FileError? {
      let before = try ModelFolderWriterTests.files(of: path).named
      let error = #expect(throws: FileError.self) {
        try ModelFolderWriterTests.write(
          output, value: 2, to: path, companions: companions, overwrite: overwrite, inputs: inputs)
      }
      let after = try ModelFolderWriterTests.files(of: path)
      #expect(after.named == before && after.temporary.isEmpty)
      return error
    }
    try ModelFolderWriterTests.write(.whole, value: 1, to: path)
    for output in Output.allCases {
      let error = try refused(output, overwrite: false)
      #expect(error?.code == .exists)
      #expect(error?.diagnosis.remedy?.contains("--force") == true)
      // The old weights would go, under whatever name the new ones come.
      let inputs = [try MappedFile(path: path + "/" + ModelFolderWriterTests.weights).identity]
      #expect(try refused(output, inputs: inputs)?.code == .cannotCreate)
    }
    // Readers would take the old model's configuration for the new one's.
    let configured = try refused(.twoShards, companions: [])
    #expect(configured?.code == .exists)
    #expect(configured?.diagnosis.found.contains("config.json") == true)
    try ModelFolderWriterTests.write(.threeShards, value: 1, to: path)
    let shard = try MappedFile(path: path + "/" + Output.threeShards.files[2]).identity
    #expect(try refused(.whole, inputs: [shard])?.code == .cannotCreate)
    _ = try folder.write([1], as: "model/pytorch_model.bin")
    let error = try refused(.whole)
    #expect(error?.code == .exists)
    #expect(error?.diagnosis.found.contains("pytorch_model.bin") == true)
  }

  /// Without a model in it, a folder's files are replaced one by one.
  @Test func aConfigurationAloneIsNoModel() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("model")
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    _ = try folder.write(Array("{}".utf8), as: "model/config.json")
    try ModelFolderWriterTests.write(.whole, value: 2, to: path, companions: [])
    #expect(try contents(of: path + "/config.json") == Array("{}".utf8))
    #expect(try readEverything(path).count == 6)
  }
}
