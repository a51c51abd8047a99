import ArgumentParser
import Glibc
import MultiwayConversion
import MultiwayCore
import MultiwayKernels
import MultiwayReference

/// The command line of multiway: one thin file a verb.
@main
struct Multiway: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "multiway",
    abstract: "Converts, quantizes, prunes and proves BEiT-family models.",
    discussion: """
      The kind of an input is found from its bytes: PyTorch checkpoints (.pth), safetensors, GGUF. The kind of an output \
      follows from its extension: .gguf for an artifact that runs, .safetensors for tensors. No code of a checkpoint is ever run.

      Exit codes: 0 done, 1 parity failed, 64 usage, 65 the input is malformed or not supported, 66 no such input, \
      70 a fault of ours, 73 cannot create the output, 74 I/O error. An interrupt (Ctrl-C) leaves nothing half-written; \
      shells then show 130, and 143 after SIGTERM.

      MULTIWAY_ISA=\(ISA.allCases.map(\.rawValue).joined(separator: "|")) forces a set of kernels; the results are the same on all.
      """,
    version: MultiwayVersion.current,
    subcommands: [
      Inspect.self, Convert.self, Quantize.self, Prune.self, Run.self, Verify.self, Bench.self, Diff.self, Pack.self,
      Unpack.self,
      Delta.self, Apply.self,
    ])

  static func main() {
    Reference.endIdleThreads()
    Interrupts.removeTemporaryFiles()
    MappedFile.survivesLostPages()
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch let error as any DiagnosedError {
      // What was read from lost pages explains every other error.
      fail(MappedFile.firstLoss ?? error)
    } catch {
      exit(withError: error)
    }
    if let loss = MappedFile.firstLoss { fail(loss) }
  }

  private static func fail(_ error: any DiagnosedError) -> Never {
    Console.error("error: " + error.description)
    Glibc.exit(error.category.rawValue)
  }
}
