import MultiwayCheckpoint
import MultiwayModels

/// Docs/Support.md, made from the registries: what is read, for which task, in which layout.
public enum SupportDocument {
  /// The page.
  public static var markdown: String {
    """
    # What is supported

    This page is generated from the registries of formats and architectures; a test fails where it is stale, and another loads every
    checkpoint that a row names. `MULTIWAY_UPDATE_DOCUMENTS=1 swift test --filter SupportTests` writes it anew.

    ## Architectures

    \(architectures)

    * **read** are the key layouts in which a state dict may come; which one it is follows from its keys. **written** are those of
      `multiway convert --layout`. From one layout to another and back, every tensor has the bytes that it had.
    * The names of inputs and outputs are those of `multiway run`.
    * Every row runs in the fp32 reference and in the runtime, in fp32, with fp16 or bf16 storage and in int8. Outputs agree with
      the oracle's at 95 dB and more in fp32; figures at released sizes are in [Parity.md](Parity.md).
    * What lies outside of the rows still converts: `multiway convert IN OUT.safetensors` needs no known architecture.

    ## Containers

    \(containers)

    Any of them may be compressed by zstd; it is unpacked as it is read. A checkpoint may be cut into shards behind
    `model.safetensors.index.json` or `pytorch_model.bin.index.json`, and a folder of a Hugging Face model stands for the model in it, its
    `config.json` included. State dicts are found under `model`, `module`, `state_dict`, `model_ema` and other names, and under prefixes such as
    `module.` that training frameworks add. A pickle is data: nothing in it is ever called.

    """
  }

  private static var architectures: String {
    var rows = [
      "| architecture | task | files | read | written | inputs → outputs | judged by |",
      "|---|---|---|---|---|---|---|",
    ]
    for architecture in Architectures.all {
      for row in architecture.support {
        let cells = [
          "`\(architecture.name)`", row.task, row.files, row.read.joined(separator: ", "),
          row.written.joined(separator: ", "),
          row.inputs.joined(separator: ", ") + " → " + row.outputs.joined(separator: ", "), row.oracle,
        ]
        rows.append("| " + cells.joined(separator: " | ") + " |")
      }
    }
    return rows.joined(separator: "\n")
  }

  private static var containers: String {
    let rows = CheckpointFormats.all.map { "| \($0.formatName) | \($0.summary) |" }
    return (["| format | what is read |", "|---|---|"] + rows).joined(separator: "\n")
  }
}
