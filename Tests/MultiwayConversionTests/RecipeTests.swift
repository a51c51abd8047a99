import MultiwayConversion
import MultiwayCore
import MultiwayGraph
import MultiwayParity
import MultiwayTestSupport
import Testing

@Suite struct RecipeTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func find(_ text: String) throws -> Recipe {
    try Recipes.find(try folder.write(Array(text.utf8), to: "recipe.json"))
  }

  @Test(arguments: Recipes.all.map(\.name))
  func everyRecipeIsFoundAndReadBack(name: String) throws {
    let recipe = try Recipes.find(name)
    #expect(recipe.name == name)
    #expect(!recipe.summary.isEmpty)
    let copy = try find(JSONValue.object(recipe.json).text(indented: true))
    #expect(copy.json == recipe.json)
    #expect(copy.gates == recipe.gates)
    _ = try recipe.pipeline()
  }

  @Test func whatIsLeftOutComesFromTheBase() throws {
    let recipe = try find(
      #"{"name": "mine", "int8_roles": ["feedForwardIn"], "matrix_storage": "bf16", "gates": {"output_sqnr_db": 12.5}}"#
    )
    #expect(recipe.name == "mine")
    #expect(recipe.gates.outputSQNR == 12.5)
    #expect(recipe.gates.topOneAgreement == Recipes.int8.gates.topOneAgreement)
    let bench = try Workbench()
    let graph = try bench.artifact("tiny/classification", recipe).graph
    for node in graph.nodes where node.role?.isBlockLinear == true {
      #expect((node.op.name == "quantized_linear") == (node.role == .feedForwardIn))
    }
    let matrices = graph.constants.filter { constant in
      constant.data.shape.rank == 2 && !constant.name.hasSuffix(".scale") && !constant.name.hasSuffix(".sum")
    }
    #expect(!matrices.isEmpty && matrices.allSatisfy { $0.data.dtype == .bf16 })
  }

  @Test(arguments: [
    ("[]", "not an object"), (#"{"colour": "red"}"#, "colour"), (#"{"base": "int3"}"#, "int3"),
    (#"{"int8_roles": "all"}"#, "no array"), (#"{"int8_roles": ["positions"]}"#, "positions"),
    (#"{"int8_roles": [7]}"#, "7"), (#"{"matrix_storage": "f8"}"#, "f8"), (#"{"fold_norm_weights": "maybe"}"#, "maybe"),
    (#"{"gates": 3}"#, "gates"), (#"{"gates": {"speed": 3}}"#, "speed"),
    (#"{"gates": {"output_sqnr_db": "30"}}"#, "30"),
    ("{", ""), ("", ""), (#"{"name": "a", "name": "b"}"#, ""),
  ])
  func whatARecipeCannotHoldIsNamed(recipe: (text: String, named: String)) throws {
    let found = expect(ConversionErrorCode.recipe) { _ = try find(recipe.text) }
    #expect(recipe.named.isEmpty || found?.found.contains(recipe.named) == true, "\(found?.description ?? "")")
    #expect(found?.file == folder.path("recipe.json"))
  }

  @Test func anUnknownRecipeListsTheKnownOnes() throws {
    let found = expect(ConversionErrorCode.recipe) { _ = try Recipes.find("int9") }
    for recipe in Recipes.all { #expect(found?.expected?.contains(recipe.name) == true) }
    expect(FileErrorCode.notFound) { _ = try Recipes.find(folder.path("none.json")) }
  }
}
