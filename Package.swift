// swift-tools-version: 6.2
import PackageDescription

/// Warnings are errors in CI only: a newer compiler's new warning must not stop a stranger's build.
let strict = Context.environment["MULTIWAY_STRICT"] != nil

let swiftSettings: [SwiftSetting] =
  [
    .enableExperimentalFeature("Lifetimes"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
    .strictMemorySafety(),
  ] + (strict ? [.treatAllWarnings(as: .error)] : [])

/// One row of the layering picture: a target and the lower rows that it may import.
struct Layer {
  var name: String
  var imports: [String]
  var tested = true
}

/// Lowest row first. A target imports only rows above its own in this list, and the build enforces it
/// (`swift build --explicit-target-dependency-import-check error`).
let layers: [Layer] = [
  Layer(name: "MultiwayCore", imports: ["CMultiwayFiles", "CXXHash"]),
  Layer(name: "MultiwayGGUF", imports: ["MultiwayCore"]),
  Layer(name: "MultiwayGraph", imports: ["MultiwayCore"]),
  Layer(name: "MultiwayCheckpoint", imports: ["MultiwayCore", "MultiwayGGUF", "CDeflate", "CZstd"]),
  Layer(name: "MultiwayDelivery", imports: ["MultiwayCore", "CZstd"]),
  Layer(name: "MultiwayKernels", imports: ["MultiwayCore", "CMultiwayKernels"]),
  Layer(name: "MultiwayModels", imports: ["MultiwayCore", "MultiwayGraph", "MultiwayCheckpoint"]),
  Layer(name: "MultiwayQuantization", imports: ["MultiwayCore", "MultiwayGraph", "MultiwayKernels"]),
  Layer(name: "MultiwayPasses", imports: ["MultiwayCore", "MultiwayGraph", "MultiwayQuantization"]),
  Layer(
    name: "MultiwayReference",
    imports: ["MultiwayCore", "MultiwayGraph", "MultiwayQuantization", "COpenBLAS"]),
  Layer(
    name: "MultiwayArtifact",
    imports: ["MultiwayCore", "MultiwayGGUF", "MultiwayGraph", "MultiwayQuantization"]),
  Layer(
    name: "MultiwayONNX",
    imports: ["MultiwayCore", "MultiwayGraph", "MultiwayQuantization", "CONNX", "CProtobufC"]),
  Layer(
    name: "MultiwayRuntime",
    imports: [
      "MultiwayCore", "MultiwayGraph", "MultiwayKernels", "MultiwayQuantization", "MultiwayArtifact",
    ]),
  Layer(
    name: "MultiwayParity",
    imports: ["MultiwayCore", "MultiwayGraph", "MultiwayPasses", "MultiwayReference", "MultiwayRuntime"]),
  Layer(
    name: "MultiwayConversion",
    imports: [
      "MultiwayCore", "MultiwayGGUF", "MultiwayGraph", "MultiwayCheckpoint", "MultiwayModels",
      "MultiwayQuantization", "MultiwayPasses", "MultiwayReference", "MultiwayArtifact", "MultiwayONNX",
      "MultiwayRuntime", "MultiwayParity", "CCrypto",
    ]),
]

/// Set by Tools/fuzz, which links the library MultiwayFuzzing with libFuzzer: `address` for a build under the address sanitizer, `plain`
/// for one without, which runs several times as fast and still traps wherever Swift checks.
let fuzzing = Context.environment["MULTIWAY_FUZZ"]

/// The targets that read what strangers made: libFuzzer counts their edges, and looks through all counters after every input.
let readers: Set = [
  "MultiwayCore", "MultiwayGGUF", "MultiwayGraph", "MultiwayCheckpoint", "MultiwayDelivery", "MultiwayModels",
  "MultiwayArtifact", "MultiwayONNX",
]

func settings(of target: String) -> [SwiftSetting] {
  guard let fuzzing else { return swiftSettings }
  let sanitizers = (readers.contains(target) ? ["fuzzer"] : []) + (fuzzing == "address" ? ["address"] : [])
  return swiftSettings + (sanitizers.isEmpty ? [] : [.unsafeFlags(["-sanitize=" + sanitizers.joined(separator: ",")])])
}

let package = Package(
  name: "multiway",
  products: [
    .executable(name: "multiway", targets: ["multiway"]),
    .library(name: "MultiwayConversion", targets: ["MultiwayConversion"]),
    .library(name: "MultiwayRuntime", targets: ["MultiwayRuntime"]),
  ] + (fuzzing != nil ? [.library(name: "MultiwayFuzzing", type: .static, targets: ["MultiwayFuzzing"])] : []),
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
  ],
  targets: [
    .systemLibrary(name: "COpenBLAS", providers: [.apt(["libopenblas-dev"])]),
    .systemLibrary(name: "CDeflate", providers: [.apt(["libdeflate-dev"])]),
    .systemLibrary(name: "CZstd", providers: [.apt(["libzstd-dev"])]),
    .systemLibrary(name: "CXXHash", providers: [.apt(["libxxhash-dev"])]),
    .systemLibrary(name: "CCrypto", providers: [.apt(["libssl-dev"])]),
    .target(name: "CMultiwayFiles"),
    .systemLibrary(name: "CProtobufC", providers: [.apt(["libprotobuf-c-dev"])]),
    .target(name: "CMultiwayKernels"),
    .target(name: "CONNX", dependencies: ["CProtobufC"]),
    .executableTarget(
      name: "multiway",
      dependencies: layers.map { .target(name: $0.name) } + [
        .product(name: "ArgumentParser", package: "swift-argument-parser")
      ],
      swiftSettings: swiftSettings),
    .target(
      name: "MultiwayTestSupport",
      dependencies: layers.map { .target(name: $0.name) },
      path: "Tests/MultiwayTestSupport",
      swiftSettings: swiftSettings),
    .target(
      name: "MultiwayFuzzing",
      dependencies: layers.map { .target(name: $0.name) },
      path: "Tests/MultiwayFuzzing",
      swiftSettings: settings(of: "MultiwayFuzzing")),
    .testTarget(
      name: "MultiwayFuzzingTests",
      dependencies: ["MultiwayFuzzing", "MultiwayTestSupport"] + layers.map { .target(name: $0.name) },
      swiftSettings: swiftSettings),
    .testTarget(
      name: "multiwayTests",
      dependencies: [.target(name: "multiway"), "MultiwayTestSupport"] + layers.map { .target(name: $0.name) },
      swiftSettings: swiftSettings),
  ]
    + layers.map { layer in
      .target(
        name: layer.name,
        dependencies: layer.imports.map { .target(name: $0) },
        swiftSettings: settings(of: layer.name))
    }
    + layers.filter(\.tested).map { layer in
      .testTarget(
        name: layer.name + "Tests",
        dependencies: ["MultiwayTestSupport", .target(name: layer.name)]
          + layer.imports.map { .target(name: $0) },
        swiftSettings: swiftSettings)
    },
  swiftLanguageModes: [.v6]
)
