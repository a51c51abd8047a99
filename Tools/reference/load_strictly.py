"""Loads a file that `multiway convert --layout` wrote into the code base of that layout, strictly, and compares outputs.

    load_strictly.py timm.safetensors --layout timm --inputs inputs.safetensors --outputs outputs.safetensors
    load_strictly.py huggingface/ --layout huggingface

Nothing may be missing, left over or of another shape. timm's layout is opened by timm, Hugging Face's by transformers (a directory,
or a bare file beside a config.json that its shapes imply), unilm's BEiT-3 by torchscale. unilm's BEiT has no package: its
names are timm's, and its index buffers are compared with those that the model would make.

With --inputs and --outputs the model must compute these outputs, to --decibels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

import opening
from measures import sqnr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="what was written: a file, or a directory in Hugging Face's layout")
    parser.add_argument("--layout", choices=opening.LAYOUTS, required=True)
    parser.add_argument("--heads", type=int, metavar="N", help="attention heads, where no table tells them and they have not 64 channels")
    parser.add_argument("--epsilon", type=float, metavar="E", help="of the norms, where there is no config.json")
    parser.add_argument("--inputs", type=Path, metavar="FILE", help="a safetensors file of inputs")
    parser.add_argument("--outputs", type=Path, metavar="FILE", help="a safetensors file of the outputs that are expected")
    parser.add_argument("--decibels", type=float, default=95.0, metavar="DB", help="the least SQNR of an output (default: 95)")
    options = parser.parse_args()
    if (options.inputs is None) != (options.outputs is None):
        parser.error("--inputs and --outputs belong together")
    torch.set_num_threads(1)
    try:
        run = opening.open_strictly(options.file, options.layout, options.heads, options.epsilon)
    except (ValueError, RuntimeError, KeyError) as error:
        raise SystemExit(f"{options.file}: {error}") from error
    print(f"{options.file}: loads strictly into {options.layout}")
    if options.inputs is None:
        return
    found, expected = run(load_file(options.inputs)), load_file(options.outputs)
    common = [name for name in expected if name in found]
    if not common:
        raise SystemExit(f"no output in common: it computes {', '.join(found)}, the file has {', '.join(expected)}")
    ratios = {name: sqnr(expected[name], found[name]) for name in common}
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.1f} dB")
    if min(ratios.values()) < options.decibels:
        raise SystemExit(f"outputs differ: less than {options.decibels:g} dB")


if __name__ == "__main__":
    main()
