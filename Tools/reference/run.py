"""Runs the oracle, PyTorch and torchscale in fp32, on a checkpoint.

    run.py base_in1k.pth --inputs inputs.safetensors --outputs outputs.safetensors
    run.py base_in1k.pth --inputs inputs.safetensors --outputs values.safetensors --all

Outputs have the names of `multiway run`. With --all every value on the way is written too; README.md lists their names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import beit3
import checkpoints
from recording import recorded


def run(model: beit3.Model, inputs: dict[str, Tensor], *, every_value: bool = False) -> dict[str, Tensor]:
    """The outputs of a model, and with `every_value` all that it computed on the way."""
    inputs = dict(inputs)
    for name, dtype in (("image", torch.float32), ("image2", torch.float32), ("text", torch.int64), ("padding_mask", torch.bool)):
        if name in inputs:
            inputs[name] = inputs[name].to(dtype)
    with torch.inference_mode():
        if not every_value:
            return {name: value.contiguous() for name, value in model(inputs).items()}
        with recorded(model) as values:
            outputs = model(inputs)
    return {name: value.contiguous() for name, value in {**values, **outputs}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .pth file in the released layout")
    parser.add_argument("--inputs", type=Path, required=True, metavar="FILE", help="safetensors: image, image2, text, padding_mask")
    parser.add_argument("--outputs", type=Path, required=True, metavar="FILE", help="the safetensors file to write")
    parser.add_argument("--all", action="store_true", help="write every intermediate value as well")
    parser.add_argument("--heads", type=int, metavar="N", help="attention heads, where the checkpoint's args do not tell")
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N rows of every input")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for PyTorch")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        model = checkpoints.load(options.checkpoint, options.heads)
    except ValueError as error:
        parser.error(f"{options.checkpoint}: {error}")
    inputs = {name: value[: options.limit] for name, value in load_file(options.inputs).items()}
    missing = [name for name in beit3.REQUIRED_INPUTS.get(model.configuration.task, ()) if name not in inputs]
    if missing or not inputs:
        parser.error(f"{options.inputs} lacks {' and '.join(missing) or 'inputs'}; the task is {model.configuration.task}")
    outputs = run(model, inputs, every_value=options.all)
    save_file(outputs, options.outputs, metadata={"torch": torch.__version__})
    shown = [name for name in outputs if not name.startswith("layers.")]
    print(f"{options.outputs}: {len(outputs)} tensors, " + ", ".join(f"{name} {list(outputs[name].shape)}" for name in shown))


if __name__ == "__main__":
    main()
