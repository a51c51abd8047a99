"""Measures every released shape of model: how close `multiway` comes to the originals, as a Markdown table.

    family_check.py .build/release/multiway
    family_check.py .build/release/multiway --only beit_base --onnxruntime

For each architecture × head × layout × size it writes a checkpoint with trained-like weights, runs the layout's own code base on
four smooth images (and texts) in fp32, and compares:

* fp32: `multiway run` on the file;
* reference: `multiway verify FILE FILE`, the slow interpreter against the runtime;
* int8: `multiway quantize` and `multiway run` on the artifact;
* ONNX Runtime, with --onnxruntime: the exported module with dynamic int8, a scale a channel.

Numbers are SQNR in dB, of the worst output. Exit code 1 where fp32 or the reference stay under 95 dB, where int8 is worse than
ONNX Runtime's, or where a step failed. Files are deleted as soon as they were measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import beit3
import checkpoints
import family
import layouts
import onnx_peer
from make_checkpoint import make_state
from make_inputs import make_inputs
from measures import worst
from released import Release, all_releases

EXAMPLES = 4
LEAST_FP32 = 95.0
HUB_EPSILON = 1e-12
"""What the hub's config.json files say, whatever a model was trained with."""

COLUMNS = ("file", "layout", "task", "fp32", "reference", "int8", "ONNX Runtime int8")


class Model:
    """A release with its weights, and its original in PyTorch."""

    def __init__(self, release: Release, seed: int) -> None:
        self.release, self.configuration = release, release.configuration
        c = self.configuration
        if isinstance(c, beit3.Configuration):
            self.state = make_state(c, seed)
            self.module: nn.Module = checkpoints.model_of(self.state, c.heads)
            texts = 0 if c.task == "classification" else EXAMPLES
            settings = dict(texts=texts, text_length=16, vocabulary=64002, second=c.task == "nlvr2")
        else:
            self.state = family.make_state(c, seed)
            self.module = family.timm_oracle(c, self.state)
            settings = dict(texts=0, text_length=0, vocabulary=0)
        arrays = make_inputs(images=EXAMPLES, image_size=c.image_size, seed=seed, **settings)
        self.inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def compute(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """timm's or torchscale's outputs."""
        if not isinstance(self.configuration, beit3.Configuration):
            return family.outputs_of(self.configuration, self.state, self.module, inputs["image"])
        inputs = {name: value.bool() if name == "padding_mask" else value for name, value in inputs.items()}
        return self.module(inputs)

    def expected(self, layout: str, file: Path) -> dict[str, Tensor]:
        """What the layout's own code base computes."""
        with torch.inference_mode():
            if layout != "huggingface":
                return {name: value.clone() for name, value in self.compute(self.inputs).items()}
            kind = layouts.huggingface_class(self.configuration)
            # Data2VecVision's headless class leaves the pooler out unless told otherwise.
            options = {"add_pooling_layer": True} if self.configuration.head == "features" else {}
            return layouts.run_huggingface(layouts.load_huggingface(file, kind, **options), self.inputs["image"])

    def write(self, layout: str, folder: Path) -> Path:
        """The model in a layout, in the container that it is released in."""
        c = self.configuration
        if isinstance(c, beit3.Configuration):
            torch.save(checkpoints.wrap(self.state, c), folder / "model.pth")
            return folder / "model.pth"
        if layout == "unilm":
            state = layouts.unilm(c, self.state)
            if self.release.training_blocks:
                state = OrderedDict([*state.items(), *layouts.training_blocks(c, self.state).items()])
            torch.save(checkpoints.training_checkpoint(state, checkpoints.family_arguments(c)), folder / "model.pth")
            return folder / "model.pth"
        if layout == "timm":
            save_file(layouts.timm(self.state), folder / "model.safetensors", metadata={"format": "pt"})
            return folder / "model.safetensors"
        directory = folder / "huggingface"
        directory.mkdir()
        layouts.save_huggingface(directory, layouts.huggingface_model(replace(c, epsilon=HUB_EPSILON), self.state))
        return directory

    def onnxruntime(self, folder: Path) -> float:
        """How close ONNX Runtime's dynamic int8 stays to PyTorch."""
        with torch.inference_mode():
            expected = {name: value.clone() for name, value in self.compute(self.inputs).items()}
        found = onnx_peer.dynamic_int8(self.module, self.compute, self.inputs, list(expected), folder)
        return worst(expected, found)


class Tool:
    """The binary under test."""

    def __init__(self, binary: Path, threads: int) -> None:
        self.binary, self.threads = binary.resolve(), threads

    def __call__(self, *arguments: object, codes: tuple[int, ...] = (0,)) -> str:
        command = [str(self.binary), *map(str, arguments), "--threads", str(self.threads)]
        command = command[:-2] if arguments[0] == "quantize" else command
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode not in codes:
            raise RuntimeError(f"{' '.join(command[1:])}: exit code {done.returncode}\n{done.stderr.strip()}")
        return done.stdout

    def outputs(self, model: Path, inputs: Path, folder: Path) -> dict[str, Tensor]:
        file = folder / "outputs.safetensors"
        self("run", model, "--inputs", inputs, "--outputs", file, "--force")
        return {name: value.clone() for name, value in load_file(file).items()}


def measure(model: Model, layout: str, tool: Tool, folder: Path) -> dict[str, float]:
    """The numbers of one file, by column."""
    file, inputs, artifact = model.write(layout, folder), folder / "inputs.safetensors", folder / "int8.gguf"
    save_file(model.inputs, inputs)
    expected = model.expected(layout, file)
    # No --heads: a released file must be understood as it is, and heads that were guessed wrongly show as a small fp32 here.
    measured = {"fp32": worst(expected, tool.outputs(file, inputs, folder))}
    report = json.loads(tool("verify", file, file, "--inputs", inputs, "--json", "-", codes=(0, 1)))
    measured["reference"] = min(output["sqnr_db"] or float("inf") for output in report["outputs"])
    tool("quantize", file, artifact)
    measured["int8"] = worst(expected, tool.outputs(artifact, inputs, folder))
    return measured


def row(cells: Mapping[str, str | float]) -> str:
    shown = (cells.get(column, "–") for column in COLUMNS)
    return "| " + " | ".join(f"{cell:.1f}" if isinstance(cell, float) else cell for cell in shown) + " |"


def good(measured: Mapping[str, float]) -> bool:
    close = all(measured[column] >= LEAST_FP32 for column in ("fp32", "reference"))
    return close and not measured["int8"] < measured.get("ONNX Runtime int8", float("-inf"))


def check(release: Release, chosen: tuple[str, ...], tool: Tool, seed: int, onnxruntime: bool) -> bool:
    """Prints the rows of one release; whether all of them are good."""
    model, passed, peer = Model(release, seed), True, {}
    if onnxruntime:
        with tempfile.TemporaryDirectory() as folder:
            peer = {"ONNX Runtime int8": model.onnxruntime(Path(folder))}
    for layout in chosen:
        named = {"file": release.name, "layout": layout, "task": release.task}
        with tempfile.TemporaryDirectory() as folder:
            try:
                measured = {**measure(model, layout, tool, Path(folder)), **peer}
            except (RuntimeError, ValueError) as error:
                print(error, file=sys.stderr)
                print(row({**named, "fp32": "failed"}), flush=True)
                passed = False
                continue
        print(row({**named, **measured}), flush=True)
        passed &= good(measured)
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("multiway", type=Path, metavar="MULTIWAY", help="the binary")
    parser.add_argument("--only", metavar="TEXT", action="append", help="releases whose name has this in it; may be given again")
    parser.add_argument("--layout", choices=("unilm", "timm", "huggingface"), action="append", help="this layout; may be given again")
    parser.add_argument("--onnxruntime", action="store_true", help="measure ONNX Runtime's dynamic int8 too")
    parser.add_argument("--list", action="store_true", help="print the releases and stop")
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="for PyTorch and multiway (default: 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    releases = [each for each in all_releases() if not options.only or any(text in each.name for text in options.only)]
    selected = [(each, tuple(l for l in each.layouts if not options.layout or l in options.layout)) for each in releases]
    if options.list:
        for release, chosen in selected:
            print(f"{release.name}: {release.task}: {', '.join(chosen)}")
        return
    if not options.multiway.is_file():
        parser.error(f"{options.multiway} is no file; build it with: swift build -c release --product multiway")
    print(row({column: column for column in COLUMNS}))
    print("|" + "---|" * len(COLUMNS), flush=True)
    tool = Tool(options.multiway, options.threads)
    results = [check(release, chosen, tool, options.seed, options.onnxruntime) for release, chosen in selected if chosen]
    raise SystemExit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main()
