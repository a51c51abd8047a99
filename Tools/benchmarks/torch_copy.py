"""The plain way to copy a checkpoint: `torch.load`, then `safetensors.torch.save_file`. Prints seconds and peak memory.

    torch_copy.py base_in1k.pth copy.safetensors
    torch_copy.py base_in1k.pth copy.safetensors --dtype f16

Memory is the process's peak resident set, the interpreter and PyTorch (about 0.55 GB) included.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

DTYPES = {"keep": None, "f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="IN.pth", help="a checkpoint that you trust: it is unpickled")
    parser.add_argument("copy", type=Path, metavar="OUT.safetensors", help="the file to write")
    parser.add_argument("--dtype", choices=DTYPES, default="keep", help="cast every floating-point tensor")
    options = parser.parse_args()

    imported = peak_megabytes()
    start = time.perf_counter()
    checkpoint = torch.load(options.checkpoint, map_location="cpu", weights_only=False)
    state = next((checkpoint[key] for key in ("model", "module", "state_dict") if key in checkpoint), checkpoint)
    loaded = time.perf_counter()
    dtype = DTYPES[options.dtype]
    if dtype is not None:
        state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_file(dict(state), options.copy)
    saved = time.perf_counter()
    print(f"load {loaded - start:.2f} s, cast and save {saved - loaded:.2f} s, total {saved - start:.2f} s")
    print(f"peak {peak_megabytes():.0f} MB, of which {imported:.0f} MB after the imports")


if __name__ == "__main__":
    main()
