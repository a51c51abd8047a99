"""How long a checkpoint takes to a vision-only int8 file, beside what people do today: one table of seconds and ratios.

    conversion.py base_in1k.pth --multiway .build/release/multiway --rounds 5

Each round runs every row once, in turn and each in a process of its own, so that a busy machine slows all alike; the table has medians.
`multiway` is timed from the start of its process to its end. The peers are timed without Python's start and imports: `torch.load` +
`save_file` of the whole file, and ONNX Runtime's `quantize_dynamic` on an fp32 export of what the task reaches, which is made once and not
counted. All sources are in the page cache, and nothing waits to be written when a row begins. Our output is on the disk at the end (fsync);
those of the peers need not be.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
TORCH_COPY = Path(__file__).resolve().with_name("torch_copy.py")

QUANTIZE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import onnx_peer
import onnxruntime.quantization
start = time.perf_counter()
onnx_peer.quantize(Path(sys.argv[2]), Path(sys.argv[3]))
print(time.perf_counter() - start)
"""


def export(checkpoint: Path, exported: Path) -> None:
    """The fp32 ONNX file of what a classifier's task reaches."""
    sys.path.insert(0, str(REFERENCE))
    import checkpoints
    import onnx_peer
    import torch

    model = checkpoints.load(checkpoint)
    size = model.configuration.image_size
    run = onnx_peer.Positional(model, lambda inputs: model(inputs), ["image"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            run.eval(), (torch.zeros(1, 3, size, size),), str(exported), input_names=["image"], output_names=["logits"], opset_version=17, dynamo=False
        )


def output_of(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def seconds_of_quantize(binary: Path, checkpoint: Path, result: Path) -> float:
    start = time.perf_counter()
    output_of(binary, "quantize", checkpoint, result)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a BEiT-3 classifier, .pth, which you trust: it is unpickled")
    parser.add_argument("--multiway", type=Path, required=True, metavar="PATH", help="our binary")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    options = parser.parse_args()
    binary = options.multiway.resolve()
    checkpoint = options.checkpoint.resolve()

    with tempfile.TemporaryDirectory(dir=checkpoint.parent) as name:
        folder = Path(name)
        export(checkpoint, folder / "model.onnx")
        rows = {
            "multiway quantize": lambda: seconds_of_quantize(binary, checkpoint, folder / "int8.gguf"),
            "torch.load + save_file": lambda: float(
                output_of(sys.executable, TORCH_COPY, checkpoint, folder / "copy.safetensors").split("total ")[1].split()[0]
            ),
            "ONNX Runtime quantize_dynamic": lambda: float(
                output_of(sys.executable, "-c", QUANTIZE, REFERENCE, folder / "model.onnx", folder / "int8.onnx").split()[-1]
            ),
        }
        times: dict[str, list[float]] = {row: [] for row in rows}
        for number in range(options.rounds):
            for row, run in rows.items():
                for output in ("int8.gguf", "copy.safetensors", "int8.onnx"):
                    (folder / output).unlink(missing_ok=True)
                # Else a row would wait for what the one before it left to be written.
                os.sync()
                times[row].append(run())
            print(f"round {number + 1}: " + ", ".join(f"{row} {seconds[-1]:.2f} s" for row, seconds in times.items()), file=sys.stderr, flush=True)
    ours = statistics.median(times["multiway quantize"])
    print("| | median s | least | most | multiway takes |\n|---|---|---|---|---|")
    for row, seconds in times.items():
        median = statistics.median(seconds)
        print(f"| {row} | {median:.2f} | {min(seconds):.2f} | {max(seconds):.2f} | {ours / median:.3f} × |")


if __name__ == "__main__":
    main()
